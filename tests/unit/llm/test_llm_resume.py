"""Runs that are killed, interrupted or doubled: no finished call is repeated, no row is half written."""

import json
import os
import signal
import sqlite3
import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from loopback_llm import DIGEST, MODEL, LoopbackLLM
from profile_shop import make_shop, ollama_config

from recmodels.llm.base import Prompt
from recmodels.llm.cache import ModelIdentity, key_function
from recmodels.llm.ollama import OllamaServer
from recmodels.profiles.answers import ProfileAnswer, parse_answer, profile_answers
from recmodels.profiles.config import ProfileConfig

# Children are forked from a clean process that has the modules loaded: starting twenty of them takes a second or two.
_PROCESSES = get_context("forkserver")
_PROCESSES.set_forkserver_preload(["profile_shop", "recmodels.llm.ollama"])


def write(n_items: int, config: ProfileConfig, cache: Path, output: Path) -> None:
    """Write the item profiles of a shop, and leave table and stats behind."""
    # Tests that were started in the background of a shell have inherited that interrupts are ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    result = make_shop(n_items).write_items(config, cache)
    result.table.write_parquet(output)
    output.with_suffix(".json").write_text(json.dumps(result.stats))


def start(n_items: int, config: ProfileConfig, cache: Path, output: Path) -> BaseProcess:
    process = _PROCESSES.Process(target=write, args=(n_items, config, cache, output))
    process.start()
    return process


def answers(cache: Path) -> dict[bytes, str]:
    if not cache.exists():
        return {}
    with sqlite3.connect(cache) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        return dict(connection.execute("SELECT key, answer FROM answers")) if "answers" in tables else {}


def claims(cache: Path) -> int:
    with sqlite3.connect(cache) as connection:
        return connection.execute("SELECT count(*) FROM claims").fetchone()[0]


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30.0
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.slow
def test_twenty_kills_at_random_moments_repeat_no_finished_call(llm: LoopbackLLM, cache: Path, tmp_path: Path) -> None:
    n_items, in_flight = 800, 4
    llm.latency = 0.02
    config = ollama_config(llm, in_flight=in_flight)
    parameters = OllamaServer(config, profile_answers(ProfileConfig())).parameters
    key = key_function(
        ModelIdentity("ollama", MODEL, llm.ollama, DIGEST), profile_answers(ProfileConfig()).version, parameters
    )
    moments = np.random.default_rng(0)
    kept: dict[bytes, str] = {}
    for kill in range(20):
        before, kept_before = len(llm.calls), kept
        process = start(n_items, config, cache, tmp_path / "killed.parquet")
        if kill % 5:
            # Four of five while calls are made, however slowly this machine starts a process; the fifth before.
            wait_until(lambda: len(llm.calls) > before)  # noqa: B023
        time.sleep(moments.uniform(0.0, 0.2))
        process.kill()
        process.join()
        kept = answers(cache)
        assert kept_before.items() <= kept.items()
        assert all(isinstance(parse_answer(text), ProfileAnswer) for text in kept.values())
        asked = [key(Prompt(*call.messages)) for call in llm.calls[before:]]
        assert kept.keys() - kept_before.keys() <= set(asked)
        assert not kept_before.keys() & set(asked)
        assert len(asked) <= len(kept) - len(kept_before) + in_flight
    assert 0 < len(kept) < n_items
    start(n_items, config, cache, tmp_path / "resumed.parquet").join()
    stats = json.loads((tmp_path / "resumed.json").read_text())
    assert stats["from_cache"] == len(kept)
    assert stats["answered"] == n_items
    assert claims(cache) == 0
    uninterrupted = make_shop(n_items).write_items(ollama_config(llm), tmp_path / "fresh.sqlite")
    assert pl.read_parquet(tmp_path / "resumed.parquet").equals(uninterrupted.table)


def test_two_runs_that_share_a_cache_pay_once(llm: LoopbackLLM, cache: Path, tmp_path: Path) -> None:
    llm.latency = 0.02
    config = ollama_config(llm, in_flight=8)
    outputs = [tmp_path / "one.parquet", tmp_path / "two.parquet"]
    runs = [start(200, config, cache, output) for output in outputs]
    for run in runs:
        run.join()
    assert len(llm.calls) == 200
    assert set(llm.count().values()) == {1}
    first, second = map(pl.read_parquet, outputs)
    assert first.equals(second)
    stats = [json.loads(output.with_suffix(".json").read_text()) for output in outputs]
    assert sum(entry["replies"] for entry in stats) == 200
    assert all(entry["answered"] == 200 for entry in stats)
    assert all(entry["replies"] for entry in stats), "one of the runs did all the work"


def test_the_claims_of_a_killed_run_fall_to_a_live_one_at_once(llm: LoopbackLLM, cache: Path, tmp_path: Path) -> None:
    llm.latency = 3600.0
    doomed = start(30, ollama_config(llm, in_flight=8), cache, tmp_path / "doomed.parquet")
    wait_until(lambda: len(llm.calls) == 8)
    llm.latency = 0.0
    heir = start(30, ollama_config(llm, in_flight=8), cache, tmp_path / "heir.parquet")
    wait_until(lambda: len(answers(cache)) == 22)
    assert heir.is_alive()
    doomed.kill()
    heir.join(20.0)
    assert heir.exitcode == 0
    assert pl.read_parquet(tmp_path / "heir.parquet").height == 30
    assert set(llm.count().values()) == {1}


def test_an_interrupt_keeps_what_is_finished_and_leaves_no_claim(llm: LoopbackLLM, cache: Path, tmp_path: Path) -> None:
    llm.latency = 0.02
    run = start(2000, ollama_config(llm, in_flight=8), cache, tmp_path / "interrupted.parquet")
    wait_until(lambda: len(llm.answered) >= 40)
    assert run.pid
    os.kill(run.pid, signal.SIGINT)
    run.join(20.0)
    assert run.exitcode == 1
    assert claims(cache) == 0
    assert 40 - 8 <= len(answers(cache)) < 2000
