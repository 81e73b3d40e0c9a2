"""Splits: the published rule, time, the last rows, and a published assignment."""

from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from recmodels.catalogue.entries import SplitStrategy
from recmodels.data.split import split_digest, split_interactions, without_training
from recmodels.errors import InputError
from recmodels.schemas.data import Split
from recmodels.schemas.tables import INTERACTIONS

STRATEGIES: list[SplitStrategy] = ["random", "temporal", "leave_last_out"]


def interactions(pairs: list[tuple[int, int]], seed: int = 0, times: list[int] | None = None) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "user_id": [user for user, _ in pairs],
            "item_id": [item for _, item in pairs],
            "rating": 5.0,
            "timestamp": times if times is not None else rng.integers(10**9, 2 * 10**9, len(pairs)),
            "split": None,
        },
        schema=INTERACTIONS,
    )


def of_user(n: int) -> pl.DataFrame:
    return interactions([(0, item) for item in range(n)])


def counts(split: pl.DataFrame) -> tuple[int, int, int]:
    train, valid, test = (split.filter(pl.col("split") == name).height for name in ("train", "valid", "test"))
    return train, valid, test


pair_sets = st.sets(st.tuples(st.integers(0, 6), st.integers(0, 40)), min_size=1, max_size=150).map(sorted)


@pytest.mark.parametrize(
    ("n", "expected"),
    [(1, (1, 0, 0)), (2, (2, 0, 0)), (3, (1, 1, 1)), (5, (3, 1, 1)), (9, (7, 1, 1)), (10, (8, 1, 1)), (15, (12, 1, 2)),
     (19, (16, 1, 2)), (20, (16, 2, 2)), (25, (20, 2, 3)), (100, (80, 10, 10))],
)  # fmt: skip
def test_the_published_rule_user_by_user(n: int, expected: tuple[int, int, int]) -> None:
    assert counts(split_interactions(of_user(n), "random")) == expected


@settings(deadline=None)
@given(pair_sets, st.sampled_from(STRATEGIES), st.integers(0, 3), st.randoms())
def test_a_split_depends_on_rows_and_seed_alone(pairs, strategy: SplitStrategy, seed: int, random) -> None:
    table = interactions(pairs, times=[(user * item) % 5 for user, item in pairs])
    split = split_interactions(table, strategy, seed=seed)
    rows = list(range(len(pairs)))
    random.shuffle(rows)
    shuffled = split_interactions(table[rows], strategy, seed=seed)
    assert_frame_equal(shuffled, split)
    assert split_digest(split[rows]) == split_digest(split)
    assert split.select("user_id", "item_id").rows() == pairs
    assert split["split"].null_count() == 0


@settings(deadline=None)
@given(pair_sets)
def test_users_with_three_rows_keep_training_rows(pairs: list[tuple[int, int]]) -> None:
    for strategy in ("random", "leave_last_out"):
        split = split_interactions(interactions(pairs), strategy)
        per_user = split.group_by("user_id").agg((pl.col("split") == "train").sum().alias("train"))
        assert per_user["train"].to_numpy().min() >= 1


def test_another_seed_gives_another_random_split() -> None:
    table = interactions([(user, item) for user in range(50) for item in range(8)])
    digests = {split_digest(split_interactions(table, "random", seed=seed)) for seed in range(5)}
    assert len(digests) == 5


def test_every_row_is_held_out_equally_often() -> None:
    table = of_user(10)
    held_out = sum(
        (split_interactions(table, "random", seed=seed)["split"] == "test").to_numpy().astype(int)
        for seed in range(600)
    )
    expected = 600 / 10
    assert np.abs(held_out - expected).max() < 5 * np.sqrt(expected)


def test_the_last_rows_are_left_out() -> None:
    split = split_interactions(interactions([(0, i) for i in range(5)], times=[5, 1, 9, 3, 7]), "leave_last_out")
    assert split["split"].to_list() == ["train", "train", "test", "train", "valid"]


def test_a_temporal_split_cuts_the_whole_table_in_the_published_proportions() -> None:
    table = interactions([(user, item) for user in range(40) for item in range(5 + user % 9)])
    split = split_interactions(table, "temporal")
    assert counts(split) == counts(split_interactions(table, "random"))
    times = [split.filter(pl.col("split") == name)["timestamp"].to_numpy() for name in ("train", "valid", "test")]
    for earlier, later in pairwise(times):
        assert earlier.max() <= later.min()


def test_a_published_split_is_taken_as_it_is() -> None:
    table = of_user(3).with_columns(split=pl.Series(["test", "train", "valid"], dtype=Split))
    assert_frame_equal(split_interactions(table[[2, 0, 1]], "published"), table)


@pytest.mark.parametrize("strategy", ["temporal", "leave_last_out"])
def test_a_split_by_time_needs_times(strategy: SplitStrategy) -> None:
    table = of_user(3).with_columns(timestamp=pl.lit(None, dtype=pl.Int64))
    with pytest.raises(InputError, match="expected a timestamp in every row"):
        split_interactions(table, strategy)


def test_a_published_split_has_to_be_there() -> None:
    with pytest.raises(InputError, match="expected a published split"):
        split_interactions(of_user(3), "published")


def test_ids_without_training_rows_are_named() -> None:
    table = interactions([(0, 0), (0, 1), (2, 1)]).with_columns(
        split=pl.Series(["train", "test", "valid"], dtype=Split)
    )
    users, items = without_training(table, n_users=3, n_items=3)
    assert users.to_list() == [1, 2]
    assert items.to_list() == [1, 2]
