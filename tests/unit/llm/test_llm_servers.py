"""Runs against a server that misbehaves: every row gets its profile, every call is counted, nothing is paid twice."""

import asyncio
import json
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from loopback_llm import DIGEST, MODEL, Behaviour, Call, LoopbackLLM, echo, hash_of, profile_json
from profile_shop import Shop, make_shop, ollama_config, openai_config

from recmodels.errors import InputError, PermanentFailure, TransientFailure
from recmodels.llm import runner
from recmodels.llm.base import BudgetReached
from recmodels.llm.cache import CallCache, Usage
from recmodels.llm.runner import Progress
from recmodels.profiles.config import ProfileConfig
from recmodels.profiles.inputs import ItemInputs, UserInputs
from recmodels.profiles.write import ProfileResult, write
from recmodels.validation import validated

CONFIGS = pytest.mark.parametrize("configure", [ollama_config, openai_config], ids=["ollama", "openai"])
Configure = Callable[..., ProfileConfig]


def assert_counts_add_up(result: ProfileResult, server: LoopbackLLM) -> None:
    stats = {name: value for name, value in result.stats.items() if isinstance(value, int)}
    assert stats["rows"] == stats["answered"] + stats["fallback"] + stats["empty"] == result.table.height
    assert stats["fallback"] == stats["invalid"] + stats["dead_letters"]
    assert stats["dead_letters"] == result.dead_letters.height
    assert stats["calls"] == sum(stats[name] for name in ("replies", "faults", "busy", "rejected", "cancelled"))
    assert stats["calls"] == len(server.calls)
    sources = result.table["source"].to_list()
    assert sources.count("fallback") == stats["fallback"]
    assert sources.count("none") == stats["empty"]
    assert all(profile for profile in result.table["profile"])


@CONFIGS
def test_every_row_is_asked_once_and_then_never_again(
    configure: Configure, shop: Shop, llm: LoopbackLLM, cache: Path
) -> None:
    result = shop.write_items(configure(llm), cache)
    assert_counts_add_up(result, llm)
    assert result.stats["replies"] == shop.items.height == len(llm.calls)
    assert result.table["profile"].n_unique() > 1
    again = shop.write_items(configure(llm), cache)
    assert again.table.equals(result.table)
    assert again.stats["from_cache"] == shop.items.height
    assert len(llm.calls) == shop.items.height


def test_the_ollama_request_is_the_documented_one(shop: Shop, llm: LoopbackLLM, cache: Path) -> None:
    shop.write_items(ollama_config(llm, prompt_tokens=800, answer_tokens=300, seed=7), cache)
    body = llm.calls[0].body
    assert body["stream"] is False
    assert body["format"]["required"] == ["summarization", "reasoning"]
    assert body["options"]["temperature"] == 0.0
    assert body["options"]["seed"] == 7
    assert body["options"]["num_predict"] == 300
    assert body["options"]["num_ctx"] >= 1100
    assert body["options"]["repeat_penalty"] == 1.1
    assert 0 < body["format"]["properties"]["summarization"]["maxLength"] < 4 * 300


