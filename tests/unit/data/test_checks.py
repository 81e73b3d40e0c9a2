"""The figures that checks compare."""

import polars as pl

from recmodels.catalogue.entries import PublishedCounts
from recmodels.data.checks import differences, fewest_interactions, first_rejects, rejected_shares, sizes
from recmodels.schemas.data import Split
from recmodels.schemas.tables import REJECTS

TABLE = pl.DataFrame(
    {
        "user_id": [0, 0, 1, 1],
        "item_id": [0, 1, 0, 0],
        "split": pl.Series(["train", "valid", "train", "test"], dtype=Split),
    }
)
COUNTS = {"review_lines": 200, "review_rejects": 3, "metadata_lines": 0, "metadata_rejects": 0, "users": 4}


def test_the_fewest_rows_of_a_user_and_an_item() -> None:
    assert fewest_interactions(TABLE) == {"user": 2, "item": 1}
    assert fewest_interactions(TABLE.clear()) == {"user": 0, "item": 0}


def test_shares_are_of_the_lines_of_each_file() -> None:
    assert rejected_shares(COUNTS) == {"review": 0.015, "metadata": 0.0}


def test_the_first_reject_of_each_file_is_named() -> None:
    rows = [("a.gz", 7, "no JSON", "x"), ("a.gz", 9, "no asin", "y"), ("a.gz", 10, "no asin", "z")]
    reviews = pl.DataFrame(rows, schema=REJECTS, orient="row")
    assert first_rejects(reviews, COUNTS) == {"review": "a.gz, line 7 (no JSON)"}
    assert first_rejects(reviews.clear(), {**COUNTS, "review_rejects": 0}) == {}
    metadata = pl.DataFrame([("b.gz", 1_234, "cut off", "")], schema=REJECTS, orient="row")
    both = first_rejects(pl.concat([reviews, metadata]), {**COUNTS, "metadata_rejects": 1})
    assert both == {"review": "a.gz, line 7 (no JSON)", "metadata": "b.gz, line 1,234 (cut off)"}


def test_sizes_differ_by_name() -> None:
    found = sizes(TABLE, 2, 2)
    assert found == PublishedCounts(users=2, items=2, train=2, valid=1, test=1)
    assert differences(found, found) == {}
    assert differences(found, found.model_copy(update={"test": 9})) == {"test": (1, 9)}
