"""Models side by side: mean and spread over seeds, and paired tests over users."""

from dataclasses import dataclass
from typing import Any

import polars as pl
from scipy import stats

from recmodels.errors import InputError
from recmodels.schemas.tables import LEADERBOARD

PROVENANCE_DIGITS = 6


def leaderboard(metrics: pl.DataFrame, *, sort_by: tuple[str, int] = ("recall", 20)) -> pl.DataFrame:
    """
    Return mean and standard deviation over the seeds of each model's figures, best model first.

    Only seeds of one provenance are averaged. A model that has several has a row for each, and the first digits of the
    provenance stand beside its name.

    Parameters
    ----------
    metrics
        Columns model, provenance, seed, metric, k, value: the evaluation summaries of all runs. Provenance is a digest
        of the code, the settings and the data that a model was made from.
    sort_by
        Metric and k whose mean orders the models; models with equal means stand in order of name.

    Returns
    -------
    pl.DataFrame
        Schema `LEADERBOARD`. The standard deviation is the sample's (n - 1), null with one seed.

    Raises
    ------
    InputError
        If a (model, provenance, seed, metric, k) occurs twice, or nothing has the metric to sort by.

    Examples
    --------
    >>> figures = pl.DataFrame({"model": ["bpr", "bpr", "ease"], "seed": [0, 1, 0], "value": [0.25, 0.75, 0.625]})
    >>> figures = figures.with_columns(provenance=pl.lit("made up"), metric=pl.lit("recall"), k=pl.lit(20))
    >>> leaderboard(figures).select("model", "n_seeds", "mean").rows()
    [('ease', 1, 0.625), ('bpr', 2, 0.5)]
    """
    keys = ["model", "provenance", "seed", "metric", "k"]
    if metrics.select(keys).is_duplicated().any():
        raise InputError("metrics", expected="one value a model, seed, metric and k", found="repeated rows")
    several = pl.col("provenance").n_unique().over("model") > 1
    named = pl.format("{} ({})", "model", pl.col("provenance").str.slice(0, PROVENANCE_DIGITS))
    metrics = metrics.with_columns(model=pl.when(several).then(named).otherwise("model"))
    board = metrics.group_by("model", "provenance", "metric", "k").agg(
        n_seeds=pl.len().cast(pl.Int32), mean=pl.col("value").mean(), std=pl.col("value").std()
    )
    metric, k = sort_by
    order = board.filter((pl.col("metric") == metric) & (pl.col("k") == k)).select("model", order=pl.col("mean"))
    if order.is_empty():
        raise InputError("metrics", expected=f"the metric {metric}@{k} to sort by", found="none of it")
    board = board.join(order, on="model", how="left")
    board = board.sort("order", "model", "metric", "k", descending=[True, False, False, False], nulls_last=True)
    return board.select(pl.col(name).cast(dtype) for name, dtype in LEADERBOARD.items())


@dataclass(frozen=True)
class PairedTest:
    """A comparison of two models user by user."""

    difference: float
    """Mean of the first model's values minus the second's."""
    t_p_value: float
    """Of the paired t-test, two-sided."""
    wilcoxon_p_value: float
    """Of the signed-rank test, two-sided; 1 where the two agree for every user."""
    n_users: int
    """Users compared."""


def paired_test(first: pl.DataFrame, second: pl.DataFrame, column: str) -> PairedTest:
    """
    Test whether two models differ in a metric, a column such as ``recall@20``, over the same users.

    `first` and `second` are per-user frames of two evaluations; those of several seeds may be averaged per user before.
    Raises InputError if they are not about the same users.
    """
    joined = first.select("user_id", first=column).join(second.select("user_id", second=column), on="user_id")
    if not joined.height == first.height == second.height:
        raise InputError("per-user frames", expected="the same users in both", found="different users")
    differences = (joined["first"] - joined["second"]).to_numpy()
    if not differences.any():
        return PairedTest(0.0, 1.0, 1.0, joined.height)
    return PairedTest(
        difference=float(differences.mean()),
        t_p_value=_p_value(stats.ttest_1samp(differences, 0.0)),
        wilcoxon_p_value=_p_value(stats.wilcoxon(differences)),
        n_users=joined.height,
    )


def _p_value(result: Any) -> float:
    return float(result.pvalue)