def test_the_openai_request_is_the_documented_one(
    shop: Shop, llm: LoopbackLLM, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_API_KEY", "sesame")
    shop.write_items(openai_config(llm, answer_tokens=300, api_key_variable="SHOP_API_KEY"), cache)
    body = llm.calls[0].body
    assert body["max_tokens"] == 300
    assert body["response_format"]["type"] == "json_schema"
    schema = body["response_format"]["json_schema"]["schema"]
    assert schema["additionalProperties"] is False
    assert 0 < schema["properties"]["summarization"]["maxLength"] < 4 * 300
    assert body["frequency_penalty"] == 0.3
    assert llm.last_headers["authorization"] == "Bearer sesame"
    assert b"sesame" not in cache.read_bytes()


@CONFIGS
@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy"])
def test_a_proxy_of_the_environment_is_used(
    variable: str, configure: Configure, shop: Shop, llm: LoopbackLLM, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, llm.ollama)
    path = "/v1" if configure is openai_config else ""
    result = shop.write_items(configure(llm, server=f"http://models.invalid{path}"), cache)
    assert result.stats["replies"] == len(llm.calls) == shop.items.height
    assert llm.last_host == "models.invalid"


@pytest.mark.parametrize("name", ["DAGSTER_POSTGRES_PASSWORD", "AWS_SECRET_ACCESS_KEY", "API_KEY_FILE", ""])
def test_only_a_variable_that_is_named_like_a_key_is_sent(name: str) -> None:
    with pytest.raises(InputError, match="api_key_variable"):
        validated(ProfileConfig, {"backend": "openai", "model": MODEL, "api_key_variable": name}, "profile settings")


@CONFIGS
@pytest.mark.parametrize(
    "fault",
    [
        Behaviour(status=500),
        Behaviour(status=503),
        Behaviour(reset=True),
        Behaviour(body=b'{"message": {"role": "assistant", "content": "cut o'),
        Behaviour(body=b'{"message": {"role": "assistant", "content": "caf\xe9 \xff\xfe"}}'),
        Behaviour(body=b'{"unknown": "shape"}'),
        Behaviour(body=b"<html>a proxy's error page</html>"),
        Behaviour(status=429, headers={"Retry-After": "0.05"}),
        Behaviour(status=429),
    ],
    ids=["500", "503", "reset", "truncated", "not UTF-8", "shape", "HTML", "429 with Retry-After", "429"],
)
def test_a_passing_fault_costs_a_repetition_and_nothing_else(
    configure: Configure, fault: Behaviour, shop: Shop, llm: LoopbackLLM, cache: Path
) -> None:
    llm.behaviour = lambda call: fault if not call.repetition and call.user.count("1") else echo(call)
    result = shop.write_items(configure(llm), cache)
    assert_counts_add_up(result, llm)
    assert result.stats["answered"] == shop.items.height
    failed = sum(call.repetition == 0 and call.user.count("1") > 0 for call in llm.calls)
    assert failed > 0
    assert result.stats["busy" if fault.status == 429 else "faults"] == failed
    assert set(llm.count().values()) == {1}


@CONFIGS
def test_a_hanging_call_is_given_up_and_repeated(
    configure: Configure, shop: Shop, llm: LoopbackLLM, cache: Path
) -> None:
    llm.behaviour = lambda call: Behaviour(delay=60.0) if not call.repetition and "4" in call.user else echo(call)
    result = shop.write_items(configure(llm, timeout=0.3), cache)
    assert_counts_add_up(result, llm)
    assert result.stats["answered"] == shop.items.height
    assert result.stats["faults"] == sum(call.repetition == 0 and "4" in call.user for call in llm.calls)


def test_the_server_is_left_alone_for_as_long_as_it_asks(shop: Shop, llm: LoopbackLLM, cache: Path) -> None:
    arrivals: list[float] = []

    def behave(call: Call) -> Behaviour:
        arrivals.append(time.monotonic())
        return Behaviour(status=429, headers={"Retry-After": "1"}) if len(arrivals) == 1 else echo(call)

    llm.behaviour = behave
    shop.write_items(ollama_config(llm, in_flight=1), cache)
    assert arrivals[1] - arrivals[0] >= 1.0


def test_a_server_that_asks_for_more_patience_than_there_is_stops_the_run(
    shop: Shop, llm: LoopbackLLM, cache: Path
) -> None:
    llm.behaviour = lambda call: (
        Behaviour(status=429, headers={"Retry-After": "3600"}) if "7" in call.user else echo(call)
    )
    with pytest.raises(TransientFailure, match=r"profiles are safe in the cache; start the run again"):
        shop.write_items(ollama_config(llm), cache)
    paid = len(llm.answered)
    llm.behaviour = echo
    result = shop.write_items(ollama_config(llm), cache)
    assert result.stats["from_cache"] == paid
    assert set(llm.count().values()) == {1}


@CONFIGS
@pytest.mark.parametrize(
    "content",
    [
        "I would rather talk about something else.",
        '{"summarization": "For people who',
        json.dumps({"summary": "wrong", "why": "keys"}),
        profile_json(" ".join(hash_of(str(i)) for i in range(10_000))),
        profile_json(" ".join(hash_of(str(i)) for i in range(50_000))),
        "HACKED",
    ],
    ids=["prose", "truncated JSON", "wrong keys", "10,000 words", "more than is kept", "follows an injection"],
)
def test_an_unusable_answer_is_repaired_once(
    configure: Configure, content: str, shop: Shop, llm: LoopbackLLM, cache: Path
) -> None:
    llm.behaviour = lambda call: echo(call) if call.is_repair else Behaviour(content)
    result = shop.write_items(configure(llm), cache)
    assert_counts_add_up(result, llm)
    assert result.stats["answered"] == result.stats["repairs"] == shop.items.height
    assert len(llm.calls) == 2 * shop.items.height
    shop.write_items(configure(llm), cache)
    assert len(llm.calls) == 2 * shop.items.height


LOOP = profile_json("This card is a great gift for birthdays. " * 9)[:-60]
SAMPLED = pytest.mark.parametrize(
    ("configure", "sampling"),
    [(ollama_config, lambda call: call.body["options"]), (openai_config, lambda call: call.body)],
    ids=["ollama", "openai"],
)


@SAMPLED
@pytest.mark.parametrize(("temperature", "other"), [(0.0, 0.7), (0.6, 0.8)])
def test_an_answer_that_repeats_itself_is_asked_once_more_at_another_temperature(
    temperature: float,
    other: float,
    configure: Configure,
    sampling: Callable[[Call], dict[str, float]],
    shop: Shop,
    llm: LoopbackLLM,
    cache: Path,
) -> None:
    config = configure(llm, temperature=temperature)
    llm.behaviour = lambda call: Behaviour(LOOP) if sampling(call)["temperature"] == temperature else echo(call)
    result = shop.write_items(config, cache)
    assert_counts_add_up(result, llm)
    assert result.stats["answered"] == result.stats["resampled"] == shop.items.height
    assert result.stats["repairs"] == 0
    assert len(llm.calls) == 2 * shop.items.height
    assert {round(sampling(call)["temperature"], 6) for call in llm.calls} == {temperature, other}
    assert {len(call.messages) for call in llm.calls} == {2}, "the model was shown what it had repeated"
    again = shop.write_items(config, cache)
    assert again.table.equals(result.table)
    assert len(llm.calls) == 2 * shop.items.height


def test_an_answer_that_repeats_itself_twice_gives_the_counted_fallback(
    shop: Shop, llm: LoopbackLLM, cache: Path
) -> None:
    llm.behaviour = lambda call: Behaviour(LOOP) if "Spade number 5" in call.user else echo(call)
    result = shop.write_items(ollama_config(llm), cache)
    assert_counts_add_up(result, llm)
    assert result.unusable.rows() == [(5, "it repeats itself")]
    assert result.stats["resampled"] == 1


@CONFIGS
def test_an_answer_cut_by_the_limit_whose_profile_is_whole_costs_no_second_call(
    configure: Configure, shop: Shop, llm: LoopbackLLM, cache: Path
) -> None:
    llm.behaviour = lambda call: Behaviour(profile_json("For diggers.")[:-9])
    result = shop.write_items(configure(llm), cache)
    assert set(result.table["profile"]) == {"For diggers."}
    assert len(llm.calls) == shop.items.height


@SAMPLED
def test_sampling_settings_are_sent_over_the_defaults(
    configure: Configure, sampling: Callable[[Call], dict[str, float]], shop: Shop, llm: LoopbackLLM, cache: Path
) -> None:
    chosen = {"top_p": 0.9, "frequency_penalty": 0.6, "repeat_penalty": 1.3}
    shop.write_items(configure(llm, sampling=chosen), cache)
    assert chosen.items() <= sampling(llm.calls[0]).items()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"backend": "ollama", "sampling": {"num_predict": 9}}, "num_predict: what there is a setting for"),
        ({"backend": "transformers", "sampling": {"top_p": 0.9}}, "no_repeat_ngram_size.*not by top_p"),
        ({"backend": "ollama", "sampling": {"top_p": "high"}}, "sampling"),
    ],
)
def test_sampling_that_no_back_end_could_use_is_refused(settings: dict[str, object], told: str) -> None:
    with pytest.raises(InputError, match=told):
        validated(ProfileConfig, settings, "profile settings")


