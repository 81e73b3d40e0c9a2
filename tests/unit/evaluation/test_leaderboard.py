"""Means and spreads over seeds, and paired tests."""

import numpy as np
import polars as pl
import pytest
from scipy import stats

from recmodels.errors import InputError
from recmodels.evaluation.leaderboard import leaderboard, paired_test


@pytest.fixture
def metrics() -> pl.DataFrame:
    values = {("a", 0): 0.1, ("a", 1): 0.3, ("b", 0): 0.25}
    rows = [(model, "p" * 32, seed, "recall", 20, value) for (model, seed), value in values.items()]
    rows += [(model, "p" * 32, seed, "ndcg", 20, value / 2) for (model, seed), value in values.items()]
    return pl.DataFrame(rows, schema=["model", "provenance", "seed", "metric", "k", "value"], orient="row")


def test_models_stand_by_mean_recall_with_the_sample_deviation(metrics: pl.DataFrame) -> None:
    board = leaderboard(metrics)
    assert board["model"].unique(maintain_order=True).to_list() == ["b", "a"]
    row = board.filter((pl.col("model") == "a") & (pl.col("metric") == "recall"))
    assert row["mean"].item() == pytest.approx(0.2)
    assert row["std"].item() == pytest.approx(np.std([0.1, 0.3], ddof=1))
    assert row["n_seeds"].item() == 2
    assert board.filter(pl.col("model") == "b")["std"].to_list() == [None, None]


def test_seeds_that_were_trained_differently_are_not_averaged(metrics: pl.DataFrame) -> None:
    other = pl.col("model").eq("a") & pl.col("seed").eq(1)
    mixed = metrics.with_columns(provenance=pl.when(other).then(pl.lit("q" * 32)).otherwise("provenance"))
    board = leaderboard(mixed).filter(pl.col("metric") == "recall")
    assert dict(board.select("model", "mean").iter_rows()) == {"a (qqqqqq)": 0.3, "b": 0.25, "a (pppppp)": 0.1}
    assert board["n_seeds"].to_list() == [1, 1, 1]


def test_a_repeated_run_is_refused(metrics: pl.DataFrame) -> None:
    with pytest.raises(InputError, match="repeated"):
        leaderboard(pl.concat([metrics, metrics.head(1)]))


def test_a_metric_that_nobody_has_is_refused(metrics: pl.DataFrame) -> None:
    with pytest.raises(InputError, match="recall@5"):
        leaderboard(metrics, sort_by=("recall", 5))


def test_the_paired_test_is_scipys_on_users_matched_by_id() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.random(50), rng.random(50)
    order = rng.permutation(50)
    frames = (
        pl.DataFrame({"user_id": np.arange(50), "recall@20": first}),
        pl.DataFrame({"user_id": order, "recall@20": second[order]}),
    )
    found = paired_test(*frames, "recall@20")
    assert found.difference == pytest.approx((first - second).mean())
    assert found.t_p_value == pytest.approx(stats.ttest_rel(first, second).pvalue)
    assert found.wilcoxon_p_value == pytest.approx(stats.wilcoxon(first, second).pvalue)
    assert paired_test(frames[0], frames[0], "recall@20").wilcoxon_p_value == 1


def test_different_users_cannot_be_compared() -> None:
    frames = (pl.DataFrame({"user_id": ids, "recall@20": [0.1, 0.2]}) for ids in ([0, 1], [0, 2]))
    with pytest.raises(InputError, match="same users"):
        paired_test(*frames, "recall@20")
