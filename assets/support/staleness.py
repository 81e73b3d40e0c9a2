"""
How every partition of every asset stands, and why: the one place that decides it.

Automation, sensors, schedules, the asset `pipeline_status` and the command line all ask `survey`. It reads the event
log and the catalogue, and starts nothing. What was made is compared with what a run would make it from now: the
versions of its inputs, its code version, and its settings. What belongs elsewhere: what is done about it (`pipelines`),
how it reads as a text (`recmodels.reporting.status`), which settings an asset has (its own module), what the event
log says (`assets.support.records`), private parts of Dagster (`assets.support.dagster_internals`).
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import dagster as dg

from assets.support.dagster_internals import (
    AssetGraph,
    AssetNode,
    backfilling,
    blocking_checks,
    check_results,
    keys_with_events,
    version_of_many,
)
from assets.support.records import AssetRecords, Attempt, Partition, Record, Runs
from assets.support.stage import Declaration, declaration
from recmodels.catalogue.entries import DatasetEntry, load_catalogue
from recmodels.errors import InputError
from recmodels.io.digest import digest_of
from recmodels.settings import SOURCE

State = Literal["up_to_date", "running", "stale", "failed", "missing"]


@dataclass(frozen=True)
class PartitionStatus:
    """How one partition of one asset stands."""

    key: dg.AssetKey
    partition: Partition
    stage: str
    record: Record | None
    """Its newest materialisation, None if it was never made."""
    state: State
    """``up_to_date``; ``running``: a run is making it; ``failed``: the last run that was to make it has failed, or a
    blocking check of it; ``stale``: what it was made from is not what a run would make it from now, or something
    upstream is stale; ``missing``: never made."""
    reasons: Sequence[str] = ()
    """What differs, what is waited for, what failed, and which settings of a run hold in place of the catalogue's."""
    changes: Sequence[str] = ()
    """Of the reasons, what differs from its own record."""
    waits: Sequence[str] = ()
    """Of the reasons, what upstream is stale: it may become another version, or turn out the same."""
    due: str | None = None
    """Where a run would make something new and everything exists that it reads: a digest of what it would be made
    from. None otherwise."""
    held_back: bool = False
    """Whether a run should wait: it is running, something upstream is stale or is being made, or a blocking check of
    what it reads has not passed."""

    @property
    def is_stale(self) -> bool:
        """Whether it exists and is not known to be what a run would make now, whatever else is the matter with it."""
        return self.record is not None and bool(self.changes or self.waits)


@dataclass(frozen=True)
class Survey:
    """How all partitions of all followed assets stand at one moment, in the order data flows."""

    statuses: Mapping[dg.AssetKey, Mapping[str, PartitionStatus]]

    def __iter__(self) -> Iterator[PartitionStatus]:
        return (status for of_asset in self.statuses.values() for status in of_asset.values())

    def due(self, key: dg.AssetKey) -> dict[str, str]:
        """Return the partitions of an asset that a run would make anew, with a digest of what from."""
        return {name: status.due for name, status in self.statuses.get(key, {}).items() if status.due is not None}

    def ready(self, key: dg.AssetKey) -> dict[str, str]:
        """Return those of the due partitions that nothing holds back."""
        statuses = self.statuses.get(key, {})
        return {name: digest for name, digest in self.due(key).items() if not statuses[name].held_back}


def is_followed(node: AssetNode) -> bool:
    """Tell whether an asset is one that is made for data sets."""
    return node.is_materializable and node.partitions_def is not None


def survey(instance: dg.DagsterInstance, graph: AssetGraph, of: Collection[dg.AssetKey] | None = None) -> Survey:
    """Return how everything stands, or some assets and what they come from; InputError for a bad catalogue."""
    wanted = None if of is None else frozenset(of).union(*(graph.get_ancestor_asset_keys(key) for key in of))
    keys = [
        key for key in graph.toposorted_asset_keys if is_followed(graph.get(key)) and (wanted is None or key in wanted)
    ]
    # Of what no run was ever to make there is nothing to read: most assets of most instances are such.
    touched = keys_with_events(instance)
    # What runs is read before what exists: a run that ends in between then counts as running, not as never asked for.
    runs = Runs(instance)
    attempts = {key: runs.unfinished(key) if key in touched else {} for key in keys}
    queued = backfilling(instance, graph)
    look = _Look(
        graph=graph,
        catalogue=load_catalogue(),
        existing={key: AssetRecords.of(instance, graph.get(key), exists=key in touched) for key in keys},
        checks=check_results(
            instance, [check for key in keys if key in touched for check in blocking_checks(graph, key)]
        ),
    )
    for key in keys:
        statuses = look.statuses[key] = {}
        for partition in look.existing[key]:
            name, waiting = partition.key, queued.get(key, frozenset())
            statuses[name] = look.status_of(key, partition, attempts[key].get(name), queued=name in waiting)
        look.running[key] = [status.partition for status in look.statuses[key].values() if status.state == "running"]
    return Survey(look.statuses)


