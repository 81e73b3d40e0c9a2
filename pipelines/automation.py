"""
When an asset is made again by itself: as soon as something it was made from is different.

Each tick reads that from the event log, by comparing the versions which the last materialisation recorded with those
of today. No event has to be caught at the right moment, so none is lost; and equal versions ask for nothing.
"""

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from weakref import WeakKeyDictionary

import dagster as dg
from dagster._core.asset_graph_view.asset_graph_view import AssetGraphView
from dagster._core.definitions.assets.graph.base_asset_graph import BaseAssetNode
from dagster._core.definitions.data_version import CODE_VERSION_TAG, DATA_VERSION_TAG, INPUT_DATA_VERSION_TAG_PREFIX
from dagster._core.definitions.partitions.utils.multi import MULTIPARTITION_KEY_DELIMITER

from recmodels.data.digest import digest_of

CHECKS_PASSED = (
    ~dg.AutomationCondition.any_deps_match(
        ~dg.AutomationCondition.missing()
        & dg.AutomationCondition.any_checks_match(~dg.AutomationCondition.check_passed(), blocking_only=True)
    )
).with_label("blocking checks of what is read have passed")
"""Partitions that do not exist are no hindrance here: the leaderboard reads those models that were trained."""

_RECORDS_AT_ONCE = 500


@dataclass(frozen=True)
class _Record:
    """What a materialisation says about itself and about what it read."""

    data_version: str
    code_version: str | None
    read: Mapping[str, str]


@dataclass(frozen=True)
class Standing:
    """How all partitions of all assets stand at one moment."""

    due: Mapping[dg.AssetKey, Mapping[str, str]]
    """Partitions that are out of date or wanted, with a digest of what a run would be made from."""
    waiting: Mapping[dg.AssetKey, frozenset[str]]
    """Partitions that are being made now, or that have something upstream which is out of date or being made."""

    def frontier(self, key: dg.AssetKey) -> dict[str, str]:
        """Return the due partitions of an asset that nothing holds back."""
        return {
            partition: state
            for partition, state in self.due.get(key, {}).items()
            if partition not in self.waiting.get(key, frozenset())
        }


@dataclass(frozen=True)
class OutOfDate(dg.AutomationCondition[dg.AssetKey]):
    """
    True for partitions whose inputs or code are not those of their last materialisation.

    A partition waits until everything upstream is settled, however many steps away, so that one change runs each asset
    once. What was asked for is not asked for again before its inputs or its code change: a failure is not repeated.
    Partitions that never existed are wanted where all their inputs exist; those with a seed only where someone has
    trained that seed, and the roots of the graph never.
    """

    @property
    def name(self) -> str:
        """The name that the user interface shows."""
        return "out_of_date"

    @property
    def description(self) -> str:
        """The sentence that the user interface shows."""
        return "Inputs or code differ from those of the last materialisation, and everything upstream is settled"

    async def evaluate(  # pyright: ignore[reportIncompatibleMethodOverride] the caller awaits what it gets
        self, context: dg.AutomationContext[dg.AssetKey]
    ) -> dg.AutomationResult[dg.AssetKey]:
        """Return the partitions to ask for; the cursor holds those that were asked for and are still due."""
        standing = await _standing_at_this_tick(context.asset_graph_view)
        asked: dict[str, str] = json.loads(context.cursor or "{}")
        fresh = {
            partition for partition, state in standing.frontier(context.key).items() if asked.get(partition) != state
        }
        wanted = context.candidate_subset.compute_intersection_with_partition_keys(fresh)
        due = standing.due.get(context.key, {})
        now_asked = {partition: state for partition, state in asked.items() if partition in due}
        now_asked |= {partition: due[partition] for partition in wanted.expensively_compute_partition_keys()}
        return dg.AutomationResult(context, wanted, cursor=json.dumps(now_asked, sort_keys=True))


FOLLOW_INPUTS = CHECKS_PASSED & OutOfDate()
"""The condition of every asset. `OutOfDate` comes last: what passes it is asked for."""


