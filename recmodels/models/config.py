"""How a model is set up and trained: the settings that all models share."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from recmodels.validation import OPERATIONAL

FEWEST_STEPS = 10
"""Optimiser steps that an epoch has at least where nobody names the batch size."""
SMALLEST_BATCH = 16
"""Training pairs below which a batch is not made smaller for that."""


class TrainingConfig(BaseModel):
    """Settings of the training loop. The defaults are the published protocol's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    learning_rate: float = Field(default=1e-3, gt=0)
    """Step size of Adam (betas 0.9 and 0.999) in the first epoch."""
    learning_rate_factor: float = Field(default=1.0, gt=0, le=1)
    """Decay f: the step size of epoch e is `learning_rate` * f ** (e / `learning_rate_interval`)."""
    learning_rate_interval: float = Field(default=50.0, gt=0)
    """Epochs s over which the step size shrinks by `learning_rate_factor`."""
    weight_decay: float = Field(default=0.0, ge=0)
    """L2 weight that Adam adds to every gradient."""
    batch_size: int = Field(default=2048, ge=1)
    """
    Training pairs in a step; the last, shorter batch of an epoch is kept. Where nobody names it, it is smaller for
    small data, so that early stopping sees progress (see `AnyConfig.batch_size_for`); one that is named is kept.
    """
    epochs: int = Field(default=1000, ge=1)
    """Most epochs to train."""
    patience: int = Field(default=20, ge=0)
    """
    Epochs without a better validation Recall@20 that are tolerated; training stops at the next one. An epoch has ten
    steps at least where the batch follows the data, so that 20 epochs are 200 steps or more from 160 pairs on.
    """
    loss: Literal["bpr", "sampled_softmax"] = "bpr"
    """
    The ranking loss of a positive: `bpr` sets it against one negative of its user, `sampled_softmax` against
    `n_shared_negatives` that the batch has in common, less those that are no negatives of its user.
    """
    n_shared_negatives: int = Field(default=128, ge=1)
    """Negatives of a batch under `sampled_softmax`, drawn uniformly with replacement."""
    temperature: float = Field(default=1.0, gt=0)
    """What scores are divided by under `sampled_softmax`."""
    restricted_negatives: bool = False
    """Bar likely-liked items from the negatives: those that are item-graph neighbours of the user's positives."""
    restricted_neighbours: int | None = Field(default=10, ge=1)
    """
    Neighbours of an item, its self edge included, that `restricted_negatives` counts; null takes the whole table. The
    paper has one set of likely-liked items, so this is to be the augmentation's `neighbours`.
    """
    augmentation: bool = False
    """Train on the pairs that optimal transport added, beside the observed ones."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; `auto` takes a CUDA device where one answers."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """
    `bfloat16` runs the dense products under autocast; parameters and sparse products stay float32. On two cores that
    have bfloat16 instructions, epochs of models that project 4096-wide features took 0.6 to 0.8 of the time and losses
    agreed to four digits; models without features gained nothing.
    """
    compile: bool = False
    """
    Compile the loss with `torch.compile`. On two cores it cost 4 to 9 seconds once and changed epochs by less than a
    tenth for most models: sparse products and embedding rows, which take the time, are not what it fuses.
    """
    shards: int = Field(default=1, ge=1, exclude_if=lambda shards: shards == 1)
    """
    Processes N to train in, here or on a cluster, each with 1/N of the columns of the embeddings and of Adam's state.
    The model is that of one process to float rounding; the same N gives the same bytes wherever it runs. Only models
    that never mix columns can be so trained. While it is 1 it is not recorded: what was made before it is not out of
    date.
    """
    checkpoint_interval: Annotated[int, OPERATIONAL] = Field(default=10, ge=1)
    """Epochs between two saved states, where the caller names a directory to resume from."""


class AnyConfig(BaseModel):
    """Base of the configurations: unknown keys are refused, defaults are the papers' values."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Values the authors give for single data sets: data set key -> settings."""

    training: TrainingConfig = TrainingConfig()
    """The training loop's settings, with this model's own defaults."""

    @property
    def names_batch_size(self) -> bool:
        """Whether whoever made this configuration named the batch size, rather than leaving the model's own."""
        return "training" in self.model_fields_set and "batch_size" in self.training.model_fields_set

    def batch_size_for(self, n_pairs: int) -> int:
        """
        Return the batch size that a training on so many observed pairs has.

        One that nobody named is the largest power of two of which the pairs fill `FEWEST_STEPS` batches, at
        least `SMALLEST_BATCH` and at most the model's own; that one is kept where the pairs fill so many of its
        batches, as those of the published data sets do.

        Examples
        --------
        >>> [AnyConfig().batch_size_for(n) for n in (100_000, 20_480, 20_479, 1_430, 100)]
        [2048, 2048, 1024, 128, 16]
        >>> AnyConfig(training=TrainingConfig(batch_size=500)).batch_size_for(1_430)
        500
        """
        own = self.training.batch_size
        if self.names_batch_size or n_pairs >= FEWEST_STEPS * own:
            return own
        return min(own, max(SMALLEST_BATCH, 1 << max(0, (n_pairs // FEWEST_STEPS).bit_length() - 1)))


class ModelConfig(AnyConfig):
    """Base of the configurations of models that are trained in steps."""

    embedding_size: int = Field(default=64, ge=1)
    """Width d of the user and item embeddings."""


class FeatureConfig(ModelConfig):
    """Base of the configurations of models whose published programs train the item features."""

    trainable_features: bool = False
    """Train copies of the features, as the published program does, in place of frozen ones."""


class ItemGraphConfig(FeatureConfig):
    """Base of the configurations of models that also read a graph of similar items for each modality."""

    neighbours: int = Field(default=10, ge=1)
    """Neighbours k of a node in each graph of similar nodes, itself included."""


class FusedGraphConfig(ItemGraphConfig):
    """Base of the configurations of models that fuse these graphs into one."""

    image_weight: float = Field(default=0.1, ge=0, le=1)
    """Share of the image graph in the item graph; the text graph has the rest. A modality alone has all."""


class ClosedFormConfig(AnyConfig):
    """Base of the configurations of models in closed form. Of `training` nothing has an effect on them."""
