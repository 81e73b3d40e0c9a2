"""Reading answers: valid ones in any wrapping, never an unusable one."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recmodels.llm.base import InvalidAnswer, Prompt
from recmodels.profiles.answers import ProfileAnswer, parse_answer, repair_prompt

GOOD = json.dumps({"summarization": "For people who dig.", "reasoning": "It is a spade."})


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        f"Sure! Here is the profile you asked for:\n\n{GOOD}\n\nLet me know if you need anything else.",
        f"```json\n{GOOD}\n```",
        f"{{not json}} {GOOD}",
        json.dumps({"summarization": "For  people\nwho\tdig.\u0000", "reasoning": "It is a spade.", "score": 3}),
    ],
    ids=["plain", "prose", "fence", "braces", "control characters and a further key"],
)
def test_a_valid_object_is_found(text: str) -> None:
    answer = parse_answer(text)
    assert isinstance(answer, ProfileAnswer)
    assert answer.summarization == "For people who dig."


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I cannot help with that.",
        GOOD[:-10],
        json.dumps({"summary": "For people who dig.", "reason": "It is a spade."}),
        json.dumps({"summarization": "For people who dig."}),
        json.dumps({"summarization": " \n ", "reasoning": "None."}),
        json.dumps({"summarization": 7, "reasoning": "None."}),
        json.dumps({"summarization": "dig " * 201, "reasoning": "None."}),
        json.dumps({"summarization": "dig " * 10_000, "reasoning": "None."}),
        json.dumps([GOOD]),
        "[" * 100_000,
        "{" * 100_000,
    ],
    ids=lambda text: repr(text[:20]),
)
def test_an_unusable_answer_gives_a_reason(text: str) -> None:
    answer = parse_answer(text)
    assert isinstance(answer, InvalidAnswer)
    assert answer.reason


def test_two_hundred_words_are_allowed() -> None:
    answer = parse_answer(json.dumps({"summarization": "dig " * 200, "reasoning": "None."}))
    assert isinstance(answer, ProfileAnswer)


def test_half_a_surrogate_pair_cannot_reach_a_table() -> None:
    answer = parse_answer('{"summarization": "dig \\ud83d deep", "reasoning": "x"}')
    assert isinstance(answer, ProfileAnswer)
    assert answer.summarization.encode() == b"dig deep"


@given(st.text())
def test_anything_can_be_read(text: str) -> None:
    assert isinstance(parse_answer(text), ProfileAnswer | InvalidAnswer)


@given(st.lists(st.from_regex(r"[a-z]{1,8}", fullmatch=True), min_size=1, max_size=200), st.text(), st.text())
def test_a_valid_answer_survives_any_text_around_it(words: list[str], before: str, after: str) -> None:
    text = before.replace("{", "") + json.dumps({"summarization": " ".join(words), "reasoning": "x"}) + after
    answer = parse_answer(text)
    assert isinstance(answer, ProfileAnswer)
    assert answer.summarization.split() == words


def test_a_repair_shows_the_answer_and_its_fault_once_and_briefly() -> None:
    repair = repair_prompt(Prompt("system", "user"), "word " * 10_000, "summarization: has 10000 words")
    assert [message["role"] for message in repair.messages] == ["system", "user", "assistant", "user"]
    assert "has 10000 words" in repair.messages[3]["content"]
    assert repair.tokens < 400