def test_a_service_that_refuses_bounds_is_asked_without_them(shop: Shop, llm: LoopbackLLM, cache: Path) -> None:
    refusal = Behaviour(status=400, body=b'{"error": "In context=(...), \'maxLength\' is not permitted."}')
    llm.behaviour = lambda call: refusal if "maxLength" in json.dumps(call.body) else echo(call)
    result = shop.write_items(openai_config(llm, in_flight=1), cache)
    assert result.stats["answered"] == shop.items.height
    assert sum("maxLength" in json.dumps(call.body) for call in llm.calls) == 1


@CONFIGS
def test_prose_around_the_json_needs_no_repair(configure: Configure, shop: Shop, llm: LoopbackLLM, cache: Path) -> None:
    llm.behaviour = lambda call: Behaviour(f"Of course!\n```json\n{profile_json('For diggers.')}\n```\nAnything else?")
    result = shop.write_items(configure(llm), cache)
    assert_counts_add_up(result, llm)
    assert set(result.table["profile"]) == {"For diggers."}
    assert result.stats["repairs"] == 0


def test_a_second_unusable_answer_gives_the_counted_fallback_and_is_not_paid_for_again(
    shop: Shop, llm: LoopbackLLM, cache: Path
) -> None:
    llm.behaviour = lambda call: Behaviour("HACKED") if "Spade number 5" in call.user else echo(call)
    result = shop.write_items(ollama_config(llm), cache)
    assert_counts_add_up(result, llm)
    assert result.stats["invalid"] == 1
    assert result.stats["fallback_share"] == pytest.approx(1 / shop.items.height)
    row = result.table.row(5, named=True)
    assert row["source"] == "fallback"
    assert row["profile"] == shop.write_items(ProfileConfig(), cache).table["profile"][5]
    calls = len(llm.calls)
    again = shop.write_items(ollama_config(llm), cache)
    assert again.table.equals(result.table)
    assert len(llm.calls) == calls


