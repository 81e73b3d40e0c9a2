"""
What the event log knows of each partition: its newest record, and the last run that was to make it and did not.

Nothing is judged here; that is `assets.support.staleness`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import dagster as dg

from assets.support.dagster_internals import (
    CODE_VERSION_TAG,
    DATA_VERSION_TAG,
    AssetNode,
    attempts_without_result,
    input_versions,
    newest_storage_ids,
)
from assets.support.failures import failure_of_step
from assets.support.lineage import OVERRIDES, SETTINGS, recorded_json
from assets.support.partitions import dataset_of, seed_of

_RECORDS_AT_ONCE = 500
_ENDED_BADLY = {dg.DagsterRunStatus.FAILURE: "failed", dg.DagsterRunStatus.CANCELED: "was cancelled"}


@dataclass(frozen=True)
class Record:
    """
    What a materialisation says about itself and about what it was made from.

    `read` has the data versions of its inputs, by asset; `settings` those that the catalogue gave, None if it recorded
    none; `overrides` those that the run had in their place; `texts` further metadata. Seconds since the epoch.
    """

    data_version: str
    code_version: str | None
    read: Mapping[str, str]
    settings: Mapping[str, object] | None
    overrides: Mapping[str, object]
    texts: Mapping[str, str]
    timestamp: float

    @staticmethod
    def of(materialization: dg.AssetMaterialization, timestamp: float) -> "Record":
        """Return what a materialisation says; its pictures and previews are left out."""
        tags, metadata = materialization.tags or {}, materialization.metadata
        return Record(
            data_version=tags.get(DATA_VERSION_TAG, ""),
            code_version=tags.get(CODE_VERSION_TAG),
            read=input_versions(tags),
            settings=recorded_json(materialization, SETTINGS) if SETTINGS in metadata else None,
            overrides=recorded_json(materialization, OVERRIDES, optional=True),
            texts={
                name: str(entry.value)
                for name, entry in metadata.items()
                if isinstance(entry, dg.TextMetadataValue | dg.PathMetadataValue)
            },
            timestamp=timestamp,
        )


@dataclass(frozen=True)
class Partition:
    """A partition of the graph's assets: a data set and, for what is trained, a seed."""

    key: str
    dataset: str
    seed: int | None

    @staticmethod
    def of(key: str) -> "Partition":
        """Return the parts of a key of either partition definition."""
        return Partition(key, dataset_of(key), seed_of(key) if isinstance(key, dg.MultiPartitionKey) else None)

    def meets(self, other: "Partition") -> bool:
        """Tell whether one of two assets, each with one of these partitions, would read the other."""
        same_seed = self.seed is None or other.seed is None or self.seed == other.seed
        return self.dataset == other.dataset and same_seed


@dataclass(frozen=True)
class AssetRecords:
    """The partitions that an asset may have, and the newest records of those that exist, both by data set."""

    keys: Mapping[str, Sequence[Partition]]
    records: Mapping[str, Mapping[str, Record]]
    seeded: bool

    @staticmethod
    def of(instance: dg.DagsterInstance, node: AssetNode) -> "AssetRecords":
        """Return what an instance knows of a partitioned asset."""
        keys: dict[str, list[Partition]] = {}
        for key in sorted(node.partitions_def.get_partition_keys() if node.partitions_def else []):
            partition = Partition.of(key)
            keys.setdefault(partition.dataset, []).append(partition)
        newest = _newest_records(instance, node.key)
        records = {dataset: {p.key: newest[p.key] for p in of_it if p.key in newest} for dataset, of_it in keys.items()}
        return AssetRecords(keys, records, any(p.seed is not None for of_it in keys.values() for p in of_it))

    def __iter__(self) -> Iterator[Partition]:
        return (partition for of_dataset in self.keys.values() for partition in of_dataset)

    def record(self, partition: Partition) -> Record | None:
        """Return the newest record of a partition."""
        return self.records.get(partition.dataset, {}).get(partition.key)

    def read_by(self, partition: Partition) -> Mapping[str, Record]:
        """Return the records of this asset that a partition downstream reads, by partition and in their order."""
        own = self.records.get(partition.dataset, {})
        if self.seeded and partition.seed is None:
            return own
        key = partition.key if self.seeded else partition.dataset
        return {key: own[key]} if key in own else {}


@dataclass(frozen=True)
class Attempt:
    """A run that was to make a partition and has left no record of it."""

    state: Literal["running", "failed", "not made"]
    reason: str


class Runs:
    """Runs that were to make something and did not, or have not yet."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._instance = instance
        self._known: dict[str, Attempt | None] = {}

    def unfinished(self, key: dg.AssetKey) -> dict[str, Attempt]:
        """Return state and reason by partition, where the last run has left no record."""
        attempts = attempts_without_result(self._instance, key)
        for run_id in attempts.values():
            if run_id not in self._known:
                self._known[run_id] = self._attempt(run_id)
        return {partition: told for partition, run_id in attempts.items() if (told := self._known[run_id])}

    def _attempt(self, run_id: str) -> Attempt | None:
        run = self._instance.get_run_by_id(run_id)
        if run is None:
            return None
        if not run.is_finished and run.status not in _ENDED_BADLY:
            return Attempt("running", f"run {run_id[:8]}")
        text = f"run {run_id[:8]} {_ENDED_BADLY.get(run.status, 'ended without it')}"
        if run.status != dg.DagsterRunStatus.FAILURE:
            return Attempt("not made", text)
        reasons = [
            failure_of_step(entry.get_dagster_event())
            for entry in self._instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
        ]
        return Attempt("failed", "; ".join([text, *reasons]))


_RECORDS: dict[str, dict[dg.AssetKey, dict[int, Record]]] = {}


def _newest_records(instance: dg.DagsterInstance, key: dg.AssetKey) -> dict[str, Record]:
    """Return the newest record of each partition; a process fetches each of them once."""
    kept = _RECORDS.setdefault(str(instance.get_ref().event_storage_data), {}) if instance.is_persistent else {}
    known = kept.get(key, {})
    ids = newest_storage_ids(instance, key)
    unknown = [storage_id for storage_id in ids.values() if storage_id not in known]
    fetched: dict[int, Record] = {}
    for start in range(0, len(unknown), _RECORDS_AT_ONCE):
        chunk = unknown[start : start + _RECORDS_AT_ONCE]
        found = instance.fetch_materializations(
            dg.AssetRecordsFilter(asset_key=key, storage_ids=chunk), limit=len(chunk)
        )
        fetched |= {
            record.storage_id: Record.of(record.asset_materialization, record.timestamp)
            for record in found.records
            if record.asset_materialization
        }
    everything = {**known, **fetched}
    kept[key] = {storage_id: everything[storage_id] for storage_id in ids.values() if storage_id in everything}
    return {partition: everything[storage_id] for partition, storage_id in ids.items() if storage_id in everything}
