"""What items are called where people read of them."""

import polars as pl
import pytest

from recmodels.data.titles import shown_titles


@pytest.mark.parametrize(
    ("title", "description", "shown"),
    [
        ("A drum", "Loud.", "A drum"),
        ("", "Loud and round.", "Loud and round."),
        (None, " Loud  and\tround ", "Loud  and\tround"),
        (
            "",
            "one two three four five six seven eight nine ten eleven",
            "one two three four five six seven eight nine ten…",
        ),
        ('">', "Loud.", "Loud."),
        ("", "...", "B1"),
        ("", None, "B1"),
        (None, "", "B1"),
        ("טיונר", "Loud.", "טיונר"),
        ("", "x" * 1000, "x" * 80 + "…"),
    ],
)
def test_a_title_is_shown_or_the_first_words_or_the_asin(
    title: str | None, description: str | None, shown: str
) -> None:
    items = pl.DataFrame(
        {"asin": ["B1"], "title": [title], "description": [description]}, schema=dict.fromkeys(COLUMNS, pl.String)
    )
    assert shown_titles(items).to_list() == [shown]


COLUMNS = ("asin", "title", "description")


def test_titles_do_without_descriptions_and_keep_the_order_of_the_items() -> None:
    items = pl.DataFrame({"asin": ["B2", "B1", "B2"], "title": ["", "first", "again"]})
    assert shown_titles(items).to_list() == ["B2", "first", "again"]
    assert shown_titles(items.clear()).to_list() == []
