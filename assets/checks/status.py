"""Checks of the pipeline's status: a warning in the user interface while something needs a person."""

import dagster as dg
import polars as pl

from assets.checks.declare import Verdict
from assets.failures import clear_failures
from assets.io_managers import read_table
from assets.resources import DataRoot
from assets.status import KEY


@dg.asset_check(asset=KEY, name="nothing_failed", description="No run and no check of any data set has failed last.")
def nothing_failed(context: dg.AssetCheckExecutionContext, data_root: DataRoot) -> dg.AssetCheckResult:
    """Count the partitions that will not mend themselves."""
    with clear_failures():
        passed, measured = _verdict(read_table(context.instance, data_root, KEY, None))
    return dg.AssetCheckResult(passed=passed, metadata=measured, severity=dg.AssetCheckSeverity.WARN)


def _verdict(status: pl.DataFrame) -> Verdict:
    failed = int((status["state"] == "failed").sum())
    return failed == 0, {"failed": failed}


CHECKS = [nothing_failed]
