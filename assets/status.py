"""The status of the pipeline: what of every data set is stale, failed or missing, and why."""

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import dagster as dg
import polars as pl
from dagster._core.definitions.assets.graph.base_asset_graph import BaseAssetGraph
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

from assets.lineage import table_metadata
from assets.records import CODE, AssetRecords, Record, dataset_part, is_followed, is_seeded, seed_part, version_read
from assets.stage import stage_asset
from recmodels.data.digest import frame_digest
from recmodels.data.schemas import PIPELINE_STATUS, STATES
from recmodels.reporting.status import headline, summarize

KEY = dg.AssetKey("pipeline_status")
MAX_REASON = 400
_ENDED_BADLY = {dg.DagsterRunStatus.FAILURE: "failed", dg.DagsterRunStatus.CANCELED: "was cancelled"}


def pipeline_status_asset(graph: Callable[[], BaseAssetGraph[Any]]) -> dg.AssetsDefinition:
    """Return the asset that looks at all the others; they are known only when all definitions are."""

    @stage_asset(
        name=KEY.path[0],
        group_name="status",
        kinds={"polars", "parquet"},
        code_version="1",
        partitions_def=None,
    )
    def pipeline_status(context: dg.AssetExecutionContext) -> dg.MaterializeResult[pl.DataFrame]:
        """
        What of every data set is stale, failed or missing, and why.

        Read from the event log; nothing is started. Stale: an input or the code differs from what it was made from.
        Waiting: something upstream is not up to date, so it may become stale. Refreshed every hour, or by the job
        `status`.
        """
        table = status_of(context.instance, graph())
        counts = dict(table["state"].cast(pl.String).value_counts().iter_rows())
        by_dataset = {str(dataset): headline(rows) for (dataset,), rows in table.group_by("dataset")}
        return dg.MaterializeResult(
            value=table,
            data_version=dg.DataVersion(frame_digest(table)),
            metadata={
                "summary": dg.MetadataValue.md(summarize(table)),
                "data_sets": dg.MetadataValue.json(by_dataset),
                **{state.replace(" ", "_"): counts.get(state, 0) for state in STATES},
                **table_metadata(table),
            },
        )

    return pipeline_status


def status_of(instance: dg.DagsterInstance, graph: BaseAssetGraph[Any]) -> pl.DataFrame:
    """Return a table of schema `PIPELINE_STATUS`, by data set and in the order data flows."""
    keys = [key for key in graph.toposorted_asset_keys if is_followed(graph.get(key))]
    runs = _Runs(instance, {})
    checks = _failing_checks(instance, graph, keys)
    records: dict[dg.AssetKey, AssetRecords] = {}
    unsettled: dict[dg.AssetKey, dict[str, str]] = {}
    rows: list[dict[str, object]] = []
    for key in keys:
        node = graph.get(key)
        parents = {parent: records[parent] for parent in sorted(node.parent_keys) if parent in records}
        own = records[key] = AssetRecords.of(instance, node)
        held: dict[str, list[str]] = {}
        for parent in parents:
            for moving, state in unsettled[parent].items():
                for partition in own.downstream(moving):
                    held.setdefault(partition, []).append(f"{_name(parent, moving)} ({state})")
        attempts = runs.unfinished(key)
        unsettled[key] = {}
        for partition in (partition for of_dataset in own.keys.values() for partition in of_dataset):
            record = own.record(partition)
            current = {
                parent.to_user_string(): version_read(read)
                for parent, theirs in parents.items()
                if (read := theirs.upstream(partition))
            }
            state, why = _judged(
                record,
                node.code_version,
                current,
                attempt=attempts.get(partition),
                failing=checks.get((key, partition), []),
                held=held.get(partition, []),
            )
            if record is not None and state != "up to date":
                unsettled[key][partition] = state
            rows.append(
                {
                    "dataset": dataset_part(partition),
                    "seed": seed_part(partition),
                    "asset": key.to_user_string(),
                    "stage": node.group_name,
                    "state": state,
                    "why": why[:MAX_REASON],
                    "materialized_at": record and dt.datetime.fromtimestamp(record.timestamp, tz=dt.UTC),
                }
            )
    table = pl.DataFrame(rows, schema=PIPELINE_STATUS)
    position = {dataset: index for index, dataset in enumerate(table["dataset"].unique(maintain_order=True))}
    return table.sort(pl.col("dataset").replace_strict(position), maintain_order=True)


