"""What every model's configuration has in common."""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from recmodels.training.config import TrainingConfig


class ModelConfig(BaseModel):
    """Base of the configurations: unknown keys are refused, defaults are the papers' values."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Values the authors give for single data sets: data set key -> settings."""

    embedding_size: int = Field(default=64, ge=1)
    """Width d of the user and item embeddings."""
    training: TrainingConfig = TrainingConfig()
    """The training loop's settings, with this model's own defaults."""