def test_fallbacks_are_asked_again_on_demand(shop: Shop, llm: LoopbackLLM, cache: Path) -> None:
    llm.behaviour = lambda call: Behaviour("HACKED") if "Spade number 5" in call.user else echo(call)
    shop.write_items(ollama_config(llm), cache)
    llm.behaviour, calls = echo, len(llm.calls)
    result = shop.write_items(ollama_config(llm, retry_fallbacks=True), cache)
    assert result.stats["answered"] == shop.items.height
    assert len(llm.calls) == calls + 1
    shop.write_items(ollama_config(llm), cache)
    assert len(llm.calls) == calls + 1


def test_a_prompt_that_always_fails_is_a_dead_letter_and_is_asked_again_by_the_next_run(
    shop: Shop, llm: LoopbackLLM, cache: Path
) -> None:
    llm.behaviour = lambda call: Behaviour(status=500) if "Spade number 5" in call.user else echo(call)
    result = shop.write_items(ollama_config(llm, max_attempts=3), cache)
    assert_counts_add_up(result, llm)
    assert result.dead_letters["id"].to_list() == [5]
    assert "500" in result.dead_letters["reason"][0]
    assert sum("Spade number 5" in call.user for call in llm.calls) == 3
    llm.behaviour = echo
    healed = shop.write_items(ollama_config(llm), cache)
    assert healed.stats["answered"] == shop.items.height
    assert set(llm.count().values()) == {1}


def test_a_prompt_that_the_server_refuses_is_not_repeated(shop: Shop, llm: LoopbackLLM, cache: Path) -> None:
    llm.behaviour = lambda call: (
        Behaviour(status=400, body=b'{"error": "context"}') if "number 5" in call.user else echo(call)
    )
    result = shop.write_items(ollama_config(llm), cache)
    assert_counts_add_up(result, llm)
    assert result.dead_letters["id"].to_list() == [5]
    assert sum("number 5" in call.user for call in llm.calls) == 1


def test_a_server_that_refuses_everything_stops_the_run(llm: LoopbackLLM, cache: Path) -> None:
    llm.behaviour = lambda call: Behaviour(status=400, body=b'{"error": "no response_format here"}')
    with pytest.raises(PermanentFailure, match="no response_format here"):
        make_shop(n_items=300).write_items(openai_config(llm), cache)
    assert len(llm.calls) < 100


