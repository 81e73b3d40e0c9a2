"""What goes into a prompt: training rows only, within the token budget, the most recent first."""

import json
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from profile_shop import DOMAIN, Shop, make_shop

from recmodels.llm.base import estimate_tokens
from recmodels.profiles.config import ProfileConfig
from recmodels.profiles.extractive import extract_item_profile, extract_user_profile
from recmodels.profiles.inputs import ItemSource, UserSource, training_rows, trim
from recmodels.profiles.prompts import item_prompt, user_prompt
from recmodels.raw.formats.metadata import read_metadata
from recmodels.schemas.tables import ITEM_PROFILES, REVIEWS

ALWAYS = ProfileConfig(item_reviews="always")


def item_profiles(shop: Shop) -> pl.DataFrame:
    n = shop.items.height
    rows = {"item_id": range(n), "profile": [f"Profile of spade {i}." for i in range(n)], "source": ["extractive"] * n}
    return pl.DataFrame(rows, schema=ITEM_PROFILES)


def all_prompts(shop: Shop, config: ProfileConfig) -> list[str]:
    items = ItemSource(shop.items, shop.reviews, shop.interactions, config)
    users = UserSource(
        *(shop.items, item_profiles(shop), shop.reviews, shop.interactions), n_users=shop.n_users, config=config
    )
    prompts = [item_prompt(inputs, DOMAIN) for inputs in items] + [user_prompt(inputs, DOMAIN) for inputs in users]
    return [prompt.system + prompt.user for prompt in prompts]


def with_held_out(shop: Shop, change: str) -> Shop:
    """The shop with its validation and test rows permuted, deleted or rewritten."""
    held_out = pl.col("split") != "train"
    if change == "deleted":
        interactions = shop.interactions.filter(~held_out)
        return Shop(shop.items, shop.reviews, interactions, shop.n_users)
    if change == "deleted with their reviews":
        interactions = shop.interactions.filter(~held_out)
        reviews = shop.reviews.join(interactions, on=["user_id", "item_id"], how="semi")
        return Shop(shop.items, reviews, interactions, shop.n_users)
    marked = shop.reviews.join(shop.interactions.select("user_id", "item_id", "split"), on=["user_id", "item_id"])
    if change == "rewritten":
        reviews = marked.with_columns(
            text=pl.when(held_out).then(pl.lit("Something else entirely")).otherwise("text"),
            timestamp=pl.when(held_out).then(pl.lit(9_999_999, pl.Int64)).otherwise("timestamp"),
        )
        return Shop(shop.items, reviews.select(REVIEWS.names()), shop.interactions, shop.n_users)
    kept = shop.interactions.filter(~held_out)
    others = shop.interactions.filter(held_out)
    permuted = others.with_columns(pl.Series("split", others["split"].reverse()), pl.col("timestamp").reverse())
    return Shop(shop.items, shop.reviews.sample(fraction=1.0, shuffle=True, seed=3), pl.concat([permuted, kept]), 12)


@pytest.mark.parametrize("change", ["permuted", "deleted", "deleted with their reviews", "rewritten"])
@pytest.mark.parametrize("config", [ProfileConfig(), ALWAYS], ids=["paper", "always"])
def test_prompts_do_not_change_by_a_byte_when_held_out_rows_do(shop: Shop, change: str, config: ProfileConfig) -> None:
    assert all_prompts(with_held_out(shop, change), config) == all_prompts(shop, config)


def test_no_word_of_a_held_out_review_stands_in_a_prompt(shop: Shop) -> None:
    text = "".join(all_prompts(shop, ALWAYS))
    assert "train handle" in text
    assert "valid handle" not in text
    assert "test handle" not in text


def test_the_leaky_habit_needs_its_flag_and_shows_in_the_source(shop: Shop) -> None:
    leaky = ProfileConfig(item_reviews="always", include_held_out=True)
    assert "test handle" in "".join(all_prompts(shop, leaky))
    assert leaky.source == "extractive+held_out"


def test_training_rows_keep_a_review_only_with_its_training_interaction(shop: Shop) -> None:
    reviews, interactions = training_rows(shop.reviews, shop.interactions)
    assert set(interactions["split"]) == {"train"}
    assert set(reviews.select("user_id", "item_id").iter_rows()) == set(
        interactions.select("user_id", "item_id").iter_rows()
    )


def test_an_item_shows_reviews_only_without_a_description(shop: Shop) -> None:
    source = ItemSource(shop.items, shop.reviews, shop.interactions, ProfileConfig())
    assert source[0].description
    assert not source[0].reviews
    assert not source[5].description
    assert source[5].reviews


