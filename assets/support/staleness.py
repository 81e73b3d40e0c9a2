"""
How every partition of every asset stands, and why: the one place that decides it.

Automation, sensors, schedules, the asset `pipeline_status` and the command line all ask `survey`. It reads the event
log and the catalogue, and starts nothing. What was made is compared with what a run would make it from now: the
versions of its inputs, its code version, and its settings. What belongs elsewhere: what is done about it (`pipelines`),
how it reads as a text (`recmodels.reporting.status`), which settings an asset has (its own module), private parts of
Dagster (`assets.support.dagster_internals`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import dagster as dg

from assets.support.dagster_internals import (
    CODE_VERSION_TAG,
    DATA_VERSION_TAG,
    AssetGraph,
    AssetNode,
    attempts_without_result,
    backfilling,
    blocking_checks,
    check_results,
    input_versions,
    newest_storage_ids,
    version_of_many,
)
from assets.support.lineage import OVERRIDES, SETTINGS, recorded_json
from assets.support.stage import Declaration, declaration
from recmodels.catalogue.entries import DatasetEntry, load_catalogue
from recmodels.errors import InputError
from recmodels.io.digest import digest_of
from recmodels.settings import SOURCE

State = Literal["up_to_date", "running", "stale", "failed", "missing"]

_RECORDS_AT_ONCE = 500
_ENDED_BADLY = {dg.DagsterRunStatus.FAILURE: "failed", dg.DagsterRunStatus.CANCELED: "was cancelled"}


@dataclass(frozen=True)
class Record:
    """
    What a materialisation says about itself and about what it was made from.

    Attributes
    ----------
    data_version, code_version
        Of its content, and of the code that made it.
    read
        Data versions of its inputs, by asset.
    settings
        Those that the catalogue gave; None if it recorded none.
    overrides
        Those that the run had in place of the catalogue's.
    texts
        Further metadata that is plain text.
    timestamp
        When it was recorded, in seconds since the epoch.
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
            overrides=recorded_json(materialization, OVERRIDES),
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
        if isinstance(key, dg.MultiPartitionKey):
            return Partition(key, key.keys_by_dimension["dataset"], int(key.keys_by_dimension["seed"]))
        return Partition(key, key, None)

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
class PartitionStatus:
    """
    How one partition of one asset stands.

    Attributes
    ----------
    key, partition
        Which it is.
    stage
        Group of the asset.
    record
        Its newest materialisation, None if it was never made.
    state
        ``up_to_date``; ``running``: a run is making it; ``failed``: the last run that was to make it has failed, or a
        blocking check of it; ``stale``: what it was made from is not what a run would make it from now, or something
        upstream is stale; ``missing``: never made.
    reasons
        What differs, what is waited for, what failed, and which settings of a run hold in place of the catalogue's.
    changes
        Of the reasons, what differs from its own record.
    waits
        Of the reasons, what upstream is stale: it may become another version, or turn out the same.
    due
        Where a run would make something new and everything exists that it reads: a digest of what it would be made
        from. None otherwise.
    held_back
        Whether a run should wait: it is running, something upstream is stale or is being made, or a blocking check of
        what it reads has not passed.
    """

    key: dg.AssetKey
    partition: Partition
    stage: str
    record: Record | None
    state: State
    reasons: Sequence[str] = ()
    changes: Sequence[str] = ()
    waits: Sequence[str] = ()
    due: str | None = None
    held_back: bool = False

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


def survey(instance: dg.DagsterInstance, graph: AssetGraph) -> Survey:
    """
    Return how everything stands.

    Raises
    ------
    InputError
        If the catalogue cannot be read.
    """
    keys = [key for key in graph.toposorted_asset_keys if is_followed(graph.get(key))]
    # What runs is read before what exists: a run that ends in between then counts as running, not as never asked for.
    runs = _Runs(instance)
    attempts = {key: runs.unfinished(key) for key in keys}
    queued = backfilling(instance, graph)
    look = _Look(
        graph=graph,
        catalogue=load_catalogue(),
        existing={key: AssetRecords.of(instance, graph.get(key)) for key in keys},
        checks=check_results(instance, [check for key in keys for check in blocking_checks(graph, key)]),
    )
    for key in keys:
        look.statuses[key] = {
            partition.key: look.status_of(
                key,
                partition,
                attempts[key].get(partition.key),
                queued=partition.key in queued.get(key, ()),
            )
            for partition in look.existing[key]
        }
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
        self, key: dg.AssetKey, partition: Partition, attempt: "_Attempt | None", *, queued: bool
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
        wanted = record is None and complete and _is_wanted(own, parents, found)
        entry = self.catalogue.get(partition.dataset) if record or wanted else None
        settings = _Settings.today(declaration(key), entry, record)
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
            due = digest_of(
                node.code_version or "", settings.digest, *(f"{name}={version}" for name, version in inputs.items())
            )
        if record is not None and settings.outside:
            changes.append(settings.outside)
        failing = [
            f"its check {check.name} failed"
            for check in blocking_checks(self.graph, key)
            if record is not None and self._passed(check, partition) is False
        ]
        state, reasons = _judged(
            record, attempt, queued=queued, failing=failing, stale=[*changes, *waits], unchecked=unchecked
        )
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
    attempt: "_Attempt | None",
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


@dataclass(frozen=True)
class _Attempt:
    state: Literal["running", "failed", "not made"]
    reason: str


class _Runs:
    """Runs that were to make something and did not, or have not yet."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._instance = instance
        self._known: dict[str, _Attempt | None] = {}

    def unfinished(self, key: dg.AssetKey) -> dict[str, _Attempt]:
        """Return state and reason by partition, where the last run has left no record."""
        attempts = attempts_without_result(self._instance, key)
        for run_id in attempts.values():
            if run_id not in self._known:
                self._known[run_id] = self._attempt(run_id)
        return {partition: told for partition, run_id in attempts.items() if (told := self._known[run_id])}

    def _attempt(self, run_id: str) -> _Attempt | None:
        run = self._instance.get_run_by_id(run_id)
        if run is None:
            return None
        if not run.is_finished and run.status not in _ENDED_BADLY:
            return _Attempt("running", f"run {run_id[:8]}")
        text = f"run {run_id[:8]} {_ENDED_BADLY.get(run.status, 'ended without it')}"
        if run.status != dg.DagsterRunStatus.FAILURE:
            return _Attempt("not made", text)
        reasons = [
            f"{entry.step_key}: {_failure(entry)}"
            for entry in self._instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
        ]
        return _Attempt("failed", " ".join("; ".join([text, *reasons]).split()))


def _failure(entry: dg.EventLogEntry) -> str:
    failure = entry.get_dagster_event().step_failure_data
    told = failure.user_failure_data and failure.user_failure_data.description
    return told or (failure.error.message if failure.error else "")


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
