"""Answers from any server with the chat endpoint of the OpenAI API: vLLM, llama.cpp, a hosted service."""

import os
from collections.abc import Mapping, Sequence

from pydantic import BaseModel, Field

from recmodels.errors import InputError
from recmodels.io.digest import digest_of
from recmodels.llm.base import AnswerFormat, Prompt, PromptRejected, Reply
from recmodels.llm.config import LLMConfig
from recmodels.llm.http import JsonServer

DEFAULT_ADDRESS = "http://127.0.0.1:8000/v1"
ADDRESS_VARIABLE = "OPENAI_BASE_URL"
_SAMPLING = {"frequency_penalty": 0.3}
"""Defaults of `LLMConfig.sampling`; no part of the cache key, which the answers paid for under earlier ones keep."""


class _Model(BaseModel):
    id: str
    owned_by: str = ""
    root: str | None = None


class _Models(BaseModel):
    data: list[_Model]


class _Message(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Message


class _Usage(BaseModel):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Completion(BaseModel):
    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None


class OpenAIServer:
    """
    A model behind ``/chat/completions``.

    The server is the configured one, else the environment variable ``OPENAI_BASE_URL``, else port 8000 of this machine.
    Such servers tell no digest of their weights: the name, the owner and the root that ``/models`` lists stand in for
    it, with `LLMConfig.model_revision`. The `openai` package is not used: it takes five times as long for a call.
    """

    batch_size = 1

    def __init__(self, config: LLMConfig, answers: AnswerFormat) -> None:
        self.model = config.model
        self.address = (config.server or os.environ.get(ADDRESS_VARIABLE) or DEFAULT_ADDRESS).rstrip("/")
        self.in_flight = config.in_flight
        self.parameters: Mapping[str, object] = {
            "temperature": config.temperature,
            "seed": config.seed,
            "max_tokens": config.answer_tokens,
            "response_format": _response_format(answers.name, answers.schema),
            **config.sampling,
        }
        self._bounded = {"response_format": _response_format(answers.name, answers.bounded_schema)}
        self._revision = config.model_revision
        key = os.environ.get(config.api_key_variable)
        self._server = JsonServer(self.address, config, {"Authorization": f"Bearer {key}"} if key else None)

    async def start(self) -> str:
        """Return a digest of what the server lists for the model; of its name alone if it lists no models."""
        try:
            models = (await self._server.call("GET", "/models", _Models)).data
        except (InputError, PromptRejected):  # it lists none
            return digest_of(self.model, self._revision)
        for entry in models:
            if entry.id == self.model:
                return digest_of(entry.id, entry.owned_by, entry.root or "", self._revision)
        raise InputError(
            f"model {self.model!r}",
            expected=f"a model that {self.address} serves",
            found=", ".join(sorted(entry.id for entry in models)[:20]) or "no model at all",
            action="Name one of these as the setting model, or load the model on the server.",
        )

    async def answer(self, prompts: Sequence[Prompt]) -> list[Reply]:
        """
        Answer one prompt; the schema of the answer is passed as ``response_format``.

        Its bounds are left out from then on where the service refuses them: strict schemas know no ``maxLength`` there.
        """
        (prompt,) = prompts
        body = {"model": self.model, "messages": prompt.messages, **_SAMPLING, **self.parameters}
        if prompt.temperature is not None:
            body["temperature"] = prompt.temperature
        try:
            completion = await self._server.call("POST", "/chat/completions", _Completion, body | self._bounded)
        except PromptRejected as error:
            if "maxLength" not in str(error):
                raise
            self._bounded = {}
            completion = await self._server.call("POST", "/chat/completions", _Completion, body)
        usage = completion.usage or _Usage()
        return [Reply(completion.choices[0].message.content or "", usage.prompt_tokens, usage.completion_tokens)]

    async def ping(self) -> None:
        """List the models."""
        await self._server.call("GET", "/models", _Models)

    async def close(self) -> None:
        """Close the connections."""
        await self._server.close()


def _response_format(name: str, schema: Mapping[str, object]) -> dict[str, object]:
    return {"type": "json_schema", "json_schema": {"name": name, "strict": True, "schema": schema}}