@dataclass(frozen=True)
class _Look:
    graph: AssetGraph
    catalogue: Mapping[str, DatasetEntry]
    existing: Mapping[dg.AssetKey, AssetRecords]
    checks: Mapping[tuple[dg.AssetCheckKey, str | None], bool | None]
    running: dict[dg.AssetKey, list[Partition]] = field(default_factory=dict[dg.AssetKey, list[Partition]])
    statuses: dict[dg.AssetKey, dict[str, PartitionStatus]] = field(
        default_factory=dict[dg.AssetKey, dict[str, PartitionStatus]]
    )

    def status_of(
        self, key: dg.AssetKey, partition: Partition, attempt: "Attempt | None", *, queued: bool
    ) -> PartitionStatus:
        """Return how a partition stands; everything upstream has been looked at before."""
        node, own = self.graph.get(key), self.existing[key]
        parents = {parent: self.existing[parent] for parent in sorted(node.parent_keys) if parent in self.existing}
        found = {parent: records.read_by(partition) for parent, records in parents.items()}
        inputs = {
            parent.to_user_string(): version_of_many(record.data_version for record in read.values())
            for parent, read in found.items()
            if read
        }
        record = own.record(partition)
        complete = _complete(own, parents, found)
        declared = declaration(key)
        unasked = declared is not None and declared.on_request
        wanted = record is None and complete and not unasked and _is_wanted(own, parents, found)
        entry = self.catalogue.get(partition.dataset) if record or wanted else None
        settings = _Settings.today(declared, entry, record)
        changes: list[str] = []
        if record is not None:
            if record.code_version != node.code_version:
                changes.append(f"code version {record.code_version} -> {node.code_version}")
            changes += settings.changes
            changes += [f"another version of {name}" for name, now in inputs.items() if record.read.get(name) != now]
        upstream = [self.statuses[parent][name] for parent, read in found.items() for name in read]
        waits = [f"{_name(status)} is stale" for status in upstream if status.is_stale] if record else []
        unchecked = [
            f"{_name(status)} has not passed its check {check.name}"
            for status in upstream
            for check in blocking_checks(self.graph, status.key)
            if not self._passed(check, status.partition)
        ]
        running = queued or (attempt is not None and attempt.state == "running")
        due = None
        if wanted or (complete and changes):
            read = (f"{name}={version}" for name, version in inputs.items())
            due = digest_of(node.code_version or "", settings.digest, *read)
        if record is not None and settings.outside:
            changes.append(settings.outside)
        failing = [
            f"its check {check.name} failed"
            for check in blocking_checks(self.graph, key)
            if record is not None and self._passed(check, partition) is False
        ]
        stale = [*changes, *waits]
        state, reasons = _judged(record, attempt, queued=queued, failing=failing, stale=stale, unchecked=unchecked)
        return PartitionStatus(
            key=key,
            partition=partition,
            stage=node.group_name,
            record=record,
            state=state,
            reasons=reasons,
            changes=changes,
            waits=waits,
            due=due,
            held_back=running
            or bool(unchecked)
            or any(status.is_stale for status in upstream)
            or any(partition.meets(other) for parent in parents for other in self.running[parent]),
        )

    def _passed(self, check: dg.AssetCheckKey, partition: Partition) -> bool | None:
        """Return whether a check passed; None if it has not looked at what there is now."""
        return self.checks.get((check, partition.key), self.checks.get((check, None)))


@dataclass(frozen=True)
class _Settings:
    """What the catalogue gives an asset today, and what of it and of the world outside differs from a record."""

    digest: str = ""
    changes: Sequence[str] = ()
    outside: str = ""

    @staticmethod
    def today(declared: Declaration | None, entry: DatasetEntry | None, record: Record | None) -> "_Settings":
        if declared is None or entry is None:
            return _Settings()
        if record is not None and record.settings is None:
            return _Settings(changes=["made by an earlier version of recmodels, which recorded no settings"])
        recorded = (record and record.settings) or {}
        source = recorded.get(SOURCE)
        try:
            settings = declared.settings(entry.read_as(None if source is None else str(source)))
        except InputError as error:
            return _Settings(digest_of(str(error)), [f"settings of today are refused: {error}"] if record else [])
        return _Settings(
            settings.digest,
            settings.changes_since(recorded) if record else (),
            declared.outside(entry, record.texts) if record else "",
        )


def _complete(
    own: AssetRecords, parents: Mapping[dg.AssetKey, AssetRecords], found: Mapping[dg.AssetKey, Mapping[str, Record]]
) -> bool:
    """Tell whether everything exists that a run needs; of what it reads over all seeds, anything will do."""
    over_seeds = [name for name, parent in parents.items() if parent.seeded and not own.seeded]
    needed = [name for name in parents if name not in over_seeds]
    return all(found[name] for name in needed) and (not over_seeds or any(found[name] for name in over_seeds))


def _is_wanted(
    own: AssetRecords, parents: Mapping[dg.AssetKey, AssetRecords], found: Mapping[dg.AssetKey, Mapping[str, Record]]
) -> bool:
    """Tell whether what never existed is to be made: never a root, and a seed only where someone has trained it."""
    trained = any(parents[name].seeded for name, read in found.items() if read)
    return any(found.values()) and (trained or not own.seeded)


def _judged(
    record: Record | None,
    attempt: "Attempt | None",
    *,
    queued: bool,
    failing: Sequence[str],
    stale: Sequence[str],
    unchecked: Sequence[str],
) -> tuple[State, list[str]]:
    """Return the state, the most urgent of those that hold, and everything there is to say."""
    about = [*failing, *stale]
    if queued or (attempt and attempt.state == "running"):
        return "running", [attempt.reason if attempt else "a backfill is to make it", *about]
    if attempt and attempt.state == "failed":
        return "failed", [attempt.reason, *about]
    if record is None:
        return "missing", [attempt.reason] if attempt else list(unchecked)
    if failing:
        return "failed", about
    if stale:
        return "stale", [*stale, *unchecked]
    return "up_to_date", [f"made with {name} = {value!r} of its run" for name, value in record.overrides.items()]


def _name(status: PartitionStatus) -> str:
    seed = status.partition.seed
    return status.key.to_user_string() + ("" if seed is None else f" of seed {seed}")
