"""`recmodels datasets`: which data sets there are, and what was made of them."""

from typing import TYPE_CHECKING

from pipelines.cli.rows import AsJson, show_rows

if TYPE_CHECKING:
    import dagster as dg


def datasets(as_json: AsJson = False) -> None:
    """
    List the data sets of the catalogue.

    Users, items and rows are those of the prepared tables; trained are the models that there is a checkpoint of. The
    variable RECMODELS_CATALOGUE names a file with further data sets.
    """
    from assets.evaluation import TITLES
    from assets.serving import trained_seeds
    from pipelines.instance import open_instance
    from recmodels.catalogue.entries import load_catalogue

    with open_instance() as instance:
        rows = [
            {
                "dataset": entry.key,
                "title": entry.title,
                "sources": list(entry.sources),
                "users": _rows_of(instance, "users", entry.key),
                "items": _rows_of(instance, "item_ids", entry.key),
                "rows": _rows_of(instance, "interactions", entry.key),
                "trained": [model for model in TITLES if trained_seeds(instance, entry.key, model)],
            }
            for entry in load_catalogue().values()
        ]
    show_rows(rows, as_json=as_json)


def _rows_of(instance: "dg.DagsterInstance", table: str, dataset: str) -> int | None:
    """Return how many rows the current table has, None where there is none."""
    import dagster as dg

    from assets.support.lineage import latest_materialization

    record = latest_materialization(instance, dg.AssetKey(table), dataset)
    return int(str(record.metadata["dagster/row_count"].value)) if record else None
