"""Checks of the pipeline's status: a warning in the user interface while something needs a person."""

import polars as pl

from assets.checks.declare import Verdict, table_check
from assets.status import KEY


@table_check(KEY, "No run and no check of any data set has failed last.", blocking=False, partitions_def=None)
def nothing_failed(status: pl.DataFrame) -> Verdict:
    """Count the partitions that will not mend themselves."""
    failed = status.filter(pl.col("state") == "failed")
    measured = {"failed": failed.height}
    if failed.is_empty():
        return Verdict(measured)
    first = failed.row(0, named=True)
    seed = "" if first["seed"] is None else f", seed {first['seed']}"
    return Verdict(
        measured,
        f"{failed.height} partitions failed or have a failed check, expected none; the first is "
        f"{first['asset']} of {first['dataset']}{seed} ({' '.join(first['why'].split()) or first['state']}). "
        "Mend what it says and materialise it again.",
    )


CHECKS = [nothing_failed]
