"""Rows of a leaderboard: which runs they are the mean of, and whether they differ."""

import math

import polars as pl
import pytest

from recmodels.evaluation.leaderboard import leaderboard
from recmodels.reporting.models import (
    BoardRow,
    Training,
    board_rows,
    comparisons,
    holm,
    not_above_popularity,
    training_rows,
)


def test_holms_correction_is_that_of_its_definition() -> None:
    # The values of R: p.adjust(c(0.01, 0.02, 0.03, 0.04, 0.05), "holm") and those of unordered ones.
    assert holm([0.01, 0.02, 0.03, 0.04, 0.05]) == pytest.approx([0.05, 0.08, 0.09, 0.09, 0.09])
    assert holm([0.5, 0.001, 0.9, 0.02]) == pytest.approx([1.0, 0.004, 1.0, 0.06])
    assert holm([math.nan, 0.01]) == pytest.approx([1.0, 0.02])
    assert holm([]) == []


def test_a_model_that_was_made_in_two_ways_has_two_rows_with_seeds_and_trainings_of_their_own() -> None:
    runs = [("bpr", "a" * 32, 0, 0.3), ("bpr", "a" * 32, 2, 0.4), ("bpr", "b" * 32, 1, 0.2), ("ease", "c" * 32, 0, 0.5)]
    metrics = pl.DataFrame(runs, ["model", "provenance", "seed", "value"], orient="row")
    rows = board_rows(leaderboard(metrics.with_columns(metric=pl.lit("recall"), k=pl.lit(20))), metrics)
    assert rows == [
        BoardRow("ease", "ease", "c" * 32, (0,)),
        BoardRow("bpr (aaaaaa)", "bpr", "a" * 32, (0, 2)),
        BoardRow("bpr (bbbbbb)", "bpr", "b" * 32, (1,)),
    ]
    trainings = [Training("bpr", seed, {"embedding_size": size}) for seed, size in ((0, 8), (1, 16), (2, 8))]
    told = training_rows(rows, trainings)
    assert [(row.model, row.seeds, row.settings) for row in told] == [
        ("bpr (aaaaaa)", "0, 2", ["embedding_size = 8"]),
        ("bpr (bbbbbb)", "1", ["embedding_size = 16"]),
    ]


def test_only_what_was_measured_on_this_split_is_compared_and_models_without_figures_are_passed_over() -> None:
    rows = [BoardRow(name, name, "p", (0,)) for name in ("one", "without", "two", "elsewhere", "alone")]

    def users(split: str, *values: float) -> list[pl.LazyFrame]:
        frame = pl.LazyFrame({"user_id": range(len(values)), "recall@20": values})
        return [frame.with_columns(provenance=pl.lit("p"), split_digest=pl.lit(split))]

    found = comparisons(
        rows,
        {
            "one": users("here", 1.0, 0.5, 0.5),
            "two": users("here", 0.5, 0.5, 0.0),
            "elsewhere": users("there", 0.1, 0.1, 0.1),
            "alone": users("here", 0.5, 0.5, 0.0),
        },
        "here",
    )
    assert [(pair.first, pair.second) for pair in found] == [("one", "two"), ("two", "alone")]
    assert [pair.test.n_users for pair in found] == [3, 3]
    assert found[0].test.difference == pytest.approx(1 / 3)
    assert found[1].test.difference == 0
    assert not found[1].differ


def test_without_popularity_nothing_is_compared_with_it() -> None:
    board = pl.DataFrame({"model": ["ease", "popularity"], "mean": [0.1, 0.1], "metric": "recall", "k": 20})
    assert not_above_popularity(board) == ["ease"]
    assert not_above_popularity(board.head(1)) == []


def test_a_single_user_is_no_sample() -> None:
    one = pl.LazyFrame({"user_id": [0], "recall@20": [1.0], "provenance": ["p"], "split_digest": ["s"]})
    rows = [BoardRow(name, name, "p", (0,)) for name in ("a", "b")]
    assert comparisons(rows, {"a": [one], "b": [one]}, "s") == []
