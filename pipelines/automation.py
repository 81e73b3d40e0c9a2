"""
When an asset is made again by itself: as soon as something it was made from is different.

Each tick asks `assets.support.staleness` how everything stands, so that no event has to be caught at the right moment
and none is lost; and what is up to date asks for nothing.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import dagster as dg

from assets.support.dagster_internals import AssetGraphView
from assets.support.staleness import Survey, survey


@dataclass(frozen=True)
class OutOfDate(dg.AutomationCondition[dg.AssetKey]):
    """
    True for partitions whose inputs, settings or code are not those of their last materialisation.

    A partition waits until everything upstream is settled, however many steps away, and the blocking checks of what it
    reads have passed, so that one change runs each asset once. What was asked for is not asked for again before its
    inputs, its settings or its code change: a failure is not repeated.
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
        return "Inputs, settings or code differ from those of the last materialisation; everything upstream is settled"

    async def evaluate(  # pyright: ignore[reportIncompatibleMethodOverride] the caller awaits what it gets
        self, context: dg.AutomationContext[dg.AssetKey]
    ) -> dg.AutomationResult[dg.AssetKey]:
        """Return the partitions to ask for; the cursor holds those that were asked for and are still due."""
        found = _survey_at_this_tick(context.asset_graph_view)
        asked: dict[str, str] = json.loads(context.cursor or "{}")
        fresh = {name for name, digest in found.ready(context.key).items() if asked.get(name) != digest}
        wanted = context.candidate_subset.compute_intersection_with_partition_keys(fresh)
        due = found.due(context.key)
        now_asked = {name: digest for name, digest in asked.items() if name in due}
        for name in sorted(wanted.expensively_compute_partition_keys()):
            now_asked[name] = due[name]
            why = "; ".join(found.statuses[context.key][name].changes) or "never made, and all that it reads is there"
            context.log.info(f"{context.key.to_user_string()} of {name}: {why}")
        return dg.AutomationResult(context, wanted, cursor=json.dumps(now_asked, sort_keys=True))


FOLLOW_INPUTS = OutOfDate()
"""The condition of every asset."""


def follow_inputs(assets: Iterable[object]) -> list[dg.AssetsDefinition]:
    """Return the asset definitions among loaded objects, with `FOLLOW_INPUTS` attached to every asset."""
    return [
        definition.map_asset_specs(lambda spec: spec.replace_attributes(automation_condition=FOLLOW_INPUTS))
        for definition in assets
        if isinstance(definition, dg.AssetsDefinition)
    ]


_SURVEYS: WeakKeyDictionary[AssetGraphView, Survey] = WeakKeyDictionary()


def _survey_at_this_tick(view: AssetGraphView) -> Survey:
    """Return how everything stands, worked out once for all the assets of a tick."""
    if view not in _SURVEYS:
        _SURVEYS[view] = survey(view.instance, view.asset_graph)
    return _SURVEYS[view]
