"""The figures that checks compare."""

import polars as pl

from recmodels.data.catalogue import PublishedCounts
from recmodels.data.checks import (
    differences,
    fewest_interactions,
    ids_out_of_range,
    misplaced_ids,
    rejected_shares,
    repeated_pairs,
    sizes,
)
from recmodels.data.schemas import Split

TABLE = pl.DataFrame(
    {
        "user_id": [0, 0, 1, 1],
        "item_id": [0, 1, 0, 0],
        "split": pl.Series(["train", "valid", "train", "test"], dtype=Split),
    }
)


def test_the_fewest_rows_of_a_user_and_an_item() -> None:
    assert fewest_interactions(TABLE) == {"user": 2, "item": 1}
    assert fewest_interactions(TABLE.clear()) == {"user": 0, "item": 0}


def test_ids_at_another_place_or_out_of_range() -> None:
    assert misplaced_ids(pl.Series([0, 1, 2], dtype=pl.Int32)) == 0
    assert misplaced_ids(pl.Series([0, 2, None], dtype=pl.Int32)) == 2
    assert ids_out_of_range(pl.Series([0, 2, -1, None]), 2) == 3


def test_a_pair_in_two_splits_is_a_repeated_pair() -> None:
    assert repeated_pairs(TABLE) == 1


def test_shares_are_of_the_lines_of_each_file() -> None:
    counts = {"review_lines": 200, "review_rejects": 3, "metadata_lines": 0, "metadata_rejects": 0, "users": 4}
    assert rejected_shares(counts) == {"review": 0.015, "metadata": 0.0}


def test_sizes_differ_by_name() -> None:
    found = sizes(TABLE, 2, 2)
    assert found == PublishedCounts(users=2, items=2, train=2, valid=1, test=1)
    assert differences(found, found) == {}
    assert differences(found, found.model_copy(update={"test": 9})) == {"test": (1, 9)}