def follow_inputs(assets: Iterable[object]) -> list[dg.AssetsDefinition]:
    """Return the asset definitions among loaded objects, with `FOLLOW_INPUTS` attached to every asset."""
    return [
        definition.map_asset_specs(lambda spec: spec.replace_attributes(automation_condition=FOLLOW_INPUTS))
        for definition in assets
        if isinstance(definition, dg.AssetsDefinition)
    ]


_STANDINGS: WeakKeyDictionary[AssetGraphView, asyncio.Task[Standing]] = WeakKeyDictionary()
_RECORDS: dict[str, dict[dg.AssetKey, dict[int, _Record]]] = {}


async def _standing_at_this_tick(view: AssetGraphView) -> Standing:
    """Return the standing, worked out once for all the assets of a tick."""
    if view not in _STANDINGS:
        _STANDINGS[view] = asyncio.ensure_future(standing_of(view))
    return await _STANDINGS[view]


async def standing_of(view: AssetGraphView) -> Standing:
    """Return how all partitioned assets of a graph stand."""
    graph = view.asset_graph
    keys = [key for key in graph.toposorted_asset_keys if _is_followed(graph.get(key))]
    # What runs is read before what exists: a run that ends in between then counts as running, not as never asked for.
    running = {key: await _in_progress(view, key) for key in keys}
    existing = {key: _Existing.of(view, key) for key in keys}
    due: dict[dg.AssetKey, dict[str, str]] = {}
    waiting: dict[dg.AssetKey, frozenset[str]] = {}
    unsettled: dict[dg.AssetKey, frozenset[str]] = {}
    for key in keys:
        own, node = existing[key], graph.get(key)
        parents = sorted(parent for parent in node.parent_keys if parent in existing)
        due[key] = _due(own, node.code_version, {parent.to_user_string(): existing[parent] for parent in parents})
        held = {p for parent in parents for moving in unsettled[parent] for p in own.downstream(moving)}
        waiting[key] = frozenset(held | running[key])
        # What was never made holds nobody back: the models that nobody trained, or stages that are run by hand.
        unsettled[key] = running[key].union(p for p in held.union(due[key]) if own.record(p))
    return Standing(due, waiting)


def _is_followed(node: BaseAssetNode) -> bool:
    return node.is_materializable and node.partitions_def is not None


@dataclass(frozen=True)
class _Existing:
    """The partitions that an asset may have, and the newest records of those that exist, both by data set."""

    keys: Mapping[str, Sequence[str]]
    records: Mapping[str, Mapping[str, _Record]]
    seeded: bool

    @staticmethod
    def of(view: AssetGraphView, key: dg.AssetKey) -> "_Existing":
        keys: dict[str, list[str]] = {}
        for partition in sorted(view.get_full_subset(key=key).expensively_compute_partition_keys()):
            keys.setdefault(_dataset(partition), []).append(partition)
        newest = _newest_records(view.instance, key)
        records = {dataset: {p: newest[p] for p in of_it if p in newest} for dataset, of_it in keys.items()}
        return _Existing(keys, records, any(_is_seeded(p) for of_it in keys.values() for p in of_it))

    def record(self, partition: str) -> _Record | None:
        return self.records.get(_dataset(partition), {}).get(partition)

    def downstream(self, partition: str) -> Sequence[str]:
        """Return the partitions of this asset that depend on a partition upstream."""
        same_dataset = self.keys.get(_dataset(partition), ())
        if self.seeded and _is_seeded(partition):
            return [partition] if partition in same_dataset else []
        return same_dataset

    def upstream(self, partition: str) -> list[_Record]:
        """Return the records of this asset that a partition downstream reads, in the order of their partitions."""
        dataset = _dataset(partition)
        if self.seeded and not _is_seeded(partition):
            return list(self.records.get(dataset, {}).values())
        record = self.record(partition if self.seeded else dataset)
        return [record] if record else []