def _judged(
    record: Record | None,
    code_version: str | None,
    current: Mapping[str, str],
    *,
    attempt: tuple[str, str] | None,
    failing: list[str],
    held: list[str],
) -> tuple[str, str]:
    """Return the state of a partition and its reason, the most urgent of those that hold."""
    if attempt and attempt[0] in ("failed", "running"):
        return attempt
    if record is None:
        return "missing", attempt[1] if attempt else ""
    if failing:
        return "check failed", ", ".join(sorted(failing))
    if changed := record.changed(code_version, current):
        reasons = [f"another version of {', '.join(names)}"] if (names := [n for n in changed if n != CODE]) else []
        if CODE in changed:
            reasons.append(f"code version {record.code_version} became {code_version}")
        return "stale", "; ".join(reasons)
    if held:
        return "waiting", f"for {', '.join(held)}"
    return "up to date", ""


def _name(key: dg.AssetKey, partition: str) -> str:
    return key.to_user_string() + (f" of seed {seed_part(partition)}" if is_seeded(partition) else "")


def _failing_checks(
    instance: dg.DagsterInstance, graph: BaseAssetGraph[Any], keys: list[dg.AssetKey]
) -> dict[tuple[dg.AssetKey, str], list[str]]:
    """Return the names of the checks that found the present content of a partition wrong."""
    failing: dict[tuple[dg.AssetKey, str], list[str]] = {}
    for info in instance.event_log_storage.get_asset_check_partition_info(
        sorted(graph.get_check_keys_for_assets(set(keys)))
    ):
        failed = info.latest_execution_status == AssetCheckExecutionRecordStatus.FAILED
        if failed and info.is_current and info.partition_key is not None:
            failing.setdefault((info.check_key.asset_key, info.partition_key), []).append(info.check_key.name)
    return failing


@dataclass(frozen=True)
class _Runs:
    """Runs that were to make something and did not, or have not yet."""

    instance: dg.DagsterInstance
    known: dict[str, tuple[str, str]]

    def unfinished(self, key: dg.AssetKey) -> dict[str, tuple[str, str]]:
        """Return state and reason by partition, where the last run has left no record."""
        storage = self.instance.event_log_storage
        attempts = storage.get_latest_asset_partition_materialization_attempts_without_materializations(key)
        for run_id, _ in attempts.values():
            if run_id not in self.known:
                self.known[run_id] = self._told(run_id)
        return {partition: self.known[run_id] for partition, (run_id, _) in attempts.items()}

    def _told(self, run_id: str) -> tuple[str, str]:
        run = self.instance.get_run_by_id(run_id)
        if run is None or not (run.is_finished or run.status in _ENDED_BADLY):
            return "running", f"run {run_id[:8]}"
        text = f"run {run_id[:8]} {_ENDED_BADLY.get(run.status, 'ended without it')}"
        if run.status != dg.DagsterRunStatus.FAILURE:
            return "not made", text
        reasons = [
            f"{entry.step_key}: {_reason(entry)}"
            for entry in self.instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
        ]
        return "failed", " ".join("; ".join([text, *reasons]).split())


def _reason(entry: dg.EventLogEntry) -> str:
    failure = entry.get_dagster_event().step_failure_data
    told = failure.user_failure_data and failure.user_failure_data.description
    return told or (failure.error.message if failure.error else "")
