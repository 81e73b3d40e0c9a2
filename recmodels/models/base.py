"""The protocol of the models: propagate once to embeddings, give the loss of a batch."""

from abc import ABC, abstractmethod

import polars as pl
import torch
from torch import Tensor, nn
from torch.nn import functional

from recmodels.errors import InputError
from recmodels.models.blocks import row_dot, sampled_softmax
from recmodels.models.config import ModelConfig
from recmodels.training.data import Features, TrainingData


class Model(nn.Module, ABC):
    """
    A recommender that scores a user and an item by the inner product of their embeddings.

    Parameters
    ----------
    config
        The model's own configuration; it names the device as well.
    data
        Training pairs and side information. Graphs and features stay with the model, but not in its saved state.
    generator
        Source of the initial parameters, on the CPU, so that they are the same on every device.

    Raises
    ------
    InputError
        If an input that the model or its training needs is absent; it is named as the asset.

    Attributes
    ----------
    device
        Where graphs and features are; `recmodels.models.registry.build_model` moves the parameters there too.
    generator
        Source of the noise inside the loss; each epoch names its own.
    """

    uses_negatives: bool = True
    """Whether the loss reads the sampled negatives."""
    pairwise: bool = True
    """Whether the loss sets positives against negatives in pairs, so that `training.loss` has something to replace."""

    def __init__(self, config: ModelConfig, data: TrainingData, generator: torch.Generator) -> None:
        super().__init__()
        _check_training_inputs(config, data, self)
        self.config = config
        self.device = resolve_device(config.training.device)
        self.n_users = data.n_users
        self.n_items = data.n_items
        self.generator = generator

    @abstractmethod
    def propagate(self) -> tuple[Tensor, Tensor]:
        """Return the final embeddings, users (n_users, d) and items (n_items, d), on the full graphs, without noise."""

    @abstractmethod
    def loss(
        self, users: Tensor, positives: Tensor, negatives: Tensor, barred: Tensor | None = None
    ) -> dict[str, Tensor]:
        """
        Return the weighted parts of the loss of a batch, scalars whose sum is minimised.

        Parameters
        ----------
        users, positives
            Ids, (batch,) int64.
        negatives
            Ids, int64: one a positive, (batch,); under the sampled softmax those of the whole batch, (n,); empty for
            models that use none.
        barred
            Under the sampled softmax, (batch, n) bool: what is no negative of the user. None bars nothing.
        """

    def ranking_losses(self, users: Tensor, positives: Tensor, negatives: Tensor, barred: Tensor | None) -> Tensor:
        """
        Return the configured ranking loss of each positive, (batch,).

        `users` and `positives` are embeddings, (batch, d), `negatives` those of the negatives of `loss`.
        """
        settings = self.config.training
        if settings.loss == "sampled_softmax":
            return sampled_softmax(users, positives, negatives, barred, settings.temperature)
        return functional.softplus(-row_dot(users, positives - negatives))

    def on_epoch_start(self, epoch: int, generator: torch.Generator) -> None:
        """Redraw what is drawn once an epoch; later noise of the epoch comes from the same generator."""
        self.generator = generator


def resolve_device(name: str) -> torch.device:
    """
    Return the device of a configuration; ``auto`` is CUDA where it answers, else the CPU.

    Raises
    ------
    InputError
        If CUDA is asked for and none answers.
    """
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise InputError("training.device", expected="a CUDA device that answers", found="none", action="Use auto.")
    return torch.device("cuda" if name != "cpu" and available else "cpu")


def _check_training_inputs(config: ModelConfig, data: TrainingData, model: Model) -> None:
    if config.training.augmentation and data.added_users is None:
        raise InputError("training.augmentation", expected="augmented_interactions", found="none")
    if config.training.loss != "bpr" and not (model.uses_negatives and model.pairwise):
        raise InputError(
            "training.loss",
            expected="bpr, as this model has no pairwise loss to replace",
            found=config.training.loss,
        )
    if config.training.restricted_negatives and not model.uses_negatives:
        raise InputError(
            "training.restricted_negatives",
            expected="a model that samples negatives",
            found="one that uses none",
            action="Turn it off; training.augmentation works without negatives.",
        )
    if config.training.restricted_negatives and not data.item_knn:
        raise InputError("training.restricted_negatives", expected="item_text_knn or item_image_knn", found="neither")


def require_item_features(data: TrainingData, model: str) -> dict[str, Features]:
    """
    Return the item features by modality, at least one.

    Raises
    ------
    InputError
        If both modalities are absent.
    """
    if not data.item_features:
        raise InputError(
            f"training data of {model}", expected="item_text_embeddings or item_image_embeddings", found="neither"
        )
    return data.item_features


def require_item_features_and_knn(
    data: TrainingData, model: str
) -> tuple[dict[str, Features], dict[str, pl.DataFrame]]:
    """
    Return the item features and the neighbour tables of the modalities that have both, at least one.

    Raises
    ------
    InputError
        If no modality has both.
    """
    both = [modality for modality in data.item_features if modality in data.item_knn]
    if not both:
        raise InputError(
            f"training data of {model}",
            expected="item_text_embeddings with item_text_knn, or item_image_embeddings with item_image_knn",
            found=f"embeddings of {sorted(data.item_features)}, neighbour tables of {sorted(data.item_knn)}",
        )
    return {name: data.item_features[name] for name in both}, {name: data.item_knn[name] for name in both}