def test_reviews_and_history_come_most_recent_first(shop: Shop) -> None:
    _, train = training_rows(shop.reviews, shop.interactions)
    item = ItemSource(shop.items, shop.reviews, shop.interactions, ALWAYS)[0]
    expected = train.filter(pl.col("item_id") == 0).sort("timestamp", descending=True)["user_id"].to_list()
    assert [int(review.split("User ")[1].split()[0]) for review in item.reviews] == expected
    user = UserSource(
        *(shop.items, item_profiles(shop), shop.reviews, shop.interactions), n_users=12, config=ProfileConfig()
    )[3]
    expected = train.filter(pl.col("user_id") == 3).sort("timestamp", descending=True)["item_id"].to_list()
    assert [int(entry.title.split()[-1]) for entry in user.history] == expected
    assert all(f"spade {item}" in entry.review for item, entry in zip(expected, user.history, strict=True))


def test_a_user_without_reviews_is_described_by_titles_and_profiles(shop: Shop) -> None:
    history = UserSource(
        *(shop.items, item_profiles(shop), shop.reviews.clear(), shop.interactions), n_users=12, config=ProfileConfig()
    )[0].history
    assert len(history) == 4
    assert all(entry.title and entry.profile and not entry.review for entry in history)


def test_the_oldest_reviews_go_first_when_the_budget_is_short() -> None:
    shop = make_shop(n_items=4, n_users=40)
    long = ItemSource(shop.items, shop.reviews, shop.interactions, ALWAYS)[1]
    short = ItemSource(shop.items, shop.reviews, shop.interactions, ALWAYS.model_copy(update={"prompt_tokens": 80}))[1]
    assert 0 < len(short.reviews) < len(long.reviews)
    assert short.reviews == long.reviews[: len(short.reviews)]


@pytest.mark.parametrize("tokens", [32, 100, 500])
def test_inputs_stay_within_the_token_budget(tokens: int) -> None:
    shop = make_shop(n_items=4, n_users=40)
    wordy = shop.items.with_columns(description=pl.lit("Long winded prose about a spade. " * 300))
    config = ProfileConfig(item_reviews="always", prompt_tokens=tokens)
    for inputs in ItemSource(wordy, shop.reviews, shop.interactions, config):
        parts = (inputs.title, inputs.brand, *inputs.categories, inputs.description, *inputs.reviews)
        assert sum(map(estimate_tokens, parts)) <= tokens + len(parts)


def test_an_item_without_any_text_is_empty(shop: Shop) -> None:
    bare = shop.items.with_columns(title=pl.lit(""), brand=pl.lit(""), description=pl.lit(""), categories=pl.lit([]))
    bare = bare.with_columns(pl.col("categories").cast(pl.List(pl.String)))
    source = ItemSource(bare, shop.reviews.clear(), shop.interactions, ProfileConfig())
    assert all(inputs.empty for inputs in source)


@given(st.text(), st.integers(1, 40))
def test_trimming_keeps_a_beginning_within_the_bound(text: str, tokens: int) -> None:
    cut = trim(text, tokens)
    assert text.startswith(cut)
    assert estimate_tokens(cut) <= tokens
    assert cut == text or estimate_tokens(text) > tokens


def test_an_item_with_a_tag_for_a_title_is_told_by_its_description(tmp_path: Path, shop: Shop) -> None:
    tag = '<span class="a-size-medium a-color-secondary"'
    records = [
        {"asin": asin, "title": tag, "brand": tag, "description": ["<p>A forged spade. Digs well.</p>"]}
        for asin in shop.items["asin"]
    ]
    path = tmp_path / "meta.json"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    read = read_metadata(path, "amazon2018", set(shop.items["asin"])).table
    items = shop.items.select("item_id", "asin").join(read, on="asin", how="left", maintain_order="left")
    source = ItemSource(items, shop.reviews, shop.interactions, ProfileConfig())
    profiles = [extract_item_profile(inputs) for inputs in source]
    assert set(profiles) == {"A forged spade. Digs well."}
    item_table = pl.DataFrame({"item_id": items["item_id"], "profile": profiles})
    users = UserSource(
        *(items, item_table, shop.reviews, shop.interactions), n_users=shop.n_users, config=ProfileConfig()
    )
    written = [extract_user_profile(inputs) for inputs in users]
    prompts = [item_prompt(inputs, DOMAIN).user for inputs in source]
    prompts += [user_prompt(inputs, DOMAIN).user for inputs in users]
    assert all(written)
    assert not any(word in text for text in [*written, *prompts] for word in ("span", "a-size", "<"))
