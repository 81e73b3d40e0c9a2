"""The cache of calls: keys separate what differs, claims belong to live runs only."""

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recmodels.llm import cache as cache_module
from recmodels.llm.backend import Reply
from recmodels.llm.cache import CallCache, ModelIdentity, Usage, key_function
from recmodels.profiles.prompts import Prompt

MODEL = ModelIdentity("ollama", "llama", "http://a", "digest")
KEYS = [bytes([i]) * 32 for i in range(4)]
PROMPTS = st.builds(Prompt, st.text(), st.text(), st.none() | st.tuples(st.text(), st.text()))


@given(PROMPTS, PROMPTS)
def test_different_prompts_have_different_keys(first: Prompt, second: Prompt) -> None:
    key = key_function(MODEL, {})
    assert (key(first) == key(second)) == (first == second)


def test_everything_that_makes_an_answer_is_in_its_key() -> None:
    prompt = Prompt("system", "user")
    others = [
        (ModelIdentity("openai", "llama", "http://a", "digest"), {}),
        (ModelIdentity("ollama", "llama", "http://a", "other"), {}),
        (MODEL, {"temperature": 1.0}),
    ]
    keys = {key_function(identity, parameters)(prompt) for identity, parameters in [(MODEL, {}), *others]}
    assert len(keys) == 4
    moved = ModelIdentity("ollama", "llama-renamed", "http://b", "digest")
    assert key_function(moved, {})(prompt) == key_function(MODEL, {})(prompt)


def test_a_claim_keeps_other_runs_out_until_the_answer_is_there(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite"
    with CallCache(path) as one, CallCache(path) as two, one.run(MODEL), two.run(MODEL):
        assert one.claim(KEYS[:2]).ours == set(KEYS[:2])
        claims = two.claim(KEYS[:3])
        assert claims.ours == {KEYS[2]}
        assert claims.held == set(KEYS[:2])
        one.store([(KEYS[0], Reply("answer", 1, 2))])
        one.release([KEYS[1]])
        claims = two.claim(KEYS[:3])
        assert claims.ours == set(KEYS[1:3])
        assert claims.answered == {KEYS[0]: "answer"}


def interrupted_run(cache: CallCache) -> None:
    with cache.run(MODEL):
        cache.claim(KEYS)
        raise KeyboardInterrupt


def test_claims_end_with_their_run(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite"
    with CallCache(path) as one, CallCache(path) as two, two.run(MODEL):
        with pytest.raises(KeyboardInterrupt):
            interrupted_run(one)
        assert two.claim(KEYS).ours == set(KEYS)


@pytest.mark.parametrize(("silent_for", "held"), [(5.0, True), (90.0, False)])
def test_a_run_on_another_machine_lives_by_its_heartbeat(
    silent_for: float, held: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cache.sqlite"
    with CallCache(path) as far, CallCache(path) as near, near.run(MODEL):
        now = time.time()
        with monkeypatch.context() as patch:
            patch.setattr("recmodels.io.processes.host", lambda: "elsewhere")
            patch.setattr(cache_module.time, "time", lambda: now - silent_for)
            run = far.run(MODEL)
            run.__enter__()
            far.claim(KEYS)
        assert (near.claim(KEYS).held == set(KEYS)) == held
        run.__exit__(None, None, None)


def test_the_last_run_of_a_model_tells_its_digest_and_usage(tmp_path: Path) -> None:
    with CallCache(tmp_path / "cache.sqlite") as cache:
        assert cache.known_digest("ollama", "llama", "http://a") is None
        assert cache.last_usage("ollama", "llama", "http://a") is None
        usage = Usage(calls=3, seconds=1.5, estimated_tokens=100, prompt_tokens=110, answer_tokens=30)
        with cache.run(MODEL):
            cache.heartbeat(usage)
        assert cache.known_digest("ollama", "llama", "http://a") == "digest"
        assert cache.last_usage("ollama", "llama", "http://a") == usage


def test_more_keys_than_sqlite_takes_in_one_statement(tmp_path: Path) -> None:
    keys = [i.to_bytes(32, "big") for i in range(40_000)]
    with CallCache(tmp_path / "cache.sqlite") as cache:
        cache.store([(key, Reply(str(i), None, None)) for i, key in enumerate(keys)])
        assert cache.load(keys) == {key: str(i) for i, key in enumerate(keys)}
        assert cache.load([b"absent"]) == {}
