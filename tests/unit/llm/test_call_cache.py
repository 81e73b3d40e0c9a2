"""The cache of calls: keys separate what differs, claims belong to live runs only."""

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recmodels.llm import cache as cache_module
from recmodels.llm.base import Prompt, Reply
from recmodels.llm.cache import CallCache, ModelIdentity, Usage, key_function
from recmodels.llm.factory import make_backend
from recmodels.profiles.answers import profile_answers, repair_prompt
from recmodels.profiles.config import ProfileConfig

MODEL = ModelIdentity("ollama", "llama", "http://a", "digest")
KEYS = [bytes([i]) * 32 for i in range(4)]
PROMPTS = st.builds(Prompt, st.text(), st.text(), st.none() | st.tuples(st.text(), st.text()))


@given(PROMPTS, PROMPTS)
def test_different_prompts_have_different_keys(first: Prompt, second: Prompt) -> None:
    key = key_function(MODEL, "1", {})
    assert (key(first) == key(second)) == (first == second)


def test_everything_that_makes_an_answer_is_in_its_key() -> None:
    prompt = Prompt("system", "user")
    others = [
        (ModelIdentity("openai", "llama", "http://a", "digest"), {}),
        (ModelIdentity("ollama", "llama", "http://a", "other"), {}),
        (MODEL, {"temperature": 1.0}),
    ]
    keys = {key_function(identity, "1", parameters)(prompt) for identity, parameters in [(MODEL, {}), *others]}
    assert len(keys) == 4
    moved = ModelIdentity("ollama", "llama-renamed", "http://b", "digest")
    assert key_function(moved, "1", {})(prompt) == key_function(MODEL, "1", {})(prompt)


@pytest.mark.parametrize(
    ("settings", "first", "repair"),
    [
        (
            {"backend": "ollama"},
            "5b36ea96a2adbc4c137085cdfb432c208562157487d3e51ee263e8971f6b978b",
            "c2da047cac3e62a1eee44320118e5cb71b17978ea098c2263b6fd1f0cd956f0f",
        ),
        (
            {"backend": "openai", "model": "m"},
            "582bbb8a07f1140ff564a748cfda6d30d9b0e8f1ea34286d505fd57745dbfc15",
            "67595ca295097b27225ea6089fca58b7b9d15b17ca5482d6aa90a981f1410eb1",
        ),
        (
            {"backend": "transformers"},
            "768b13c07464d2dc91ff9820bbd68705b0e255c36c3e7925b36e7ba09f60578c",
            "5e0d10cfa6d2f792a4f211d542490e2374087b938da8f969c90c2acd6d7e6216",
        ),
    ],
    ids=lambda value: value["backend"] if isinstance(value, dict) else "",
)
def test_answers_that_were_paid_for_are_found_by_later_versions(
    settings: dict[str, str], first: str, repair: str
) -> None:
    backend = make_backend(ProfileConfig.model_validate(settings), profile_answers(ProfileConfig()))
    identity = ModelIdentity(settings["backend"], backend.model, backend.address, "digest")
    key = key_function(identity, profile_answers(ProfileConfig()).version, backend.parameters)
    prompt = Prompt("You describe spades.", "Spade 1")
    assert key(prompt).hex() == first
    assert key(repair_prompt(prompt, "no", "too short")).hex() == repair


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