def test_a_server_that_only_fails_stops_the_run(llm: LoopbackLLM, cache: Path) -> None:
    llm.behaviour = lambda call: Behaviour(status=500)
    with pytest.raises(TransientFailure, match="in a row failed"):
        make_shop(n_items=300).write_items(ollama_config(llm, max_attempts=2), cache)


@CONFIGS
def test_a_missing_model_is_named_with_what_there_is(
    configure: Configure, shop: Shop, llm: LoopbackLLM, cache: Path
) -> None:
    with pytest.raises(InputError, match=r"model 'llama9'.*found llama3\.1:8b"):
        shop.write_items(configure(llm, model="llama9"), cache)
    assert not llm.calls


def test_a_model_that_vanishes_during_the_run_stops_it(shop: Shop, llm: LoopbackLLM, cache: Path) -> None:
    def behave(call: Call) -> Behaviour:
        if len(llm.calls) == 10:
            llm.models = ()
        return echo(call)

    llm.behaviour = behave
    with pytest.raises(InputError, match="not found"):
        shop.write_items(ollama_config(llm, in_flight=2), cache)


@CONFIGS
def test_no_server_is_a_clear_resumable_error(configure: Configure, shop: Shop, llm: LoopbackLLM, cache: Path) -> None:
    llm.die()
    with pytest.raises(TransientFailure, match=r"cannot be asked.*Is it running"):
        shop.write_items(configure(llm), cache)


def test_a_full_cache_needs_no_server(shop: Shop, llm: LoopbackLLM, cache: Path) -> None:
    result = shop.write_items(ollama_config(llm), cache)
    llm.die()
    again = shop.write_items(ollama_config(llm), cache)
    assert again.table.equals(result.table)
    assert again.stats["server_reached"] == 0


@pytest.mark.parametrize("in_flight", [1, 16])
def test_an_outage_is_waited_for(in_flight: int, llm: LoopbackLLM, cache: Path) -> None:
    shop = make_shop(n_items=80)
    llm.latency = 0.01

    def behave(call: Call) -> Behaviour:
        if len(llm.calls) == 30:
            llm.outage(1.5)
        return echo(call)

    llm.behaviour = behave
    # Without the breaker six attempts at 10 ms backoff would be over long before the server is back.
    result = shop.write_items(ollama_config(llm, in_flight=in_flight, max_attempts=2), cache)
    assert result.stats["answered"] == 80
    assert result.stats["dead_letters"] == 0
    assert result.stats["outages"] == 1
    assert result.stats["faults"] <= in_flight + 1


def test_a_server_that_stays_away_stops_the_run_and_the_next_goes_on(llm: LoopbackLLM, cache: Path) -> None:
    shop = make_shop(n_items=80)
    llm.latency = 0.01

    def behave(call: Call) -> Behaviour:
        if len(llm.calls) == 40:
            threading.Thread(target=llm.die).start()
        return echo(call)

    llm.behaviour = behave
    with pytest.raises(TransientFailure, match=r"away for 0\.5 s.*profiles are safe in the cache; start the run again"):
        shop.write_items(ollama_config(llm, patience=0.5), cache)
    llm.behaviour = echo
    llm.listen()
    result = shop.write_items(ollama_config(llm), cache)
    assert int(result.stats["from_cache"]) >= 20
    assert result.stats["answered"] == 80


def test_calls_in_flight_are_bounded(shop: Shop, llm: LoopbackLLM, cache: Path) -> None:
    llm.latency = 0.02
    shop.write_items(ollama_config(llm, in_flight=7), cache)
    assert llm.most_in_flight == 7


def test_equal_prompts_are_asked_once(shop: Shop, llm: LoopbackLLM, cache: Path) -> None:
    twins = shop.items.with_columns(title=pl.lit("Spade"), description=pl.lit("The same for all."))
    result = Shop(twins, shop.reviews, shop.interactions, shop.n_users).write_items(ollama_config(llm), cache)
    assert len(llm.calls) == 1
    assert result.stats["answered"] == shop.items.height