def _dataset(partition: str) -> str:
    return partition.partition(MULTIPARTITION_KEY_DELIMITER)[0]


def _is_seeded(partition: str) -> bool:
    return MULTIPARTITION_KEY_DELIMITER in partition


def _due(own: _Existing, code_version: str | None, parents: Mapping[str, _Existing]) -> dict[str, str]:
    """Return the due partitions of an asset with a digest of what a run would be made from."""
    due: dict[str, str] = {}
    for partition in (partition for of_dataset in own.keys.values() for partition in of_dataset):
        found = {name: parent.upstream(partition) for name, parent in parents.items()}
        if not _complete(own, parents, found):
            continue
        current = {name: _version_read(records) for name, records in found.items() if records}
        record = own.record(partition)
        if record is None:
            trained = any(parents[name].seeded for name in current)
            out_of_date = bool(current) and (trained or not own.seeded)
        else:
            out_of_date = record.code_version != code_version or any(
                record.read.get(name) != version for name, version in current.items()
            )
        if out_of_date:
            due[partition] = digest_of(code_version or "", *(f"{name}={version}" for name, version in current.items()))
    return due


def _complete(own: _Existing, parents: Mapping[str, _Existing], found: Mapping[str, Sequence[_Record]]) -> bool:
    """Tell whether everything exists that a run needs; of what it reads over all seeds, anything will do."""
    over_seeds = [name for name, parent in parents.items() if parent.seeded and not own.seeded]
    needed = [name for name in parents if name not in over_seeds]
    return all(found[name] for name in needed) and (not over_seeds or any(found[name] for name in over_seeds))


def _version_read(records: Sequence[_Record]) -> str:
    """Return what Dagster records of an input: one digest over the versions of all the partitions that are read."""
    return sha256("".join(record.data_version for record in records).encode()).hexdigest()


async def _in_progress(view: AssetGraphView, key: dg.AssetKey) -> frozenset[str]:
    everything = view.get_full_subset(key=key)
    runs = await view.compute_run_in_progress_subset(key=key, from_subset=everything)
    backfills = await view.compute_backfill_in_progress_subset(key=key, from_subset=everything)
    return frozenset(runs.compute_union(backfills).expensively_compute_partition_keys())


def _newest_records(instance: dg.DagsterInstance, key: dg.AssetKey) -> dict[str, _Record]:
    """Return the newest record of each partition; a process fetches each of them once."""
    kept = _RECORDS.setdefault(str(instance.get_ref().event_storage_data), {}) if instance.is_persistent else {}
    known = kept.get(key, {})
    ids = instance.event_log_storage.get_latest_storage_id_by_partition(key, dg.DagsterEventType.ASSET_MATERIALIZATION)
    unknown = [storage_id for storage_id in ids.values() if storage_id not in known]
    fetched: dict[int, _Record] = {}
    for start in range(0, len(unknown), _RECORDS_AT_ONCE):
        chunk = unknown[start : start + _RECORDS_AT_ONCE]
        found = instance.fetch_materializations(
            dg.AssetRecordsFilter(asset_key=key, storage_ids=chunk), limit=len(chunk)
        )
        fetched |= {record.storage_id: _described(record) for record in found.records}
    everything = {**known, **fetched}
    kept[key] = {storage_id: everything[storage_id] for storage_id in ids.values() if storage_id in everything}
    return {partition: everything[storage_id] for partition, storage_id in ids.items() if storage_id in everything}


def _described(record: dg.EventLogRecord) -> _Record:
    tags = (record.asset_materialization and record.asset_materialization.tags) or {}
    prefix = f"{INPUT_DATA_VERSION_TAG_PREFIX}/"
    return _Record(
        data_version=tags.get(DATA_VERSION_TAG, ""),
        code_version=tags.get(CODE_VERSION_TAG),
        read={name.removeprefix(prefix): value for name, value in tags.items() if name.startswith(prefix)},
    )
