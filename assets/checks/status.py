"""Checks of the pipeline's status: a warning in the user interface while something needs a person."""

import dagster as dg
import polars as pl

from assets.checks.declare import Verdict, read_table
from assets.failures import clear_failures
from assets.resources import DataRoot
from assets.status import KEY

NEEDS_A_PERSON = ("failed", "check failed")


@dg.asset_check(asset=KEY, name="nothing_failed", description="No run and no check of any data set has failed last.")
def nothing_failed(context: dg.AssetCheckExecutionContext, data_root: DataRoot) -> dg.AssetCheckResult:
    """Count the partitions that will not mend themselves."""
    with clear_failures():
        passed, measured = _verdict(read_table(context.instance, data_root, KEY, None))
    return dg.AssetCheckResult(passed=passed, metadata=measured, severity=dg.AssetCheckSeverity.WARN)


def _verdict(status: pl.DataFrame) -> Verdict:
    counts = {state: int((status["state"] == state).sum()) for state in NEEDS_A_PERSON}
    return not any(counts.values()), {state.replace(" ", "_"): count for state, count in counts.items()}


CHECKS = [nothing_failed]