def test_changed_reviews_of_one_item_ask_that_item_and_its_users_again(
    shop: Shop, llm: LoopbackLLM, cache: Path
) -> None:
    config = ollama_config(llm)
    items = shop.write_items(config, cache)
    shop.write_users(items.table, config, cache)
    train = shop.interactions.filter(pl.col("split") == "train")
    item = train.filter(pl.col("item_id") % 2 == 1)["item_id"][0]
    owners = set(train.filter(pl.col("item_id") == item)["user_id"])
    text = pl.when(pl.col("item_id") == item).then(pl.lit("I have changed my mind about it.")).otherwise("text")
    changed = Shop(shop.items, shop.reviews.with_columns(text=text), shop.interactions, shop.n_users)
    llm.calls.clear()
    new_items = changed.write_items(config, cache)
    assert [f"Spade number {item}" in call.user for call in llm.calls] == [True]
    assert new_items.table["profile"][item] != items.table["profile"][item]
    llm.calls.clear()
    new_users = changed.write_users(new_items.table, config, cache)
    assert new_users.stats["from_cache"] == shop.n_users - len(owners)
    assert len(llm.calls) == len(owners)
    assert all(f"Spade number {item}" in call.user for call in llm.calls)


@pytest.mark.parametrize(
    "change",
    [{"temperature": 0.5}, {"seed": 1}, {"answer_tokens": 400}, {"sampling": {"top_p": 0.9}}],
    ids=lambda change: next(iter(change)),
)
def test_another_setting_of_the_model_is_another_question(
    change: dict[str, float], shop: Shop, llm: LoopbackLLM, cache: Path
) -> None:
    shop.write_items(ollama_config(llm), cache)
    shop.write_items(ollama_config(llm, **change), cache)
    assert len(llm.calls) == 2 * shop.items.height


def test_another_digest_of_the_model_is_another_question(shop: Shop, llm: LoopbackLLM, cache: Path) -> None:
    assert shop.write_items(ollama_config(llm), cache).stats["model_digest"] == DIGEST
    llm.digest = "f" * 64
    shop.write_items(ollama_config(llm), cache)
    assert len(llm.calls) == 2 * shop.items.height


@pytest.mark.parametrize("change", [{"in_flight": 2}, {"timeout": 9.0}, {"max_attempts": 2}, {"patience": 3.0}])
def test_how_a_model_is_asked_is_not_part_of_the_question(
    change: dict[str, float], shop: Shop, llm: LoopbackLLM, cache: Path
) -> None:
    shop.write_items(ollama_config(llm), cache)
    shop.write_items(ollama_config(llm, **change), cache)
    assert len(llm.calls) == shop.items.height


