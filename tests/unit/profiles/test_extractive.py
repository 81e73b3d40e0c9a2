"""The summariser without a language model: faithful, short, the same every time."""

from itertools import islice, product
from pathlib import Path

import polars as pl
from hypothesis import given
from hypothesis import strategies as st
from profile_shop import Shop

from recmodels.profiles.config import ProfileConfig
from recmodels.profiles.extractive import extract_item_profile, extract_user_profile
from recmodels.profiles.inputs import HistoryEntry, ItemInputs, UserInputs

TEXT = st.text(max_size=400)
ITEMS = st.builds(
    ItemInputs,
    st.just(0),
    TEXT,
    TEXT,
    TEXT,
    st.lists(TEXT, max_size=4).map(tuple),
    st.lists(TEXT, max_size=6).map(tuple),
)
USERS = st.builds(UserInputs, st.just(0), st.lists(st.builds(HistoryEntry, TEXT, TEXT, TEXT), max_size=6).map(tuple))


@given(ITEMS)
def test_an_item_profile_has_at_most_200_words(inputs: ItemInputs) -> None:
    assert len(extract_item_profile(inputs).split()) <= 200


@given(USERS)
def test_a_user_profile_has_at_most_200_words(inputs: UserInputs) -> None:
    assert len(extract_user_profile(inputs).split()) <= 200


def test_long_inputs_are_cut_to_200_words_of_whole_sentences() -> None:
    sentences = [f"The spade digs hole {i} in heavy soil quickly." for i in range(100)]
    profile = extract_item_profile(ItemInputs(0, "Spade", " ".join(sentences), "", (), ()))
    assert 150 <= len(profile.split()) <= 200
    assert all(
        part.strip() in " ".join(sentences) for part in profile.removeprefix("Spade.").split(".") if part.strip()
    )


def test_telling_sentences_are_preferred_to_idle_ones() -> None:
    words = iter("".join(letters) for letters in product("bdfgklmn", "aeiou", "bdfgklmn", "aeiou"))
    idle = [" ".join(islice(words, 9)) + "." for _ in range(30)]
    telling = "The ash handle makes this spade light, and the spade has a forged ash handle."
    profile = extract_item_profile(ItemInputs(0, "", " ".join([*idle[:15], telling, *idle[15:]]), "", (), ()))
    assert telling in profile


def test_recurring_words_of_the_history_come_first() -> None:
    history = [HistoryEntry(f"Copper kettle {i}", "A kettle of hammered copper.", "") for i in range(3)]
    history.append(HistoryEntry("Tin whistle", "A whistle.", ""))
    profile = extract_user_profile(UserInputs(0, tuple(history)))
    assert profile.startswith("Interests: copper, kettle")
    assert "Tin whistle" in profile
    assert "whistle" not in profile.split(".")[0]


def test_a_profile_is_a_function_of_the_inputs(shop: Shop, cache: Path) -> None:
    first = shop.write_items(ProfileConfig(), cache)
    again = shop.write_items(ProfileConfig(), cache)
    assert first.table.equals(again.table)
    assert set(first.table["source"]) == {"extractive"}
    assert not cache.exists()


def test_items_without_text_are_counted_and_left_empty(shop: Shop, cache: Path) -> None:
    blank = pl.when(pl.col("item_id") < 3).then(pl.lit(""))
    bare = shop.items.with_columns(
        *(blank.otherwise(name).alias(name) for name in ("title", "description", "brand")),
        pl.when(pl.col("item_id") < 3).then(pl.lit([], pl.List(pl.String))).otherwise("categories").alias("categories"),
    )
    result = Shop(bare, shop.reviews.clear(), shop.interactions, shop.n_users).write_items(ProfileConfig(), cache)
    assert result.stats["empty"] == 3
    assert result.table["profile"][:3].to_list() == ["", "", ""]
    assert result.table["source"][:4].to_list() == ["none", "none", "none", "extractive"]
    assert result.table["item_id"].to_list() == list(range(shop.items.height))
