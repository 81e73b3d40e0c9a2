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
    figures = board.group_by("model").agg(pl.struct("metric", "k").sort().alias("figures"))["figures"]
    return len({str(value) for value in figures.to_list()}) == 1, {"models": board["model"].n_unique()}


@dg.asset_check(
    asset="report",
    description="The report is one complete document that loads nothing from outside and runs no script.",
    partitions_def=DATASETS,
)
def self_contained(context: dg.AssetCheckExecutionContext, data_root: DataRoot) -> dg.AssetCheckResult:
    """Look for references to other places."""
    with clear_failures():
        path = recorded_path(context.instance, data_root, dg.AssetKey("report"), context.partition_key)
    html = path.read_text(encoding="utf-8")
    foreign = [mark for mark in ("<script", 'src="http', 'href="http', "@import") if mark in html]
    passed = html.rstrip().endswith("</html>") and not foreign
    return dg.AssetCheckResult(passed=passed, metadata={"foreign": ", ".join(foreign) or "nothing"})


CHECKS = [comparable_models, self_contained]
