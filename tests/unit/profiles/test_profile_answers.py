"""Reading answers: valid ones in any wrapping, never an unusable one."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recmodels.llm.base import InvalidAnswer, Prompt, estimate_tokens
from recmodels.profiles.answers import ProfileAnswer, parse_answer, profile_answers, repair_prompt, repeats_itself
from recmodels.profiles.config import ProfileConfig
from recmodels.profiles.inputs import ItemInputs
from recmodels.profiles.prompts import item_prompt

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
    words = " ".join(map(str, range(200)))
    assert isinstance(parse_answer(json.dumps({"summarization": words, "reasoning": "None."})), ProfileAnswer)
    assert isinstance(parse_answer(json.dumps({"summarization": f"{words} 200", "reasoning": "None."})), InvalidAnswer)


@pytest.mark.parametrize("before", ["", "Sure! Here it is:\n```json\n"])
@pytest.mark.parametrize("summary", ["For people who dig.", 'The "Digger"\u2019s \\ friend, 5\u20ac.'])
def test_of_an_answer_that_the_limit_cut_a_whole_profile_counts(summary: str, before: str) -> None:
    encoded = json.dumps(summary)
    text = f'{before}{{"summarization": {encoded}, "reasoning": "It \\"is\\" a \\u20ac spade."}}'
    whole_from = text.index(encoded) + len(encoded)
    for end in range(len(text)):
        answer = parse_answer(text[:end])
        if end < whole_from:
            assert isinstance(answer, InvalidAnswer)
        else:
            assert isinstance(answer, ProfileAnswer)
            assert answer.summarization == " ".join(summary.split())


@pytest.mark.parametrize(
    "text",
    [
        '{"summarization": "For "people" who dig.", "reasoning": "It is',
        '{"summarization": "For people who dig."} {"reasoning": "It is',
        '{"reasoning": "It is a spade.", "summarization": "For people',
        '{"summarization": ["For people who dig."], "reasoning": "It is',
    ],
)
def test_a_broken_or_unfinished_profile_does_not_count(text: str) -> None:
    assert isinstance(parse_answer(text), InvalidAnswer)


SENTENCE = "This gift card is a great gift for birthdays, weddings and other special occasions. "
COUNTED = "".join(f"Product {i} of {i} is great. " for i in range(20))


@pytest.mark.parametrize("text", [SENTENCE * 5, "great " * 60, SENTENCE + "and " * 100, COUNTED])
@pytest.mark.parametrize("wrap", ['{{"summarization": "{}', '{{"summarization": "{}", "reasoning": "x"}}', "{}"])
def test_an_answer_that_repeats_itself_is_told_apart(text: str, wrap: str) -> None:
    answer = parse_answer(wrap.format(text))
    assert isinstance(answer, InvalidAnswer)
    assert answer.repeats_itself


def test_prose_does_not_repeat_itself() -> None:
    pages = [page.read_text() for page in (Path(__file__).parents[3] / "docs").rglob("*.md")]
    # What results.md has not measured is a list of rows that differ in a setting, no prose.
    parts = [part for page in pages for part in page.split("\n\n") if not part.startswith("Not measured yet")]
    paragraphs = [" ".join(part.split()) for part in parts if part[:1].isalpha()]
    assert sum(len(paragraph) > 160 for paragraph in paragraphs) > 50
    assert [paragraph for paragraph in paragraphs if repeats_itself(paragraph)] == []


@pytest.mark.parametrize(("answer_tokens", "words"), [(512, 200), (220, 81), (96, 30)])
def test_bounds_fit_the_limit_of_tokens(answer_tokens: int, words: int) -> None:
    config = ProfileConfig(answer_tokens=answer_tokens)
    answers = profile_answers(config)
    bounds = {name: kind["maxLength"] for name, kind in answers.bounded_schema["properties"].items()}
    longest = json.dumps({name: "a" * length for name, length in bounds.items()})
    assert estimate_tokens(longest) <= 0.8 * answer_tokens
    assert config.max_words == words
    assert f"at most {words} words" in answers.repair(Prompt("", ""), "", "").messages[3]["content"]
    assert f"at most {words} words" in item_prompt(ItemInputs(0, "", "", "", (), ()), "", words).system


def test_a_profile_that_the_bound_cut_ends_with_a_sentence() -> None:
    answers = profile_answers(ProfileConfig(answer_tokens=96))
    words = "For people who dig deep holes in heavy soil. It is made of forged steel. The handle is made of ash wood"
    limit = answers.bounds["summarization"]
    cut = (words * 2)[:limit]
    assert answers.parse(json.dumps({"summarization": cut, "reasoning": "x"})) == cut[: cut.rindex(".") + 1]
    assert answers.parse(json.dumps({"summarization": words, "reasoning": "x"})) == words


def test_half_a_surrogate_pair_cannot_reach_a_table() -> None:
    answer = parse_answer('{"summarization": "dig \\ud83d deep", "reasoning": "x"}')
    assert isinstance(answer, ProfileAnswer)
    assert answer.summarization.encode() == b"dig deep"


@given(st.text())
def test_anything_can_be_read(text: str) -> None:
    assert isinstance(parse_answer(text), ProfileAnswer | InvalidAnswer)


@given(
    st.lists(st.from_regex(r"[a-z]{1,8}", fullmatch=True), min_size=1, max_size=200, unique=True), st.text(), st.text()
)
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
