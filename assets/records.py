"""What the event log says of every partition: its newest record, and what of that differs from today."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

import dagster as dg
from dagster._core.definitions.assets.graph.base_asset_graph import BaseAssetNode
from dagster._core.definitions.data_version import CODE_VERSION_TAG, DATA_VERSION_TAG, INPUT_DATA_VERSION_TAG_PREFIX
from dagster._core.definitions.partitions.utils.multi import MULTIPARTITION_KEY_DELIMITER

CODE = "its code"

_RECORDS_AT_ONCE = 500


@dataclass(frozen=True)
class Record:
    """What a materialisation says about itself and about what it read."""

    data_version: str
    code_version: str | None
    read: Mapping[str, str]
    timestamp: float

    def changed(self, code_version: str | None, current: Mapping[str, str]) -> list[str]:
        """Return what would be different today: `CODE`, and the names of inputs with another version."""
        code = [CODE] if self.code_version != code_version else []
        return code + [name for name, version in current.items() if self.read.get(name) != version]


@dataclass(frozen=True)
class AssetRecords:
    """The partitions that an asset may have, and the newest records of those that exist, both by data set."""

    keys: Mapping[str, Sequence[str]]
    records: Mapping[str, Mapping[str, Record]]
    seeded: bool

    @staticmethod
    def of(instance: dg.DagsterInstance, node: BaseAssetNode) -> "AssetRecords":
        """Return what an instance knows of a partitioned asset."""
        keys: dict[str, list[str]] = {}
        for partition in sorted(node.partitions_def.get_partition_keys() if node.partitions_def else []):
            keys.setdefault(dataset_part(partition), []).append(partition)
        newest = _newest_records(instance, node.key)
        records = {dataset: {p: newest[p] for p in of_it if p in newest} for dataset, of_it in keys.items()}
        return AssetRecords(keys, records, any(is_seeded(p) for of_it in keys.values() for p in of_it))

    def record(self, partition: str) -> Record | None:
        """Return the newest record of a partition."""
        return self.records.get(dataset_part(partition), {}).get(partition)

    def downstream(self, partition: str) -> Sequence[str]:
        """Return the partitions of this asset that depend on a partition upstream."""
        same_dataset = self.keys.get(dataset_part(partition), ())
        if self.seeded and is_seeded(partition):
            return [partition] if partition in same_dataset else []
        return same_dataset

    def upstream(self, partition: str) -> list[Record]:
        """Return the records of this asset that a partition downstream reads, in the order of their partitions."""
        dataset = dataset_part(partition)
        if self.seeded and not is_seeded(partition):
            return list(self.records.get(dataset, {}).values())
        record = self.record(partition if self.seeded else dataset)
        return [record] if record else []


def dataset_part(partition: str) -> str:
    """Return the data set of a partition key that is plain text."""
    return partition.partition(MULTIPARTITION_KEY_DELIMITER)[0]


def seed_part(partition: str) -> int | None:
    """Return the seed of a partition key that is plain text, None where it has none."""
    seed = partition.partition(MULTIPARTITION_KEY_DELIMITER)[2]
    return int(seed) if seed else None


def is_seeded(partition: str) -> bool:
    """Tell whether a partition key that is plain text has a seed."""
    return MULTIPARTITION_KEY_DELIMITER in partition


def is_followed(node: BaseAssetNode) -> bool:
    """Tell whether an asset is one that is made for data sets."""
    return node.is_materializable and node.partitions_def is not None


def version_read(records: Sequence[Record]) -> str:
    """Return what Dagster records of an input: one digest over the versions of all the partitions that are read."""
    return sha256("".join(record.data_version for record in records).encode()).hexdigest()


_RECORDS: dict[str, dict[dg.AssetKey, dict[int, Record]]] = {}


def _newest_records(instance: dg.DagsterInstance, key: dg.AssetKey) -> dict[str, Record]:
    """Return the newest record of each partition; a process fetches each of them once."""
    kept = _RECORDS.setdefault(str(instance.get_ref().event_storage_data), {}) if instance.is_persistent else {}
    known = kept.get(key, {})
    ids = instance.event_log_storage.get_latest_storage_id_by_partition(key, dg.DagsterEventType.ASSET_MATERIALIZATION)
    unknown = [storage_id for storage_id in ids.values() if storage_id not in known]
    fetched: dict[int, Record] = {}
    for start in range(0, len(unknown), _RECORDS_AT_ONCE):
        chunk = unknown[start : start + _RECORDS_AT_ONCE]
        found = instance.fetch_materializations(
            dg.AssetRecordsFilter(asset_key=key, storage_ids=chunk), limit=len(chunk)
        )
        fetched |= {record.storage_id: _described(record) for record in found.records}
    everything = {**known, **fetched}
    kept[key] = {storage_id: everything[storage_id] for storage_id in ids.values() if storage_id in everything}
    return {partition: everything[storage_id] for partition, storage_id in ids.items() if storage_id in everything}


def _described(record: dg.EventLogRecord) -> Record:
    tags = (record.asset_materialization and record.asset_materialization.tags) or {}
    prefix = f"{INPUT_DATA_VERSION_TAG_PREFIX}/"
    return Record(
        data_version=tags.get(DATA_VERSION_TAG, ""),
        code_version=tags.get(CODE_VERSION_TAG),
        read={name.removeprefix(prefix): value for name, value in tags.items() if name.startswith(prefix)},
        timestamp=record.timestamp,
    )
