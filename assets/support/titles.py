"""What items are called where examples are shown."""

import dagster as dg
import polars as pl

from assets.support.io_managers import read_table
from assets.support.partitions import dataset_of
from assets.support.resources import DataRoot
from recmodels.errors import MissingObject
from recmodels.reporting.examples import named_items


def item_titles(context: dg.AssetExecutionContext, data_root: DataRoot, item_ids: pl.DataFrame) -> list[str]:
    """
    Return what to call each item in the order of a table with their asins.

    Titles are for the eye alone: no input of the asset that shows them, because another title changes none of its rows.
    """
    try:
        items = read_table(context.instance, data_root, "items", dataset_of(context.partition_key))
    except MissingObject:
        return item_ids["asin"].to_list()
    return named_items(item_ids, items)
