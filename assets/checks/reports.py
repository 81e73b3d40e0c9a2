"""Checks of the leaderboard and the report."""

import dagster as dg
import polars as pl

from assets.checks.declare import Verdict, table_check
from assets.failures import clear_failures
from assets.io_managers import recorded_path
from assets.partitions import DATASETS
from assets.resources import DataRoot


@table_check("leaderboard", "Every model was measured with the same metrics at the same list lengths.")
def comparable_models(board: pl.DataFrame) -> Verdict:
    """Compare what was measured for each model."""
    models, figures = board.select("model").unique(), board.select("metric", "k").unique()
    missing = models.join(figures, how="cross").join(board, on=["model", "metric", "k"], how="anti")
    measured = {"models": models.height, "figures": figures.height}
    if missing.is_empty():
        return Verdict(measured)
    model, metric, k = missing.sort("model", "metric", "k").row(0)
    return Verdict(
        measured,
        f"{missing.height} of {models.height} x {figures.height} figures are missing, expected none; the first is "
        f"{metric}@{k} of {model}. Materialise metrics/{model} again for every seed, then leaderboard.",
    )


@dg.asset_check(
    asset="report",
    description="The report is one complete document that loads nothing from outside and runs no script.",
    partitions_def=DATASETS,
)
def self_contained(context: dg.AssetCheckExecutionContext, data_root: DataRoot) -> dg.AssetCheckResult:
    """Look for references to other places."""
    with clear_failures():
        path = recorded_path(context.instance, data_root, dg.AssetKey("report"), context.partition_key)
    return _verdict(path.read_text(encoding="utf-8")).result(blocking=False)


def _verdict(html: str) -> Verdict:
    foreign = [mark for mark in ("<script", 'src="http', 'href="http', "@import") if mark in html]
    measured = {"foreign": ", ".join(foreign) or "nothing"}
    if foreign:
        found = f"{len(foreign)} kinds of scripts or references to outside, expected none; the first is {foreign[0]}"
    elif not html.rstrip().endswith("</html>"):
        found = f"0 closing tags are at its end, expected 1; it ends with {html[-20:]!r}"
    else:
        return Verdict(measured)
    return Verdict(
        measured, f"{found}. Correct the template recmodels/reporting/report.html.j2 and materialise report."
    )


CHECKS = [comparable_models, self_contained]
