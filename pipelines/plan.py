"""
What `recmodels run` has to make: of all that was asked for, what is not up to date, in rounds.

A round takes what certainly has to be made: what is missing or failed, and what differs from its record. What only
reads something that is made anew is looked at again after that, because that may turn out the same. Nothing is
executed or printed here.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import dagster as dg

from assets.profiles import ProfilesConfig
from assets.raw import FOLDER, RawDumpsConfig
from assets.support.dagster_internals import AssetGraph
from assets.support.staleness import PartitionStatus, Survey
from pipelines.jobs import assets_of_models, evaluate, prepare, train
from recmodels.catalogue.entries import DatasetEntry
from recmodels.settings import profile_settings

Target = tuple[dg.AssetKey, str]
"""One partition of one asset."""


@dataclass(frozen=True)
class Request:
    """
    What is to be up to date: a data set, and models trained on it, beside the baselines, with each of some seeds.

    `raw_dumps` and `profiles` configure these assets; where it differs from that of their last run, they are made anew.
    So is everything, also what is up to date, with `anew`.
    """

    entry: DatasetEntry
    models: Sequence[str]
    seeds: Sequence[str]
    raw_dumps: RawDumpsConfig
    profiles: ProfilesConfig
    anew: bool = False


@dataclass(frozen=True)
class Step:
    """
    A job to execute for one partition, or for none.

    `keys` are the assets to make, possibly none, or else all of the job; `configs` their configuration by the name of
    the operation. Those `up_to_date` were asked for and need not be made; each is named in one round only.
    """

    job: str
    partition: str | None
    keys: Sequence[dg.AssetKey] | None = None
    configs: Mapping[str, Any] = field(default_factory=dict[str, Any])
    up_to_date: Sequence[dg.AssetKey] = ()


class Plan:
    """The rounds in which a request is fulfilled."""

    def __init__(self, request: Request, graph: AssetGraph) -> None:
        self._request = request
        self._graph = graph
        self._steps = list(_all_steps(request, graph))
        self._named: set[Target] = set()
        self._overrides = _profile_overrides(request)
        self.made: set[Target] = set()
        """What the rounds so far were to make; nothing is made a second time."""

    def next_round(self, found: Survey) -> list[Step]:
        """Return the steps to execute now, and those of which there is nothing to make; no keys at all end the plan."""
        due = self._due(found)
        upcoming = [self._made_together(step, due) for step in self._steps]
        last = not any(upcoming)
        steps: list[Step] = []
        for step, keys in zip(self._steps, upcoming, strict=True):
            partition = str(step.partition)
            settled = [
                key
                for key in step.keys or ()
                if (keys or last) and key not in keys and self._is_settled(found, key, partition)
            ]
            self._named.update((key, partition) for key in settled)
            self.made.update((key, partition) for key in keys)
            if keys or settled:
                names = {key.to_python_identifier() for key in keys}
                configs = {name: config for name, config in step.configs.items() if name in names}
                steps.append(replace(step, keys=keys, configs=configs, up_to_date=settled))
        return steps

    def _due(self, found: Survey) -> set[Target]:
        """Return what certainly has to be made, and reads nothing that has to be made first."""
        asked = {
            (key, step.partition): found.statuses[key][step.partition]
            for step in self._steps
            if step.partition is not None
            for key in step.keys or ()
        }
        certain = {
            target
            for target, status in asked.items()
            if target not in self.made
            and (status.state not in ("up_to_date", "stale") or status.changes or self._is_wanted(status))
        }
        moving: set[Target] = set()
        deferred: set[Target] = set()
        for target, status in _in_order(found, asked):
            read = set(_read(found, self._graph, status))
            if target in certain:
                moving.add(target)
                if read & deferred:
                    deferred.add(target)
            elif target not in self.made and read & moving:
                moving.add(target)
                deferred.add(target)
        return certain - deferred

    def _is_wanted(self, status: PartitionStatus) -> bool:
        """Tell whether a partition is to be made although it is up to date by the catalogue."""
        name, record = status.key.to_user_string(), status.record
        if self._request.anew or record is None:
            return self._request.anew
        if name == "raw_dumps" and self._request.raw_dumps.raw_dir:
            return record.texts.get(FOLDER) != self._request.raw_dumps.raw_dir
        return name in ("item_profiles", "user_profiles") and self._overrides not in (None, record.overrides)

    def _is_settled(self, found: Survey, key: dg.AssetKey, partition: str) -> bool:
        told = (key, partition) in self.made | self._named
        return not told and found.statuses[key][partition].state == "up_to_date"

    def _made_together(self, step: Step, due: set[Target]) -> list[dg.AssetKey]:
        """Return the assets of a step that have to be made, with those that the same computations make."""
        keys = {key for key in step.keys or () if (key, step.partition) in due}
        return sorted({other for key in keys for other in self._graph.get(key).execution_set_asset_keys})


def _all_steps(request: Request, graph: AssetGraph) -> Iterator[Step]:
    """Yield every step of a full run, in order, each with all of its assets."""
    dataset = request.entry.key
    configs = {"raw_dumps": request.raw_dumps, "item_profiles": request.profiles, "user_profiles": request.profiles}
    yield Step(prepare.name, dataset, sorted(prepare.selection.resolve(graph)), configs)
    for seed in request.seeds:
        partition = dg.MultiPartitionKey({"dataset": dataset, "seed": seed})
        yield Step(train.name, partition, assets_of_models(request.models))
    yield Step(evaluate.name, dataset, sorted(evaluate.selection.resolve(graph)))


def _profile_overrides(request: Request) -> dict[str, Any] | None:
    """Return what the profiles' configuration changes of the catalogue's settings; None if it names none."""
    named = request.profiles.settings | ({"backend": request.profiles.backend} if request.profiles.backend else {})
    if not named:
        return None
    return profile_settings(request.entry, named).overrides(profile_settings(request.entry))


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
