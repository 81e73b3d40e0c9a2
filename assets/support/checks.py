"""How a check is declared: it reads what is stored, so that it can also be run on its own, long after the asset."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from assets.support.failures import as_dagster_failures
from assets.support.io_managers import read_table
from assets.support.lineage import latest_materialization, latest_materializations
from assets.support.partitions import DATASETS, dataset_of
from assets.support.resources import DataRoot
from recmodels.errors import MissingObject


@dataclass(frozen=True)
class Verdict:
    """What a check found."""

    measured: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What the user interface shows beside the result, by name."""
    problem: str = ""
    """Empty if the check holds. Else one line: what was counted, the limit, an example and what to do."""

    def result(self, *, blocking: bool) -> dg.AssetCheckResult:
        """Return it as Dagster records it; what does not block is a warning."""
        return dg.AssetCheckResult(
            passed=not self.problem,
            description=self.problem or None,
            metadata=self.measured,
            severity=dg.AssetCheckSeverity.ERROR if blocking else dg.AssetCheckSeverity.WARN,
        )


Judge = Callable[[dg.AssetCheckExecutionContext, DataRoot], Verdict]


def stored_check(
    asset: dg.AssetKey | str,
    description: str,
    *,
    blocking: bool,
    name: str = "",
    waits_for: Sequence[dg.AssetKey | str] = (),
    partitions_def: dg.PartitionsDefinition[str] | None = DATASETS,
) -> Callable[[Judge], dg.AssetChecksDefinition]:
    """
    Declare a check of what is stored, whatever it is; the decorated function looks at it and returns its verdict.

    Parameters
    ----------
    asset
        What the check hangs on.
    description
        What holds if the check passes.
    blocking
        Whether assets downstream wait for the check, and do not run if it fails.
    name
        Of the check; that of the function by default.
    waits_for
        Further assets that the check waits for where they are made in the same run.
    partitions_def
        Of the asset; None for one without partitions.
    """

    def decorate(judge: Judge) -> dg.AssetChecksDefinition:
        @dg.asset_check(
            asset=asset,
            name=name or judge.__name__,
            description=description,
            blocking=blocking,
            partitions_def=partitions_def,
            additional_deps=list(waits_for),
        )
        def check(context: dg.AssetCheckExecutionContext, data_root: DataRoot) -> dg.AssetCheckResult:
            with as_dagster_failures():
                return judge(context, data_root).result(blocking=blocking)

        return check

    return decorate


def recorded_check(
    asset: dg.AssetKey | str,
    description: str,
    *,
    blocking: bool,
    of: str = "",
    n_records: int = 1,
    beside: Sequence[dg.AssetKey] = (),
    partitions_def: dg.PartitionsDefinition[str] = DATASETS,
) -> Callable[[Callable[..., Verdict]], dg.AssetChecksDefinition]:
    """
    Declare a check of what the latest materialisations of an asset recorded about themselves.

    Parameters
    ----------
    asset, description, blocking, partitions_def
        As in `stored_check`.
    of
        The asset whose records are looked at, if it is another one.
    n_records
        The decorated function gets up to so many of them, at least one, the newest first.
    beside
        Assets with the same partitions, of each of which the function gets the newest record too, None without any.
        In one run the check waits for them.
    """
    recorded = dg.AssetKey(of) if of else asset if isinstance(asset, dg.AssetKey) else dg.AssetKey(asset)

    def decorate(verdict: Callable[..., Verdict]) -> dg.AssetChecksDefinition:
        def of_records(context: dg.AssetCheckExecutionContext, _data_root: DataRoot) -> Verdict:
            partition_key = context.partition_key
            records = latest_materializations(context.instance, recorded, partition_key, n_records)
            if not records:
                name = recorded.to_user_string()
                raise MissingObject(f"{name} of {partition_key} was never materialised: materialise it first.")
            return verdict(records, *(latest_materialization(context.instance, key, partition_key) for key in beside))

        declared = stored_check(
            asset,
            description,
            blocking=blocking,
            name=verdict.__name__,
            waits_for=[*([of] if of else []), *beside],
            partitions_def=partitions_def,
        )
        return declared(of_records)

    return decorate


def table_check(
    asset: dg.AssetKey | str,
    description: str,
    *,
    also: Sequence[str] = (),
    blocking: bool = True,
    partitions_def: dg.PartitionsDefinition[str] | None = DATASETS,
) -> Callable[[Callable[..., Verdict]], dg.AssetChecksDefinition]:
    """
    Declare a check of a stored table.

    Parameters
    ----------
    asset, description, blocking, partitions_def
        As in `stored_check`; the decorated function gets the table of the asset first.
    also
        Further tables of the same data set that the function gets, in this order.
    """

    def decorate(verdict: Callable[..., Verdict]) -> dg.AssetChecksDefinition:
        def of_tables(context: dg.AssetCheckExecutionContext, data_root: DataRoot) -> Verdict:
            partition_key = context.partition_key if partitions_def else None
            others = (read_table(context.instance, data_root, name, dataset_of(partition_key or "")) for name in also)
            return verdict(read_table(context.instance, data_root, asset, partition_key), *others)

        declared = stored_check(
            asset,
            description,
            blocking=blocking,
            name=verdict.__name__,
            waits_for=also,
            partitions_def=partitions_def,
        )
        return declared(of_tables)

    return decorate
