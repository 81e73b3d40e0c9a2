"""What an answer must look like, and how one is read from whatever a model wrote."""

import json
import re
from dataclasses import replace
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from recmodels.llm.base import AnswerFormat, InvalidAnswer, Prompt
from recmodels.profiles.config import MAX_PROFILE_WORDS
from recmodels.profiles.inputs import trim
from recmodels.profiles.prompts import TEMPLATE_VERSION

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]+")
_MAX_CANDIDATES = 20
_QUOTED_TOKENS = 250


class ProfileAnswer(BaseModel):
    """The JSON object that a model answers with."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    summarization: str
    """The profile: 1 to 200 words."""

    reasoning: str
    """What the model says it rests on. Asked for because it improves the profile; kept in the cache only."""

    @field_validator("summarization", "reasoning")
    @classmethod
    def _clean(cls, text: str) -> str:
        return " ".join(_CONTROL.sub(" ", text).split())

    @field_validator("summarization")
    @classmethod
    def _bounded(cls, text: str) -> str:
        words = len(text.split())
        if not 1 <= words <= MAX_PROFILE_WORDS:
            raise ValueError(f"has {words} words instead of 1 to {MAX_PROFILE_WORDS}")
        return text


ANSWER_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"summarization": {"type": "string"}, "reasoning": {"type": "string"}},
    "required": ["summarization", "reasoning"],
    "additionalProperties": False,
}
"""The JSON schema handed to servers that can enforce one."""


def parse_answer(text: str) -> ProfileAnswer | InvalidAnswer:
    """
    Return the profile in an answer, or why there is none.

    The whole text is tried first, then every JSON object that starts at one of its first 20 opening braces, so that
    prose or a code fence around the object does not spoil an answer that has been paid for.

    Examples
    --------
    >>> parse_answer('Of course: {"summarization": "For diggers.", "reasoning": "It is a spade."}').summarization
    'For diggers.'
    >>> parse_answer('{"summary": "For diggers.", "reasoning": "It is a spade."}').reason
    'summarization: Field required'
    """
    try:
        return ProfileAnswer.model_validate_json(text)
    except ValidationError as error:
        reason = _reason(error)
    decoder = json.JSONDecoder()
    start = -1
    for _ in range(_MAX_CANDIDATES):
        start = text.find("{", start + 1)
        if start < 0:
            break
        try:
            candidate, _end = decoder.raw_decode(text, start)
            return ProfileAnswer.model_validate(candidate)
        except ValidationError as error:
            reason = _reason(error)
        except (json.JSONDecodeError, RecursionError):
            continue
    return InvalidAnswer(reason)


def repair_prompt(prompt: Prompt, answer: str, reason: str) -> Prompt:
    """Return the follow-up that shows a model its unusable answer and asks once more."""
    correction = (
        f"This could not be used: {reason}. Answer again, with one complete JSON object and nothing else: "
        f'{{"summarization": "at most {MAX_PROFILE_WORDS} words", "reasoning": "one sentence"}}'
    )
    return replace(prompt, follow_up=(trim(_CONTROL.sub(" ", answer), _QUOTED_TOKENS), correction))


def _profile_in(text: str) -> str | InvalidAnswer:
    answer = parse_answer(text)
    return answer if isinstance(answer, InvalidAnswer) else answer.summarization


PROFILE_ANSWERS = AnswerFormat(
    name="profile",
    schema=ANSWER_SCHEMA,
    version=TEMPLATE_VERSION,
    max_words=MAX_PROFILE_WORDS,
    parse=_profile_in,
    repair=repair_prompt,
)
"""What a client of language models has to know about profiles."""


def _reason(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "the answer"
    return f"{where}: {first['msg']}"
