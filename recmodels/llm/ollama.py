"""Answers from an Ollama server, by its native API: the context length cannot be set through the other one."""

import os
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from pydantic import BaseModel

from recmodels.errors import InputError
from recmodels.llm.base import AnswerFormat, Prompt, Reply
from recmodels.llm.config import LLMConfig
from recmodels.llm.http import JsonServer

DEFAULT_MODEL = "llama3.1:8b"
DEFAULT_ADDRESS = "http://127.0.0.1:11434"
ADDRESS_VARIABLE = "OLLAMA_HOST"
_SAMPLING = {"repeat_penalty": 1.1}
"""Defaults of `LLMConfig.sampling`; no part of the cache key, which the answers paid for under earlier ones keep."""


class _Model(BaseModel):
    model: str = ""
    digest: str = ""


class _Models(BaseModel):
    models: list[_Model]


class _Message(BaseModel):
    content: str = ""


class _Answer(BaseModel):
    message: _Message
    prompt_eval_count: int | None = None
    eval_count: int | None = None


class OllamaServer:
    """
    A model on an Ollama server.

    The server is the configured one, else the environment variable ``OLLAMA_HOST``, else port 11434 of this machine.
    The context length is set to what the data, the template (with a repair) and the answer need, because Ollama by
    itself cuts a prompt that is longer than its default, in silence.
    """

    batch_size = 1

    def __init__(self, config: LLMConfig, answers: AnswerFormat) -> None:
        self.model = config.model or DEFAULT_MODEL
        self.address = config.server or os.environ.get(ADDRESS_VARIABLE) or DEFAULT_ADDRESS
        self.in_flight = config.in_flight
        self.parameters: Mapping[str, object] = {
            "temperature": config.temperature,
            "seed": config.seed,
            "num_predict": config.answer_tokens,
            "num_ctx": config.context_tokens,
            **config.sampling,
        }
        self._format = answers.bounded_schema
        self._server = JsonServer(_url(self.address), config.model_copy(update={"model": self.model}))

    async def start(self) -> str:
        """Return the digest that the server lists for the model."""
        models = (await self._server.call("GET", "/api/tags", _Models)).models
        for entry in models:
            if entry.model in (self.model, f"{self.model}:latest") and entry.digest:
                return entry.digest
        raise InputError(
            f"model {self.model!r}",
            expected=f"a model that the Ollama server at {self.address} has",
            found=", ".join(sorted(entry.model for entry in models)) or "no model at all",
            action=f"Run `ollama pull {self.model}` there, or name another as the setting model.",
        )

    async def answer(self, prompts: Sequence[Prompt]) -> list[Reply]:
        """Answer one prompt through ``/api/chat``; the server enforces the schema of the answer."""
        (prompt,) = prompts
        options = {**_SAMPLING, **self.parameters}
        if prompt.temperature is not None:
            options["temperature"] = prompt.temperature
        body = {"model": self.model, "messages": prompt.messages, "format": self._format, "options": options}
        answer = await self._server.call("POST", "/api/chat", _Answer, body | {"stream": False})
        return [Reply(answer.message.content, answer.prompt_eval_count, answer.eval_count)]

    async def ping(self) -> None:
        """List the models."""
        await self._server.call("GET", "/api/tags", _Models)

    async def close(self) -> None:
        """Close the connections."""
        await self._server.close()


def _url(address: str) -> str:
    """
    Return what ``OLLAMA_HOST`` may hold as a URL.

    Examples
    --------
    >>> _url("gpu-box"), _url(":8080"), _url("https://gpu-box/models/")
    ('http://gpu-box:11434', 'http://127.0.0.1:8080', 'https://gpu-box:443/models')
    """
    parts = urlsplit(address if "://" in address else f"//{address}")
    host = parts.hostname or "127.0.0.1"
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 11434)
    return f"{parts.scheme or 'http'}://{f'[{host}]' if ':' in host else host}:{port}{parts.path.rstrip('/')}"
