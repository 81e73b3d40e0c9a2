"""The dry run: it tells what a run will do, and does nothing."""

from pathlib import Path

import polars as pl
import pytest
from loopback_llm import Behaviour, LoopbackLLM, echo
from profile_shop import Shop, ollama_config

from recmodels.profiles import write
from recmodels.profiles.config import ProfileConfig
from recmodels.profiles.write import Estimate


def estimate(shop: Shop, config: ProfileConfig, cache: Path) -> Estimate:
    return write.estimate(shop.item_task(config), cache)


def test_it_calls_nothing_and_writes_nothing(shop: Shop, llm: LoopbackLLM, cache: Path) -> None:
    config = ollama_config(llm)
    llm.die()
    result = estimate(shop, config, cache)
    assert (result.rows, result.cached, result.calls) == (24, 0, 24)
    assert result.seconds is None
    assert result.answer_tokens == 24 * config.answer_tokens
    assert not cache.exists()


def test_it_counts_what_the_cache_has(shop: Shop, llm: LoopbackLLM, cache: Path) -> None:
    first_half = Shop(shop.items.head(12), shop.reviews, shop.interactions.filter(pl.col("item_id") < 12), 12)
    first_half.write_items(ollama_config(llm, item_reviews="never"), cache)
    result = estimate(shop, ollama_config(llm, item_reviews="never"), cache)
    assert (result.cached, result.calls) == (12, 12)


def test_a_measured_run_makes_the_estimate_come_true(shop: Shop, llm: LoopbackLLM, cache: Path) -> None:
    llm.latency = 0.05
    prices = {"price_per_million_prompt_tokens": 100.0, "price_per_million_answer_tokens": 300.0}
    half = Shop(shop.items.head(12), shop.reviews, shop.interactions.filter(pl.col("item_id") < 12), 12)
    config = ollama_config(llm, item_reviews="never", in_flight=2, **prices)
    half.write_items(config, cache)
    expected = estimate(shop, config, cache)
    actual = shop.write_items(config, cache).stats
    assert expected.calls == actual["calls"] == 12
    assert expected.prompt_tokens == pytest.approx(float(actual["prompt_tokens"]), rel=0.1)
    assert expected.answer_tokens == pytest.approx(float(actual["answer_tokens"]), rel=0.1)
    assert expected.cost == pytest.approx(float(actual["cost"]), rel=0.1)
    assert expected.seconds is not None
    assert expected.seconds > 12 * 0.05 / 2


def test_it_says_whether_the_budget_would_last(shop: Shop, llm: LoopbackLLM, cache: Path) -> None:
    assert estimate(shop, ollama_config(llm, budget_tokens=10_000_000), cache).within_budget
    assert not estimate(shop, ollama_config(llm, budget_tokens=1000), cache).within_budget


def test_asking_fallbacks_again_is_counted_and_forgets_nothing(shop: Shop, llm: LoopbackLLM, cache: Path) -> None:
    llm.behaviour = lambda call: Behaviour("no") if "Spade number 5" in call.user else echo(call)
    shop.write_items(ollama_config(llm), cache)
    assert estimate(shop, ollama_config(llm, retry_fallbacks=True), cache).calls == 1
    assert shop.write_items(ollama_config(llm), cache).stats["calls"] == 0


@pytest.mark.parametrize("known", [True, False], ids=["item profiles", "none yet"])
def test_users_can_be_estimated_before_the_items_have_profiles(
    known: bool, shop: Shop, llm: LoopbackLLM, cache: Path
) -> None:
    profiles = shop.write_items(ProfileConfig(), cache).table if known else None
    result = write.estimate(shop.user_task(profiles, ollama_config(llm)), cache)
    assert (result.rows, result.calls) == (12, 12)
    assert result.prompt_tokens > 12 * 200


def test_the_extractive_summariser_costs_nothing(shop: Shop, cache: Path) -> None:
    assert estimate(shop, ProfileConfig(), cache) == Estimate(24, 0, 0, 0, 0, 0, 0.0, 0.0, True)
