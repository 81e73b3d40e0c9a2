"""What every model's configuration has in common."""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from recmodels.training.config import TrainingConfig


class AnyConfig(BaseModel):
    """Base of the configurations: unknown keys are refused, defaults are the papers' values."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Values the authors give for single data sets: data set key -> settings."""

    training: TrainingConfig = TrainingConfig()
    """The training loop's settings, with this model's own defaults."""


class ModelConfig(AnyConfig):
    """Base of the configurations of models that are trained in steps."""

    embedding_size: int = Field(default=64, ge=1)
    """Width d of the user and item embeddings."""


class ClosedFormConfig(AnyConfig):
    """Base of the configurations of models in closed form. Of `training` nothing has an effect on them."""
