"""Small tables for people: what stands in them where something is missing, long or single."""

import polars as pl
import pytest

from recmodels.evaluation.leaderboard import leaderboard
from recmodels.reporting.examples import named_items
from recmodels.reporting.tables import (
    CELL_CHARACTERS,
    leaderboard_figures,
    leaderboard_summary,
    neighbour_examples,
    new_and_had,
    split_sizes,
    training_progress,
)
from recmodels.schemas.tables import INTERACTIONS, KNN


def test_a_split_without_rows_is_shown_as_empty() -> None:
    rows = [(0, 0, None, None, "train"), (0, 1, None, None, "train"), (1, 0, None, None, "test")]
    sizes = {row["split"]: row for row in split_sizes(pl.DataFrame(rows, INTERACTIONS, orient="row")).to_dicts()}
    assert sizes["valid"]["rows"] == 0
    assert sizes["valid"]["density"] == "0.000%"
    assert sizes["all"]["density"] == "75.000%"


def test_a_training_is_shown_by_few_epochs_with_the_best_and_the_last() -> None:
    epochs = range(97)
    history = pl.DataFrame({"epoch": epochs, "loss": [1.0] * 97, "valid_recall": [0.5] * 97})
    shown = training_progress(history, 31)
    assert shown.height < 20
    assert {0, 31, 96} <= set(shown["epoch"])
    assert shown.filter(pl.col("kept") == "best")["epoch"].to_list() == [31]


def test_a_model_in_closed_form_is_shown_by_the_settings_that_were_tried() -> None:
    tried = {"epoch": [0, 1], "neighbours": [20, 100], "shrinkage": [0.0, 0.5], "valid_recall": [0.1, 0.2]}
    shown = training_progress(pl.DataFrame(tried | {"training_seconds": [1.0, 1.0], "seconds": [1.0, 1.0]}), 1)
    assert shown.rows() == [(0, "20", "0", "0.1000", ""), (1, "100", "0.5", "0.2000", "best")]
    assert shown.columns == ["epoch", "neighbours", "shrinkage", "validation recall@20", "kept"]


def test_a_model_with_one_seed_and_one_without_chance_have_no_spread() -> None:
    always = [("same", seed, 0.1) for seed in range(3)]  # in floating point the mean of these is not 0.1
    rows = [
        (model, "p" * 32, seed, metric, k, value)
        for model, seed, value in (("one", 0, 0.5), ("two", 0, 0.25), ("two", 1, 0.75), *always)
        for metric in ("recall", "ndcg")
        for k in (10, 20)
    ]
    board = leaderboard(pl.DataFrame(rows, ["model", "provenance", "seed", "metric", "k", "value"], orient="row"))
    assert dict(leaderboard_figures(board).select("model", "recall@20").iter_rows()) == {
        "one": "0.5000",
        "two": "0.5000 ± 0.3536",
        "same": "0.1000",
    }
    assert "**one** (0.5000), then **two** (0.5000 ± 0.3536)" in leaderboard_summary(board)


def test_what_users_get_stands_below_what_they_had_and_long_titles_are_cut() -> None:
    recommended = pl.DataFrame({"user_id": [7, 7, 8], "item_id": [2, 1, 0]})
    seen = pl.DataFrame({"user_id": [7, 8], "item_id": [0, 1]})
    shown = new_and_had(recommended, "gets", seen, {7: "Ann"}, ["short", "x" * 100, "other"])
    long = "x" * (CELL_CHARACTERS - 1) + "…"
    assert shown.rows() == [("user", "Ann"), ("had", "short"), ("gets", "other"), ("gets", long)]


def test_items_are_named_by_asin_whatever_order_the_titles_stand_in() -> None:
    ids = pl.DataFrame({"item_id": [0, 1, 2], "asin": ["A", "B", "C"]})
    items = pl.DataFrame({"asin": ["C", "A", "B"], "title": ["third", "first", ""]})
    assert named_items(ids, items) == ["first", "B", "third"]
    described = items.with_columns(description=pl.Series(["", "", "A pair of spurs."]))
    assert named_items(ids, described) == ["first", "A pair of spurs.", "third"]
    assert named_items(ids, items.head(1)) == ["A", "B", "third"]


def test_the_nearest_others_are_shown_without_the_item_itself() -> None:
    rows = [(src, (src + step) % 9, step, 1.0 - step / 10) for src in range(9) for step in range(7)]
    shown = neighbour_examples(pl.DataFrame(rows, KNN, orient="row"), list("abcdefghi"))
    assert shown["item"].unique(maintain_order=True).to_list() == ["a", "e", "i"]
    assert shown.filter(pl.col("item") == "i").rows() == [
        ("i", near, pytest.approx(1.0 - step / 10)) for step, near in enumerate("abcd", start=1)
    ]


def test_an_absent_modality_has_no_examples() -> None:
    assert neighbour_examples(pl.DataFrame(schema=KNN), ["a", "b"]).is_empty()
