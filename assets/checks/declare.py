"""How a check is declared: it reads what is stored, so that it can also be run on its own, long after the asset."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import dagster as dg

from assets.failures import clear_failures
from assets.io_managers import read_table
from assets.lineage import latest_materializations
from assets.partitions import DATASETS, dataset_of
from assets.resources import DataRoot

Verdict = tuple[bool, Mapping[str, Any]]
"""Whether the check passed, and what was measured."""


def recorded_check(
    asset: str, description: str, *, blocking: bool, n_records: int = 1
) -> Callable[[Callable[[list[dg.AssetMaterialization]], Verdict]], dg.AssetChecksDefinition]:
    """
    Declare a check of what the latest materialisations of an asset recorded about themselves.

    The decorated function gets up to `n_records` of them, the newest first.
    """

    def decorate(verdict: Callable[[list[dg.AssetMaterialization]], Verdict]) -> dg.AssetChecksDefinition:
        @dg.asset_check(
            asset=asset,
            name=verdict.__name__,
            description=description,
            blocking=blocking,
            partitions_def=DATASETS,
        )
        def check(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
            records = latest_materializations(context.instance, dg.AssetKey(asset), context.partition_key, n_records)
            passed, measured = verdict(records)
            return dg.AssetCheckResult(passed=passed, metadata=measured, severity=_severity(blocking))

        return check

    return decorate


def recorded_json(record: dg.AssetMaterialization, entry: str) -> dict[str, Any]:
    """Return a JSON entry of a record's metadata."""
    value: Any = record.metadata[entry].value
    return dict(value)


def _severity(blocking: bool) -> dg.AssetCheckSeverity:
    return dg.AssetCheckSeverity.ERROR if blocking else dg.AssetCheckSeverity.WARN


def table_check(
    asset: dg.AssetKey | str,
    description: str,
    *,
    also: Sequence[str] = (),
    blocking: bool = True,
    partitions_def: dg.PartitionsDefinition[str] = DATASETS,
) -> Callable[[Callable[..., Verdict]], dg.AssetChecksDefinition]:
    """
    Declare a check of a stored table.

    Parameters
    ----------
    asset
        What is checked; the decorated function gets its table first.
    description
        What holds if the check passes.
    also
        Further tables of the same data set that the function gets, in this order.
    blocking
        Whether assets downstream wait for the check, and do not run if it fails.
    """

    def decorate(verdict: Callable[..., Verdict]) -> dg.AssetChecksDefinition:
        @dg.asset_check(
            asset=asset,
            name=verdict.__name__,
            description=description,
            blocking=blocking,
            partitions_def=partitions_def,
            additional_deps=list(also),
        )
        def check(context: dg.AssetCheckExecutionContext, data_root: DataRoot) -> dg.AssetCheckResult:
            with clear_failures():
                dataset = dataset_of(context.partition_key)
                frames = [read_table(context.instance, data_root, asset, context.partition_key)]
                frames += [read_table(context.instance, data_root, name, dataset) for name in also]
                passed, measured = verdict(*frames)
            return dg.AssetCheckResult(passed=passed, metadata=measured, severity=_severity(blocking))

        return check

    return decorate
