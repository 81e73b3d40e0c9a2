"""
When an asset is made again by itself: as soon as something it was made from is different.

Each tick reads that from the event log, by comparing the versions which the last materialisation recorded with those
of today. No event has to be caught at the right moment, so none is lost; and equal versions ask for nothing.
"""

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import dagster as dg
from dagster._core.asset_graph_view.asset_graph_view import AssetGraphView

from assets.records import AssetRecords, Record, is_followed, version_read
from recmodels.data.digest import digest_of

CHECKS_PASSED = (
    ~dg.AutomationCondition.any_deps_match(
        ~dg.AutomationCondition.missing()
        & dg.AutomationCondition.any_checks_match(~dg.AutomationCondition.check_passed(), blocking_only=True)
    )
).with_label("blocking checks of what is read have passed")
"""Partitions that do not exist are no hindrance here: the leaderboard reads those models that were trained."""


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


async def _standing_at_this_tick(view: AssetGraphView) -> Standing:
    """Return the standing, worked out once for all the assets of a tick."""
    if view not in _STANDINGS:
        _STANDINGS[view] = asyncio.ensure_future(standing_of(view))
    return await _STANDINGS[view]


async def standing_of(view: AssetGraphView) -> Standing:
    """Return how all partitioned assets of a graph stand."""
    graph = view.asset_graph
    keys = [key for key in graph.toposorted_asset_keys if is_followed(graph.get(key))]
    # What runs is read before what exists: a run that ends in between then counts as running, not as never asked for.
    running = {key: await _in_progress(view, key) for key in keys}
    existing = {key: AssetRecords.of(view.instance, graph.get(key)) for key in keys}
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


def _due(own: AssetRecords, code_version: str | None, parents: Mapping[str, AssetRecords]) -> dict[str, str]:
    """Return the due partitions of an asset with a digest of what a run would be made from."""
    due: dict[str, str] = {}
    for partition in (partition for of_dataset in own.keys.values() for partition in of_dataset):
        found = {name: parent.upstream(partition) for name, parent in parents.items()}
        if not _complete(own, parents, found):
            continue
        current = {name: version_read(records) for name, records in found.items() if records}
        record = own.record(partition)
        if record is None:
            trained = any(parents[name].seeded for name in current)
            out_of_date = bool(current) and (trained or not own.seeded)
        else:
            out_of_date = bool(record.changed(code_version, current))
        if out_of_date:
            due[partition] = digest_of(code_version or "", *(f"{name}={version}" for name, version in current.items()))
    return due


def _complete(own: AssetRecords, parents: Mapping[str, AssetRecords], found: Mapping[str, Sequence[Record]]) -> bool:
    """Tell whether everything exists that a run needs; of what it reads over all seeds, anything will do."""
    over_seeds = [name for name, parent in parents.items() if parent.seeded and not own.seeded]
    needed = [name for name in parents if name not in over_seeds]
    return all(found[name] for name in needed) and (not over_seeds or any(found[name] for name in over_seeds))


async def _in_progress(view: AssetGraphView, key: dg.AssetKey) -> frozenset[str]:
    everything = view.get_full_subset(key=key)
    runs = await view.compute_run_in_progress_subset(key=key, from_subset=everything)
    backfills = await view.compute_backfill_in_progress_subset(key=key, from_subset=everything)
    return frozenset(runs.compute_union(backfills).expensively_compute_partition_keys())
