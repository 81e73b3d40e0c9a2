"""
What `recmodels run` has to make: of all that was asked for, what is not up to date, in rounds.

A round takes what certainly has to be made: what is missing or failed, and what differs from its record. What only
reads something that is made anew is looked at again after that, because that may turn out the same.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from assets.support.dagster_internals import AssetGraph
from assets.support.staleness import PartitionStatus, Survey

Target = tuple[dg.AssetKey, str]
"""One partition of one asset."""


@dataclass(frozen=True)
class Step:
    """
    A job to execute for one partition.

    Attributes
    ----------
    job
        Its name.
    partition
        Of which partition; None for a job without any.
    keys
        What of its assets was asked for; None for all that it has.
    configs
        Configuration by the name of the operation.
    """

    job: str
    partition: str | None
    keys: Sequence[dg.AssetKey] | None = None
    configs: Mapping[str, Any] = field(default_factory=dict[str, Any])


def next_round(
    found: Survey,
    graph: AssetGraph,
    steps: Sequence[Step],
    made: set[Target],
    is_wanted: Callable[[PartitionStatus], bool],
) -> list[Step]:
    """
    Return the steps that have to be executed now, each with the assets that it has to make.

    Parameters
    ----------
    found
        How everything stands now.
    graph
        The assets.
    steps
        What was asked for, in the order to execute it, each with all of its keys.
    made
        What was made since this began; it is not made a second time.
    is_wanted
        Whether a partition is to be made however it stands.
    """
    asked = {
        (key, step.partition): found.statuses[key][step.partition]
        for step in steps
        if step.partition is not None
        for key in step.keys or ()
    }
    certain = {
        target
        for target, status in asked.items()
        if target not in made and (status.state not in ("up_to_date", "stale") or status.changes or is_wanted(status))
    }
    moving: set[Target] = set()
    deferred: set[Target] = set()
    for target, status in _in_order(found, asked):
        read = set(_read(found, graph, status))
        if target in certain:
            moving.add(target)
            if read & deferred:
                deferred.add(target)
        elif target not in made and read & moving:
            moving.add(target)
            deferred.add(target)
    now = certain - deferred
    return [
        Step(step.job, step.partition, together, _of(step.configs, together))
        for step in steps
        if (together := _made_together(graph, step, now))
    ]


def _in_order(found: Survey, asked: Mapping[Target, PartitionStatus]) -> Iterator[tuple[Target, PartitionStatus]]:
    """Yield what was asked for in the order data flows."""
    for key, statuses in found.statuses.items():
        for name, status in statuses.items():
            if (key, name) in asked:
                yield (key, name), status


def _read(found: Survey, graph: AssetGraph, status: PartitionStatus) -> Iterator[Target]:
    """Yield the partitions that a partition reads, whether they exist or not."""
    for parent in graph.get(status.key).parent_keys:
        for name, other in found.statuses.get(parent, {}).items():
            if status.partition.meets(other.partition):
                yield parent, name


def _made_together(graph: AssetGraph, step: Step, now: set[Target]) -> list[dg.AssetKey]:
    """Return the assets of a step that have to be made, with those that the same computations make."""
    keys = {key for key in step.keys or () if step.partition is not None and (key, step.partition) in now}
    return sorted({other for key in keys for other in graph.get(key).execution_set_asset_keys})


def _of(configs: Mapping[str, Any], keys: Sequence[dg.AssetKey]) -> dict[str, Any]:
    names = {"__".join(key.path) for key in keys}
    return {name: config for name, config in configs.items() if name in names}
