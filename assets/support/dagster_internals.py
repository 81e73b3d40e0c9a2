"""
Everything private of Dagster that this project needs, in one place.

Nothing else imports from `dagster._...` or relies on what its documentation does not promise. The test
`tests/dagster/test_dagster_internals.py` fails, by name, when a new version of Dagster changes one of these.
"""

from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any, TypeAlias

import dagster as dg
from dagster._core.asset_graph_view.asset_graph_view import AssetGraphView as AssetGraphView
from dagster._core.definitions.assets.graph.base_asset_graph import BaseAssetGraph, BaseAssetNode
from dagster._core.definitions.data_version import CODE_VERSION_TAG as CODE_VERSION_TAG
from dagster._core.definitions.data_version import DATA_VERSION_TAG as DATA_VERSION_TAG
from dagster._core.definitions.data_version import INPUT_DATA_VERSION_TAG_PREFIX
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from dagster._core.errors import DagsterDefinitionChangedDeserializationError
from dagster._core.event_api import PartitionKeyFilter
from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus
from dagster._core.storage.asset_check_execution_record import (
    AssetCheckExecutionRecordStatus,
    AssetCheckPartitionInfo,
)
from dagster._core.storage.tags import GRPC_INFO_TAG as GRPC_INFO_TAG
from dagster._core.storage.tags import HIDDEN_TAG_PREFIX as HIDDEN_TAG_PREFIX
from dagster_shared.error import SerializableErrorInfo

AssetGraph: TypeAlias = BaseAssetGraph[Any]
AssetJob: TypeAlias = UnresolvedAssetJobDefinition
AssetNode: TypeAlias = BaseAssetNode
ToldError: TypeAlias = SerializableErrorInfo

_ENDED = {AssetCheckExecutionRecordStatus.SUCCEEDED: True, AssetCheckExecutionRecordStatus.FAILED: False}


def input_versions(tags: Mapping[str, str]) -> dict[str, str]:
    """Return the data versions of its inputs that a materialisation has in its tags, by asset."""
    prefix = f"{INPUT_DATA_VERSION_TAG_PREFIX}/"
    return {name.removeprefix(prefix): value for name, value in tags.items() if name.startswith(prefix)}


def version_of_many(versions: Iterable[str]) -> str:
    """Return what Dagster records of an input: one digest over the versions of all the partitions that are read."""
    return sha256("".join(versions).encode()).hexdigest()


def keys_with_events(instance: dg.DagsterInstance) -> set[dg.AssetKey]:
    """Return the assets that were made, or that a run was to make, since they were last wiped."""
    return set(instance.get_asset_keys())


def newest_storage_ids(instance: dg.DagsterInstance, key: dg.AssetKey) -> Mapping[str, int]:
    """Return the storage id of the newest materialisation of each partition."""
    return instance.event_log_storage.get_latest_storage_id_by_partition(key, dg.DagsterEventType.ASSET_MATERIALIZATION)


def attempts_without_result(instance: dg.DagsterInstance, key: dg.AssetKey) -> dict[str, str]:
    """Return the id of the last run that was to make a partition and has not, or not yet, by partition."""
    storage = instance.event_log_storage
    attempts = storage.get_latest_asset_partition_materialization_attempts_without_materializations(key)
    return {partition: run_id for partition, (run_id, _) in attempts.items()}


def backfilling(instance: dg.DagsterInstance, graph: AssetGraph) -> dict[dg.AssetKey, frozenset[str]]:
    """Return the partitions, by asset, that a backfill in progress has still to make."""
    found: dict[dg.AssetKey, frozenset[str]] = {}
    for backfill in instance.get_backfills(filters=BulkActionsFilter(statuses=[BulkActionStatus.REQUESTED])):
        if not backfill.is_asset_backfill:
            continue
        try:
            data = backfill.get_asset_backfill_data(graph)
        except DagsterDefinitionChangedDeserializationError:  # of assets that are no longer there
            continue
        left = data.target_subset - data.materialized_subset - data.failed_and_downstream_subset
        for key in left.asset_keys:
            if graph.get(key).is_partitioned:
                partitions = left.get_partitions_subset(key).get_partition_keys()
                found[key] = found.get(key, frozenset()).union(partitions)
    return found


def blocking_checks(graph: AssetGraph, key: dg.AssetKey) -> list[dg.AssetCheckKey]:
    """Return the checks of an asset that stop what is downstream."""
    return [check for check in sorted(graph.get(key).check_keys) if graph.get(check).blocking]


def check_results(
    instance: dg.DagsterInstance, keys: Iterable[dg.AssetCheckKey]
) -> dict[tuple[dg.AssetCheckKey, str | None], bool | None]:
    """
    Return whether the checks passed, by check and partition (None for a check without any).

    None if the result is of an older materialisation, or the check is being executed. What never ran is not there.
    """
    results: dict[tuple[dg.AssetCheckKey, str | None], bool | None] = {}
    for info in instance.event_log_storage.get_asset_check_partition_info(list(keys)):
        passed = _ENDED.get(info.latest_execution_status)
        current = info.is_current
        if passed is None and _has_ended(instance, info.latest_planned_run_id):
            # The run that planned it stopped before: what counts is the last one that was executed.
            passed, current = _last_executed(instance, info)
        results[info.check_key, info.partition_key] = passed if current else None
    return results


def _has_ended(instance: dg.DagsterInstance, run_id: str) -> bool:
    run = instance.get_run_by_id(run_id)
    return run is None or run.is_finished


def _last_executed(instance: dg.DagsterInstance, info: AssetCheckPartitionInfo) -> tuple[bool | None, bool]:
    """Return whether the last execution of a check passed, and whether it looked at what there is now."""
    for record in instance.event_log_storage.get_asset_check_execution_history(
        info.check_key, limit=1, status=set(_ENDED), partition_filter=PartitionKeyFilter(key=info.partition_key)
    ):
        evaluation = record.event and record.event.asset_check_evaluation
        target = evaluation and evaluation.target_materialization_data
        seen = target.storage_id if target else None
        return _ENDED[record.status], info.latest_materialization_storage_id in (None, seen)
    return None, False


def is_migrated(instance: dg.DagsterInstance) -> bool:
    """Tell whether the tables of an instance are those of this version of Dagster."""
    storages = (instance.run_storage, instance.event_log_storage, instance.schedule_storage)
    found = [storage.alembic_version() for storage in storages if storage]
    return all(version is None or version[0] == version[1] for version in found)


def free_pool_slots(instance: dg.DagsterInstance, run_id: str) -> None:
    """Give back what a run that has ended holds in the pools."""
    instance.event_log_storage.free_concurrency_slots_for_run(run_id)


def started_process(event: dg.EventLogEntry) -> int | None:
    """Return the number of the process that a run says it started in; None if an engine event says anything else."""
    told = event.dagster_event
    metadata = told.engine_event_data.metadata if told else {}
    if told and (told.message or "").startswith("Started process for run") and "pid" in metadata:
        return int(str(metadata["pid"].value))
    return None
