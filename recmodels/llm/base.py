"""What the rest of this room and its users share: prompts, replies, faults, and the protocol of a back-end."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from recmodels.errors import PermanentFailure, TransientFailure


def estimate_tokens(text: str) -> int:
    """
    Return an estimate of the tokens of a text: a quarter of its UTF-8 bytes, rounded up.

    English prose has 4 to 4.5 bytes a token in the vocabularies of Llama 3 and GPT-4; no tokenizer is needed.

    Examples
    --------
    >>> estimate_tokens("A spade digs heavy soil.")
    6
    """
    return (len(text if text.isascii() else text.encode()) + 3) // 4


def whole_sentences(text: str) -> str:
    """
    Return a text that was cut without its last, unfinished sentence, if at least half of it is left.

    Examples
    --------
    >>> whole_sentences("It digs heavy soil. It is made in Sh")
    'It digs heavy soil.'
    >>> whole_sentences("A spade. It digs heavy soil, and it")
    'A spade. It digs heavy soil, and it'
    """
    end = 1 + max(text.rfind(sign) for sign in ".!?")
    return text[:end] if 2 * end >= len(text) else text


@dataclass(frozen=True)
class Prompt:
    """
    One question to a language model.

    Examples
    --------
    >>> Prompt("You describe spades.", "Spade 1").messages[1]
    {'role': 'user', 'content': 'Spade 1'}
    """

    system: str
    user: str
    """The two messages."""
    follow_up: tuple[str, str] | None = None
    """An earlier, unusable answer and what is wrong with it."""
    temperature: float | None = None
    """Sampling temperature in place of the configured one, for a question that is asked again."""

    @property
    def messages(self) -> list[dict[str, str]]:
        """The messages in the form that chat servers and chat templates take."""
        messages = [{"role": "system", "content": self.system}, {"role": "user", "content": self.user}]
        if self.follow_up:
            answer, correction = self.follow_up
            messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": correction}]
        return messages

    @property
    def tokens(self) -> int:
        """Estimated tokens, with 16 a message pair for the chat template."""
        follow_up = sum(map(estimate_tokens, self.follow_up)) + 16 if self.follow_up else 0
        return estimate_tokens(self.system) + estimate_tokens(self.user) + 16 + follow_up


@dataclass(frozen=True)
class Reply:
    """One answer as it came."""

    text: str
    """What the model wrote."""
    prompt_tokens: int | None
    answer_tokens: int | None
    """Both as counted by the model's own tokenizer; None where the server does not say."""


@dataclass(frozen=True)
class InvalidAnswer:
    """Why an answer could not be used; one that repeats itself is not shown to the model again."""

    reason: str
    repeats_itself: bool = False


@dataclass(frozen=True)
class AnswerFormat:
    """What the answers to a kind of prompt look like."""

    name: str
    schema: Mapping[str, Any]
    """The JSON schema of an answer, for servers that can enforce one, and what to call it."""
    bounds: Mapping[str, int]
    """The most characters of each property, so that an answer ends before the limit of tokens cuts it."""
    version: str
    """Version of the prompts and the schema; enters every cache key."""
    max_words: int
    """The longest text that the first property of the schema may hold."""
    parse: Callable[[str], str | InvalidAnswer]
    """Returns what is wanted from a model's text, or why it is not in there."""
    repair: Callable[[Prompt, str, str], Prompt]
    """Returns the prompt that shows a model its unusable answer and the reason, and asks once more."""

    @property
    def bounded_schema(self) -> dict[str, Any]:
        """The schema with its bounds."""
        properties = {
            name: kind | ({"maxLength": self.bounds[name]} if name in self.bounds else {})
            for name, kind in self.schema["properties"].items()
        }
        return {**self.schema, "properties": properties}


class Unreachable(TransientFailure):
    """The server cannot be reached, or went away during a call."""


class RunStopped(TransientFailure):
    """A run cannot go on now. What it has paid for is in the cache, and starting it again goes on from there."""


class Busy(TransientFailure):
    """The server asks to be left alone (HTTP 429), for `retry_after` seconds if it says: no fault of the prompt."""

    def __init__(self, message: str, retry_after: float | None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class PromptRejected(PermanentFailure):
    """The model refuses this prompt and would refuse it again; other prompts may do better."""


class BudgetReached(PermanentFailure):
    """The next call could exceed the budget. What has been paid for is in the cache."""


class Backend(Protocol):
    """A language model that answers prompts."""

    model: str
    """The model's name."""
    address: str
    """Where it is: the server's address or the path of the weights."""
    batch_size: int
    """How many prompts `answer` takes at once."""
    in_flight: int
    """How many calls of `answer` may run at once."""
    parameters: Mapping[str, object]
    """Everything else that changes its answers; enters the cache key."""

    async def start(self) -> str:
        """
        Make ready and return the digest of the model.

        Raises
        ------
        InputError
            If the model is not there.
        TransientFailure
            If the server does not answer.
        """
        ...

    async def answer(self, prompts: Sequence[Prompt]) -> list[Reply]:
        """
        Answer the prompts, in order.

        Raises
        ------
        Busy, TransientFailure
            If trying again can help.
        PromptRejected
            If this prompt will never be answered.
        PermanentFailure
            If no prompt will ever be answered.
        """
        ...

    async def ping(self) -> None:
        """Return if the server is there, without asking the model anything; raise TransientFailure if not."""
        ...

    async def close(self) -> None:
        """Free what `start` took."""
        ...
