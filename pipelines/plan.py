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
from assets.tuning import TuningRunConfig, tuning_key
from pipelines.jobs import assets_of_models, evaluate, prepare, train, tune
from recmodels.catalogue.entries import DatasetEntry
from recmodels.settings import profile_settings, tuning_settings

Target = tuple[dg.AssetKey, str]
"""One partition of one asset."""


@dataclass(frozen=True)
class Request:
    """
    What is to be up to date.

    Attributes
    ----------
    entry
        The data set.
    models
        To train, beside the baselines.
    seeds
        To train them with.
    raw_dumps, profiles
        Configuration of these assets. Where it differs from that of their last run, they are made anew.
    anew
        Whether to make everything anew, also what is up to date.
    tuned
        Models whose settings to search; nothing is trained or evaluated then.
    tuning
        Settings of the search over the catalogue's. Where they differ from those of the last one, it goes on.
    """

    entry: DatasetEntry
    models: Sequence[str]
    seeds: Sequence[str]
    raw_dumps: RawDumpsConfig
    profiles: ProfilesConfig
    anew: bool = False
    tuned: Sequence[str] = ()
    tuning: Mapping[str, Any] = field(default_factory=dict[str, Any])


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
        Which of its assets to make, possibly none; None for all that it has.
    configs
        Configuration by the name of the operation.
    up_to_date
        Assets that were asked for and need not be made; each is named in one round only.
    """

    job: str
    partition: str | None
    keys: Sequence[dg.AssetKey] | None = None
    configs: Mapping[str, Any] = field(default_factory=dict[str, Any])
    up_to_date: Sequence[dg.AssetKey] = ()


class Plan:
    """
    The rounds in which a request is fulfilled.

    Parameters
    ----------
    request
        What was asked for.
    graph
        The assets.
    """

    def __init__(self, request: Request, graph: AssetGraph) -> None:
        self._request = request
        self._graph = graph
        self._steps = list(_all_steps(request, graph))
        self._named: set[Target] = set()
        self._overrides = _profile_overrides(request)
        self.made: set[Target] = set()
        """What the rounds so far were to make; nothing is made a second time."""

    def next_round(self, found: Survey) -> list[Step]:
        """
        Return the steps to execute now, and those of which there is nothing to make; no keys at all end the plan.

        Parameters
        ----------
        found
            How everything stands now.
        """
        due = self._due(found)
        upcoming = [self._made_together(step, due) for step in self._steps]
        last = not any(upcoming)
        steps: list[Step] = []
        for step, keys in zip(self._steps, upcoming, strict=True):
            settled = [
                key
                for key in step.keys or ()
                if (keys or last) and key not in keys and self._is_settled(found, key, str(step.partition))
            ]
            self._named.update((key, str(step.partition)) for key in settled)
            self.made.update((key, str(step.partition)) for key in keys)
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
        model = name.partition("tuning/")[2]
        if model in self._request.tuned:
            used = tuning_settings(self._request.entry, model, self._request.tuning)
            return record.overrides != used.overrides(tuning_settings(self._request.entry, model))
        return name in ("item_profiles", "user_profiles") and self._overrides not in (None, record.overrides)

    def _is_settled(self, found: Survey, key: dg.AssetKey, partition: str) -> bool:
        target = (key, partition)
        return target not in self.made | self._named and found.statuses[key][partition].state == "up_to_date"

    def _made_together(self, step: Step, due: set[Target]) -> list[dg.AssetKey]:
        """Return the assets of a step that have to be made, with those that the same computations make."""
        keys = {key for key in step.keys or () if (key, step.partition) in due}
        return sorted({other for key in keys for other in self._graph.get(key).execution_set_asset_keys})


def _all_steps(request: Request, graph: AssetGraph) -> Iterator[Step]:
    """Yield every step of a full run, in order, each with all of its assets."""
    dataset = request.entry.key
    configs = {"raw_dumps": request.raw_dumps, "item_profiles": request.profiles, "user_profiles": request.profiles}
    yield Step(prepare.name, dataset, sorted(prepare.selection.resolve(graph)), configs)
    if request.tuned:
        keys = [tuning_key(model) for model in request.tuned]
        config = TuningRunConfig(overrides=dict(request.tuning))
        yield Step(tune.name, dataset, keys, {key.to_python_identifier(): config for key in keys})
        return
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
