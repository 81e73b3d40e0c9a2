"""The check that every stored table has: its schema, and the tables of the same data set that it refers to."""

from collections.abc import Iterable

import dagster as dg
import polars as pl

from assets.support.checks import Verdict, table_check
from recmodels.schemas.tables import TABLES, problem_of

TABLE_IO = "parquet_io"


def schema_checks(assets: Iterable[dg.AssetsDefinition]) -> list[dg.AssetChecksDefinition]:
    """Return the check `schema` of every asset that is stored as a table."""
    return [
        _schema_check(spec.key, definition.partitions_def)
        for definition in assets
        for spec in definition.specs
        if definition.get_io_manager_key_for_asset_key(spec.key) == TABLE_IO
    ]


def _schema_check(key: dg.AssetKey, partitions_def: dg.PartitionsDefinition[str] | None) -> dg.AssetChecksDefinition:
    name = key.path[0]
    declared = TABLES[name]
    beside = f" Checked beside {', '.join(declared.refers_to)}." if declared.refers_to else ""
    about = " ".join((declared.schema.__doc__ or "").split())

    @table_check(key, f"{about}{beside}", also=declared.refers_to, partitions_def=partitions_def)
    def schema(table: pl.DataFrame, *others: pl.DataFrame) -> Verdict:
        problem = problem_of(name, table, dict(zip(declared.refers_to, others, strict=True)))
        return Verdict({"rows": table.height, "columns": table.width}, problem)

    return schema
