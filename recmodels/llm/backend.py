"""The interface that every language model back-end implements."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from recmodels.errors import InputError, PermanentFailure, TransientFailure
from recmodels.profiles.config import ProfileConfig
from recmodels.profiles.prompts import Prompt


@dataclass(frozen=True)
class Reply:
    """
    One answer as it came.

    Parameters
    ----------
    text
        What the model wrote.
    prompt_tokens, answer_tokens
        As counted by the model's own tokenizer; None where the server does not say.
    """

    text: str
    prompt_tokens: int | None
    answer_tokens: int | None


class Busy(TransientFailure):
    """
    The server asks to be left alone for a while (HTTP 429): no fault of the prompt.

    Parameters
    ----------
    message
        What it said.
    retry_after
        Seconds it asks for, if it says.
    """

    def __init__(self, message: str, retry_after: float | None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class PromptRejected(PermanentFailure):
    """The model refuses this prompt and would refuse it again; other prompts may do better."""


class Backend(Protocol):
    """
    A language model that answers prompts.

    Parameters
    ----------
    model
        The model's name.
    address
        Where it is: the server's address or the path of the weights.
    batch_size
        How many prompts `answer` takes at once.
    in_flight
        How many calls of `answer` may run at once.
    parameters
        Everything else that changes its answers; enters the cache key.
    """

    model: str
    address: str
    batch_size: int
    in_flight: int
    parameters: Mapping[str, object]

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


def make_backend(config: ProfileConfig) -> Backend:
    """
    Return the back-end that the configuration names; nothing is loaded or called before its `start`.

    Raises
    ------
    InputError
        If the configuration names ``extractive``, which is no language model, or a package is missing.
    """
    try:
        match config.backend:
            case "ollama":
                from recmodels.llm.ollama import OllamaServer

                return OllamaServer(config)
            case "openai":
                from recmodels.llm.openai import OpenAIServer

                return OpenAIServer(config)
            case "transformers":
                from recmodels.llm.local import LocalModel

                return LocalModel(config)
            case "extractive":
                found = "extractive"
    except ModuleNotFoundError as error:
        found = f"{config.backend} without the package {error.name}"
    raise InputError(
        "profiles.backend",
        expected="a language model and its packages",
        found=found,
        action="Install them with `pip install recmodels[llm]`.",
    )
