"""How an asset of this project is declared: what all of them share stands here once."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import dagster as dg

from assets.failures import clear_failures
from assets.partitions import DATASETS

OWNERS = ["team:recmodels"]

RETRIES = dg.RetryPolicy(max_retries=2, delay=5, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)
"""For passing faults only: a permanent failure is raised as one that no policy repeats."""

_SHARED: dict[str, Any] = {
    "partitions_def": DATASETS,
    "retry_policy": RETRIES,
    # No backfill policy: with any, even one of single partitions, Dagster launches ranges, which have no partition key.
}


def stage_asset(**declared: Any) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """Declare an asset: `dagster.asset` with the owners, partitions, retries and failure texts of this project."""

    def decorate(compute: Callable[..., Any]) -> dg.AssetsDefinition:
        settings: dict[str, Any] = {**_SHARED, "owners": OWNERS, "io_manager_key": "parquet_io", **declared}
        settings["tags"] = {"stage": settings["group_name"]}
        return dg.asset(**settings)(_with_clear_failures(compute))

    return decorate


def stage_multi_asset(
    specs: list[dg.AssetSpec], **declared: Any
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """Declare several assets that one computation makes together."""

    def decorate(compute: Callable[..., Any]) -> dg.AssetsDefinition:
        settings: dict[str, Any] = {**_SHARED, **declared}
        complete = [
            spec.replace_attributes(owners=OWNERS, tags={"stage": spec.group_name or ""}).with_io_manager_key(
                "parquet_io"
            )
            for spec in specs
        ]
        return dg.multi_asset(specs=complete, **settings)(_with_clear_failures(compute))

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
