"""What a data set's configuration says about its profiles; the client of a language model has its own part of it."""

from collections.abc import Mapping
from typing import Any, Literal

from recmodels.llm.config import LLMConfig
from recmodels.validation import merged, validated

MAX_PROFILE_WORDS = 200
"""The longest profile the prompt asks for and a validated answer may have."""

MAX_FALLBACK_SHARE = 0.02
"""The largest share of rows that may carry the extractive fallback before the table counts as failed."""


class ProfileConfig(LLMConfig, frozen=True):
    """Which back-end writes the profiles, and within which bounds."""

    backend: Literal["extractive", "ollama", "openai", "transformers"] = "extractive"
    """Who writes: ``extractive`` (no LLM), ``ollama``, ``openai`` (any compatible server) or ``transformers`` (local
    weights). Never replaced by another one in silence."""

    item_reviews: Literal["without_description", "always", "never"] = "without_description"
    """When an item's prompt shows training reviews: only where the description is missing (BLAST, stage 1), always (the
    prompts released with BLAST), or never."""

    include_held_out: bool = False
    """Let validation and test rows into the prompts, to study the published habit. This leaks the answers: every row's
    `source` then ends in ``+held_out``."""

    @property
    def source(self) -> str:
        """The `source` of a row that the back-end wrote."""
        return self.labelled(self.backend)

    def labelled(self, source: str) -> str:
        """Return the source with the mark of a run that read held-out rows, if this is one."""
        return f"{source}+held_out" if self.include_held_out else source


def resolve_profile_config(*settings: Mapping[str, Any]) -> ProfileConfig:
    """
    Return the configuration from settings by name, a later mapping over an earlier one.

    Raises
    ------
    InputError
        If a name is unknown, or a value has the wrong type or range.
    """
    return validated(ProfileConfig, merged(*settings), "profile settings")