@pytest.mark.parametrize("in_flight", [1, 8])
def test_a_token_budget_is_never_exceeded_and_the_next_run_goes_on(
    in_flight: int, shop: Shop, llm: LoopbackLLM, cache: Path
) -> None:
    config = ollama_config(llm, budget_tokens=3000, answer_tokens=100, in_flight=in_flight)
    with pytest.raises(BudgetReached, match="of 3000 tokens"):
        shop.write_items(config, cache)
    used = sum(sum(map(len, call.messages)) // 4 + 30 for call in llm.answered)
    assert 1500 < used <= 3000
    done = len(llm.answered)
    result = shop.write_items(ollama_config(llm, answer_tokens=100), cache)
    assert result.stats["from_cache"] == done
    assert set(llm.count().values()) == {1}


def test_a_cost_budget_counts_prompt_and_answer_prices(shop: Shop, llm: LoopbackLLM, cache: Path) -> None:
    prices = {"price_per_million_prompt_tokens": 10.0, "price_per_million_answer_tokens": 40.0, "answer_tokens": 100}
    with pytest.raises(BudgetReached, match=r"of 0\.03"):
        shop.write_items(ollama_config(llm, budget_cost=0.03, **prices), cache)
    result = shop.write_items(ollama_config(llm, **prices), cache)
    tokens = result.stats["prompt_tokens"], result.stats["answer_tokens"]
    assert result.stats["cost"] == pytest.approx((10.0 * float(tokens[0]) + 40.0 * float(tokens[1])) / 1e6)


def test_without_prices_there_is_no_cost(shop: Shop, llm: LoopbackLLM, cache: Path) -> None:
    assert "cost" not in shop.write_items(ollama_config(llm), cache).stats


def test_a_budget_in_money_needs_prices() -> None:
    with pytest.raises(InputError, match="price per million"):
        validated(ProfileConfig, {"backend": "ollama", "budget_cost": 1.0}, "profile settings")


def test_progress_ends_with_everything_done(shop: Shop, llm: LoopbackLLM, cache: Path) -> None:
    seen: list[Progress] = []
    llm.latency = 0.05
    write(shop.item_task(ollama_config(llm, in_flight=1)), cache, progress=seen.append)
    assert [seen[0].done, seen[-1].done, seen[-1].total] == [0, shop.items.height, shop.items.height]
    assert seen[-1].seconds_left == 0
    middle = seen[len(seen) // 2]
    assert middle.seconds_left is None or middle.seconds_left > 0


def test_a_heartbeat_that_fails_stops_the_run_visibly_and_keeps_what_is_paid(
    llm: LoopbackLLM, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop, beat = make_shop(n_items=200), CallCache.heartbeat

    def locked(self: CallCache, usage: Usage) -> None:
        if usage.calls:
            raise sqlite3.OperationalError("database is locked")
        beat(self, usage)

    llm.latency = 0.02
    monkeypatch.setattr(CallCache, "heartbeat", locked)
    monkeypatch.setattr(runner, "HEARTBEAT_SECONDS", 0.05)
    monkeypatch.setattr(runner, "_TICK_SECONDS", 0.05)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        shop.write_items(ollama_config(llm, in_flight=2), cache)
    paid = len(llm.answered)
    assert 0 < paid < 200
    monkeypatch.undo()
    assert shop.write_items(ollama_config(llm), cache).stats["from_cache"] == paid
    assert set(llm.count().values()) == {1}


def test_a_progress_callback_that_fails_stops_the_run_visibly(shop: Shop, llm: LoopbackLLM, cache: Path) -> None:
    def fail(_: Progress) -> None:
        raise ZeroDivisionError("in the callback")

    with pytest.raises(ZeroDivisionError, match="in the callback"):
        write(shop.item_task(ollama_config(llm, in_flight=1)), cache, progress=fail)
    assert len(llm.calls) < shop.items.height


async def _in_a_notebook(shop: Shop, config: ProfileConfig, cache: Path) -> ProfileResult:
    return shop.write_items(config, cache)


def test_it_works_inside_a_running_event_loop(shop: Shop, llm: LoopbackLLM, cache: Path) -> None:
    result = asyncio.run(_in_a_notebook(shop, ollama_config(llm), cache))
    assert result.stats["answered"] == shop.items.height


def test_user_profiles_label_a_run_that_read_held_out_rows(shop: Shop, llm: LoopbackLLM, cache: Path) -> None:
    items = shop.write_items(ProfileConfig(item_reviews="never"), cache).table
    llm.behaviour = lambda call: Behaviour("no") if "User 3 " in call.user else echo(call)
    result = shop.write_users(items, ollama_config(llm, include_held_out=True), cache)
    assert set(result.table["source"]) == {"ollama+held_out", "fallback+held_out"}
    assert result.stats["held_out_included"] == "yes"
    assert result.stats["fallback"] == 1


def test_a_file_that_is_no_cache_is_named(shop: Shop, llm: LoopbackLLM, tmp_path: Path) -> None:
    path = tmp_path / "profiles.sqlite"
    path.write_text("This is not a database, but it is long enough to look like one. " * 20)
    with pytest.raises(InputError, match=r"profiles\.sqlite"):
        shop.write_items(ollama_config(llm), path)


def test_an_explanation_shows_what_the_model_was_asked(shop: Shop, llm: LoopbackLLM, cache: Path) -> None:
    config = ollama_config(llm, in_flight=1)
    items = shop.write_items(config, cache)
    task = shop.item_task(config)
    asked = task.prompt(5)
    assert asked
    assert (asked.system, asked.user) == llm.calls[5].messages
    shown = task.explain(5).inputs
    assert isinstance(shown, ItemInputs)
    assert asked.user.count("Verdict") == len(shown.reviews) > 0
    llm.calls.clear()
    shop.write_users(items.table, config, cache)
    of_users = shop.user_task(items.table, config)
    asked = of_users.prompt(3)
    assert asked
    assert (asked.system, asked.user) == llm.calls[3].messages
    history = of_users.explain(3).inputs
    assert isinstance(history, UserInputs)
    assert [entry.title for entry in history.history]
