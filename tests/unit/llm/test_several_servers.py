"""Several servers of one model: they share the calls, one that goes away costs nothing, and weights must agree."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback_llm import Behaviour, Call, LoopbackLLM, echo
from profile_shop import Shop, ollama_config, openai_config

from recmodels.errors import InputError
from recmodels.profiles.config import ProfileConfig
from recmodels.profiles.write import ProfileResult


@pytest.fixture
def other() -> Iterator[LoopbackLLM]:
    with LoopbackLLM(latency=0.02) as server:
        yield server


def _both(llm: LoopbackLLM, other: LoopbackLLM, **settings: object) -> ProfileConfig:
    return ollama_config(llm, server=f"{llm.ollama}, {other.ollama}", **settings)


def _alone(shop: Shop, llm: LoopbackLLM, folder: Path) -> ProfileResult:
    return shop.write_items(ollama_config(llm), folder / "alone.sqlite")


def test_the_calls_are_shared_and_the_profiles_are_those_of_one(
    shop: Shop, llm: LoopbackLLM, other: LoopbackLLM, cache: Path, tmp_path: Path
) -> None:
    llm.latency = 0.02
    result = shop.write_items(_both(llm, other, in_flight=2), cache)
    assert min(len(llm.calls), len(other.calls)) > shop.items.height / 4
    assert len(llm.calls) + len(other.calls) == result.stats["replies"] == shop.items.height
    assert max(llm.most_in_flight, other.most_in_flight) <= 2
    assert _alone(shop, llm, tmp_path).table.equals(result.table)


def test_the_servers_of_the_environment_share_them_too(
    shop: Shop, llm: LoopbackLLM, other: LoopbackLLM, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", f"{llm.openai} {other.openai}")
    shop.write_items(openai_config(llm, server=""), cache)
    assert llm.calls
    assert other.calls
    assert len(llm.calls) + len(other.calls) == shop.items.height


@pytest.mark.parametrize("fault", [Behaviour(reset=True), Behaviour(status=429, headers={"Retry-After": "30"})])
def test_a_server_that_goes_away_or_is_busy_leaves_its_calls_to_the_other(
    fault: Behaviour, shop: Shop, llm: LoopbackLLM, other: LoopbackLLM, cache: Path, tmp_path: Path
) -> None:
    def stops(call: Call) -> Behaviour:
        return echo(call) if len(other.calls) <= 2 else fault

    other.behaviour = stops
    llm.latency = 0.02
    result = shop.write_items(_both(llm, other, in_flight=1), cache)
    assert len(other.calls) == 3
    assert result.stats["answered"] == shop.items.height == result.stats["calls"]
    assert result.stats["outages"] == result.stats["faults"] == result.stats["busy"] == 0
    assert _alone(shop, llm, tmp_path).table.equals(result.table)


def test_other_weights_under_the_same_name_are_refused_before_anything_is_asked(
    shop: Shop, llm: LoopbackLLM, other: LoopbackLLM, cache: Path
) -> None:
    other.digest = "f" * 64
    with pytest.raises(InputError, match=other.ollama):
        shop.write_items(_both(llm, other), cache)
    assert not llm.calls + other.calls
