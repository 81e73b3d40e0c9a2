"""Answers from an Ollama server."""

import asyncio
import os
from collections.abc import Mapping, Sequence

import httpx
import ollama

from recmodels.errors import InputError
from recmodels.llm.base import AnswerFormat, Prompt, Reply
from recmodels.llm.config import LLMConfig
from recmodels.llm.faults import raise_for_status, transport_faults
from recmodels.llm.http import client_options

DEFAULT_MODEL = "llama3.1:8b"
DEFAULT_ADDRESS = "http://127.0.0.1:11434"


class OllamaServer:
    """
    A model on an Ollama server, through the `ollama` package.

    The server is the configured one, else the environment variable ``OLLAMA_HOST``, else port 11434 of this machine.
    The context length is set to what the data, the template (with a repair) and the answer need, because Ollama by
    itself cuts a prompt that is longer than its default, in silence.
    """

    batch_size = 1

    def __init__(self, config: LLMConfig, answers: AnswerFormat) -> None:
        self.model = config.model or DEFAULT_MODEL
        self.address = config.server or os.environ.get("OLLAMA_HOST") or DEFAULT_ADDRESS
        self.in_flight = config.in_flight
        self.parameters: Mapping[str, object] = {
            "temperature": config.temperature,
            "seed": config.seed,
            "num_predict": config.answer_tokens,
            "num_ctx": config.context_tokens,
        }
        self._schema = dict(answers.schema)
        self._client = ollama.AsyncClient(
            self.address, **client_options(config), event_hooks={"response": [self._check]}
        )
        self._timeout = config.timeout

    async def start(self) -> str:
        """Return the digest that the server lists for the model."""
        with transport_faults(self.address):
            models = (await self._client.list()).models
        for entry in models:
            if entry.model in (self.model, f"{self.model}:latest") and entry.digest:
                return entry.digest
        raise InputError(
            f"model {self.model!r}",
            expected=f"a model that the Ollama server at {self.address} has",
            found=", ".join(sorted(entry.model or "" for entry in models)) or "no model at all",
            action=f"Run `ollama pull {self.model}` there, or name another as the setting model.",
        )

    async def answer(self, prompts: Sequence[Prompt]) -> list[Reply]:
        """Answer one prompt through ``/api/chat``; the server enforces the schema of the answer."""
        (prompt,) = prompts
        with transport_faults(self.address):
            async with asyncio.timeout(self._timeout):
                response = await self._client.chat(
                    self.model, prompt.messages, format=self._schema, options=self.parameters, stream=False
                )
        return [Reply(response.message.content or "", response.prompt_eval_count, response.eval_count)]

    async def ping(self) -> None:
        """List the models."""
        with transport_faults(self.address):
            await self._client.list()

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def _check(self, response: httpx.Response) -> None:
        await raise_for_status(response, address=self.address, model=self.model)
