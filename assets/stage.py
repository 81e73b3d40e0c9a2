"""
How an asset of this project is declared: what all of them share stands here once.

An asset also declares its settings: which part of a data set's catalogue entry decides about it. They are recorded with
each materialisation (`assets.lineage`) and compared with today's (`assets.staleness`).
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import dagster as dg

from assets.failures import clear_failures
from assets.partitions import DATASETS
from recmodels.data.catalogue import DatasetEntry
from recmodels.settings import StageSettings, no_settings

OWNERS = ["team:recmodels"]

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
    What decides about an asset beside its code and its inputs.

    Attributes
    ----------
    settings
        Which part of the catalogue's entry is read.
    outside
        From the entry and the texts that the latest record has as metadata: what changed in the world outside since
        then, empty if nothing did.
    """

    settings: StageSettings = no_settings
    outside: Callable[[DatasetEntry, Mapping[str, str]], str] = _nothing_outside


_DECLARED: dict[dg.AssetKey, Declaration] = {}


def declaration(key: dg.AssetKey) -> Declaration | None:
    """Return what an asset of this project declares; None for any other."""
    return _DECLARED.get(key)


def stage_asset(
    *,
    settings: StageSettings = no_settings,
    outside: Callable[[DatasetEntry, Mapping[str, str]], str] = _nothing_outside,
    **declared: Any,
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """
    Declare an asset: `dagster.asset` with the owners, partitions, retries and failure texts of this project.

    `settings` and `outside` are those of `Declaration`.
    """

    def decorate(compute: Callable[..., Any]) -> dg.AssetsDefinition:
        complete: dict[str, Any] = {**_SHARED, "owners": OWNERS, "io_manager_key": "parquet_io", **declared}
        complete["tags"] = {"stage": complete["group_name"]}
        asset = dg.asset(**complete)(_with_clear_failures(compute))
        _DECLARED[asset.key] = Declaration(settings, outside)
        return asset

    return decorate


def stage_multi_asset(
    specs: list[dg.AssetSpec], *, settings: StageSettings = no_settings, **declared: Any
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """Declare several assets that one computation makes together, from the same settings."""

    def decorate(compute: Callable[..., Any]) -> dg.AssetsDefinition:
        complete = [
            spec.replace_attributes(owners=OWNERS, tags={"stage": spec.group_name or ""}).with_io_manager_key(
                "parquet_io"
            )
            for spec in specs
        ]
        _DECLARED.update(dict.fromkeys((spec.key for spec in specs), Declaration(settings)))
        return dg.multi_asset(specs=complete, **{**_SHARED, **declared})(_with_clear_failures(compute))

    return decorate


def _with_clear_failures(compute: Callable[..., Any]) -> Callable[..., Any]:
    if inspect.isgeneratorfunction(compute):

        @functools.wraps(compute)
        def iterate(*arguments: Any, **inputs: Any) -> Any:
            with clear_failures():
                yield from compute(*arguments, **inputs)

        return iterate

    @functools.wraps(compute)
    def run(*arguments: Any, **inputs: Any) -> Any:
        with clear_failures():
            return compute(*arguments, **inputs)

    return run
