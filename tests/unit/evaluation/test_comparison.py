"""Comparisons of two models from their stored values of users."""

import numpy as np
import polars as pl
import pytest
from scipy import stats

from recmodels.errors import InputError
from recmodels.evaluation.comparison import compare


def _values(seed: int, *, shift: float = 0.0, split: str = "one", provenance: str = "same", model: str = "a"):
    values = np.random.default_rng(seed).random(40) + shift
    return pl.DataFrame({"user_id": np.arange(40, dtype=np.int32), "recall@20": values}).with_columns(
        model=pl.lit(model), split_digest=pl.lit(split), provenance=pl.lit(provenance)
    )


def test_the_test_is_scipys_on_the_means_of_users_over_the_seeds_of_both() -> None:
    first = {0: _values(0, shift=0.1), 1: _values(1, shift=0.1), 4: _values(9)}
    second = {1: _values(11).reverse(), 0: _values(10), 2: _values(12)}
    found = compare(first, second, "recall@20")
    one = (first[0]["recall@20"].to_numpy() + first[1]["recall@20"].to_numpy()) / 2
    other = (second[0]["recall@20"].to_numpy() + second[1].sort("user_id")["recall@20"].to_numpy()) / 2
    assert found.seeds == (0, 1)
    assert found.test.n_users == 40
    assert found.test.difference == pytest.approx((one - other).mean())
    assert found.relative == pytest.approx((one - other).mean() / other.mean())
    assert found.first_mean == pytest.approx(one.mean())
    assert found.test.t_p_value == pytest.approx(stats.ttest_rel(one, other).pvalue)
    assert found.test.wilcoxon_p_value == pytest.approx(stats.wilcoxon(one, other).pvalue)


def test_seeds_whose_figures_stand_in_another_order_are_compared_all_the_same() -> None:
    first = {seed: _values(seed, shift=0.1).with_columns(pl.lit(0.5).alias("ndcg@20")) for seed in (0, 1)}
    turned = first | {1: first[1].select(reversed(first[1].columns))}
    other = {0: _values(0), 1: _values(1)}
    assert compare(turned, other, "recall@20") == compare(first, other, "recall@20")


def test_nothing_is_relative_to_nothing() -> None:
    nothing = _values(0).with_columns(pl.lit(0.0).alias("recall@20"))
    assert compare({0: _values(0)}, {0: nothing}, "recall@20").relative is None


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ({0: _values(0, split="one")}, {0: _values(1, split="other")}, "two models: expected results of one split"),
        ({0: _values(0)}, {1: _values(1)}, "expected one that both were measured with, found 0 and 1"),
        ({}, {1: _values(1)}, "found none and 1"),
        (
            {0: _values(0), 1: _values(1, provenance="other")},
            {0: _values(2), 1: _values(3)},
            "seeds 0, 1 of a: expected one code.*found provenance other, same",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(first, second, message: str) -> None:
    with pytest.raises(InputError, match=message):
        compare(first, second, "recall@20")


def test_an_unknown_metric_is_refused_with_those_there_are() -> None:
    with pytest.raises(InputError, match="metric: expected one of recall@20, found 'recall@7'"):
        compare({0: _values(0)}, {0: _values(1)}, "recall@7")
