"""
How an asset of this project is declared: what all of them share stands here once.

An asset also declares its settings: which part of a data set's catalogue entry decides about it. They are recorded with
each materialisation (`assets.support.lineage`) and compared with today's (`assets.support.staleness`).
"""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict, Unpack

import dagster as dg

from assets.support.failures import as_dagster_failures
from assets.support.partitions import DATASET_SEEDS, DATASETS
from recmodels.catalogue.entries import DatasetEntry
from recmodels.settings import StageSettings, no_settings

OWNERS = ["team:recmodels"]

JOB = "job"
"""Tag with the name of the job that makes an asset."""
POOL = "pool"
"""Tag with what an asset needs one of: a language model or a device to train on."""

RETRIES = dg.RetryPolicy(max_retries=2, delay=5, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)
"""For passing faults only: a permanent failure is raised as one that no policy repeats."""

_SHARED: dict[str, Any] = {
    "partitions_def": DATASETS,
    "retry_policy": RETRIES,
    # No backfill policy: with any, even one of single partitions, Dagster launches ranges, which have no partition key.
}


def _nothing_outside(_entry: DatasetEntry, _recorded: Mapping[str, str]) -> str:
    return ""


@dataclass(frozen=True)
class Declaration:
    """
    What decides about an asset beside its code and its inputs: `settings`, the part of the catalogue's entry it reads.

    `outside` tells, from the entry and the texts that the latest record has as metadata, what changed in the world
    outside since then, empty if nothing did. What is made `on_request` automation makes only where it was made before.
    """

    settings: StageSettings = no_settings
    outside: Callable[[DatasetEntry, Mapping[str, str]], str] = _nothing_outside
    on_request: bool = False


_DECLARED: dict[dg.AssetKey, Declaration] = {}


def declaration(key: dg.AssetKey) -> Declaration | None:
    """Return what an asset of this project declares; None for any other."""
    return _DECLARED.get(key)


class AssetOptions(TypedDict):
    """What an asset may say to Dagster beyond what all share, as in `dagster.asset`."""

    group_name: str
    kinds: set[str]
    code_version: str
    name: NotRequired[str]
    key: NotRequired[dg.AssetKey]
    description: NotRequired[str]
    ins: NotRequired[Mapping[str, dg.AssetIn]]
    deps: NotRequired[Sequence[str | dg.AssetKey | dg.AssetDep]]
    partitions_def: NotRequired[dg.PartitionsDefinition[str] | None]
    io_manager_key: NotRequired[str]
    metadata: NotRequired[Mapping[str, Any]]
    pool: NotRequired[str]


def stage_asset(
    *,
    settings: StageSettings = no_settings,
    outside: Callable[[DatasetEntry, Mapping[str, str]], str] = _nothing_outside,
    on_request: bool = False,
    job: str = "",
    **declared: Unpack[AssetOptions],
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """
    Declare an asset: `dagster.asset` with the owners, partitions, retries and failure texts of this project.

    `settings`, `outside` and `on_request` are those of `Declaration`; `job` is the job that makes it, see `tags_of`.
    """

    def decorate(compute: Callable[..., Any]) -> dg.AssetsDefinition:
        complete: dict[str, Any] = {**_SHARED, "owners": OWNERS, "io_manager_key": "parquet_io", **declared}
        complete["tags"] = tags_of(complete["partitions_def"], job, declared.get("pool", ""))
        asset = dg.asset(**complete)(_failing_as_dagster_does(compute))
        _DECLARED[asset.key] = Declaration(settings, outside, on_request)
        return asset

    return decorate


def stage_multi_asset(
    specs: list[dg.AssetSpec], *, settings: StageSettings = no_settings, **declared: Any
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """Declare several assets that one computation makes together, from the same settings."""
    tags = tags_of(declared.get("partitions_def", DATASETS))

    def decorate(compute: Callable[..., Any]) -> dg.AssetsDefinition:
        complete = [
            spec.replace_attributes(owners=OWNERS, tags=tags).with_io_manager_key("parquet_io") for spec in specs
        ]
        _DECLARED.update(dict.fromkeys((spec.key for spec in specs), Declaration(settings)))
        return dg.multi_asset(specs=complete, **{**_SHARED, **declared})(_failing_as_dagster_does(compute))

    return decorate


def tags_of(partitions: dg.PartitionsDefinition[str] | None, job: str = "", pool: str = "") -> dict[str, str]:
    """
    Return the tags by which jobs, sensors and schedules find an asset.

    The job is `train` for what has a seed, `status` for what has no partitions and else `prepare`, unless it is named.
    """
    usual = "status" if partitions is None else "train" if partitions == DATASET_SEEDS else "prepare"
    return {JOB: job or usual} | ({POOL: pool} if pool else {})


def _failing_as_dagster_does(compute: Callable[..., Any]) -> Callable[..., Any]:
    if inspect.isgeneratorfunction(compute):

        @functools.wraps(compute)
        def iterate(*arguments: Any, **inputs: Any) -> Any:
            with as_dagster_failures():
                yield from compute(*arguments, **inputs)

        return iterate

    return as_dagster_failures()(compute)
