"""What a data set's configuration says about its profiles; the client of a language model has its own part of it."""

from typing import Literal

from pydantic import Field

from recmodels.llm.config import LLMConfig

MAX_PROFILE_WORDS = 200
"""The longest profile the prompt asks for and a validated answer may have."""
_CHARACTERS_A_WORD = 6


class ProfileConfig(LLMConfig, frozen=True):
    """Which back-end writes the profiles, and within which bounds."""

    backend: Literal["extractive", "ollama", "openai", "transformers"] = "extractive"
    """Who writes: ``extractive`` (no LLM), ``ollama``, ``openai`` (any compatible server) or ``transformers`` (local
    weights). Never replaced by another one in silence."""

    item_reviews: Literal["without_description", "always", "never"] = "without_description"
    """When an item's prompt shows training reviews: only where the description is missing (BLAST, stage 1), always (the
    prompts released with BLAST), or never."""

    max_fallback_share: float = Field(default=0.02, ge=0.0, le=1.0)
    """The largest share of rows that may carry the extractive fallback before the table counts as failed."""

    include_held_out: bool = False
    """Let validation and test rows into the prompts, to study the published habit. This leaks the answers: every row's
    `source` then ends in ``+held_out``."""

    @property
    def max_characters(self) -> int:
        """Characters of the longest profile that a server's schema allows: five sixths of an answer."""
        return self.answer_characters * 5 // 6

    @property
    def max_words(self) -> int:
        """Words of the longest profile that a prompt asks for: 200, or as many as an answer holds."""
        return min(MAX_PROFILE_WORDS, self.max_characters // _CHARACTERS_A_WORD)

    @property
    def source(self) -> str:
        """The `source` of a row that the back-end wrote."""
        return self.labelled(self.backend)

    def labelled(self, source: str) -> str:
        """Return the source with the mark of a run that read held-out rows, if this is one."""
        return f"{source}+held_out" if self.include_held_out else source
