"""The status of the pipeline as an asset: what of every data set is stale, failed or missing, and why."""

import datetime as dt
from collections.abc import Callable

import dagster as dg
import polars as pl

from assets.support.checks import Verdict, table_check
from assets.support.dagster_internals import AssetGraph
from assets.support.lineage import table_metadata
from assets.support.stage import stage_asset
from assets.support.staleness import Survey, survey
from recmodels.io.digest import frame_digest
from recmodels.reporting.status import headline, summarize
from recmodels.schemas.results import STATES
from recmodels.schemas.tables import PIPELINE_STATUS

KEY = dg.AssetKey("pipeline_status")
MAX_REASON = 400


def pipeline_status_asset(graph: Callable[[], AssetGraph]) -> dg.AssetsDefinition:
    """Return the asset that looks at all the others; they are known only when all definitions are."""

    @stage_asset(
        name=KEY.path[0],
        group_name="status",
        kinds={"polars", "parquet"},
        code_version="2",
        partitions_def=None,
    )
    def pipeline_status(context: dg.AssetExecutionContext) -> dg.MaterializeResult[pl.DataFrame]:
        """
        What of every data set is stale, failed or missing, and why.

        Read from the event log and the catalogue; nothing is started. Stale: inputs, settings or code differ from what
        it was made from, or something upstream is stale. Refreshed every hour, or by the job `status`.
        """
        table = status_table(survey(context.instance, graph()))
        counts = dict(table["state"].cast(pl.String).value_counts().iter_rows())
        by_dataset = {str(dataset): headline(rows) for (dataset,), rows in table.group_by("dataset")}
        return dg.MaterializeResult(
            value=table,
            data_version=dg.DataVersion(frame_digest(table)),
            metadata={
                "summary": dg.MetadataValue.md(summarize(table)),
                "data_sets": dg.MetadataValue.json(by_dataset),
                **{state: counts.get(state, 0) for state in STATES},
                **table_metadata(table, KEY.path[0]),
            },
        )

    return pipeline_status


def status_table(found: Survey) -> pl.DataFrame:
    """Return a table of schema `PIPELINE_STATUS`, by data set and in the order data flows."""
    rows = [
        {
            "dataset": status.partition.dataset,
            "seed": status.partition.seed,
            "asset": status.key.to_user_string(),
            "stage": status.stage,
            "state": status.state,
            "why": "; ".join(status.reasons)[:MAX_REASON],
            "materialized_at": status.record and dt.datetime.fromtimestamp(status.record.timestamp, tz=dt.UTC),
        }
        for status in found
    ]
    table = pl.DataFrame(rows, schema=PIPELINE_STATUS)
    position = {dataset: index for index, dataset in enumerate(table["dataset"].unique(maintain_order=True))}
    return table.sort(pl.col("dataset").replace_strict(position), maintain_order=True)


@table_check(KEY, "No run and no check of any data set has failed last.", blocking=False, partitions_def=None)
def nothing_failed(status: pl.DataFrame) -> Verdict:
    """Count the partitions that will not mend themselves."""
    failed = status.filter(pl.col("state") == "failed")
    measured = {"failed": failed.height}
    if failed.is_empty():
        return Verdict(measured)
    first = failed.row(0, named=True)
    seed = "" if first["seed"] is None else f", seed {first['seed']}"
    return Verdict(
        measured,
        f"{failed.height} partitions failed or have a failed check, expected none; the first is "
        f"{first['asset']} of {first['dataset']}{seed} ({' '.join(first['why'].split()) or first['state']}). "
        "Mend what it says and materialise it again.",
    )
