"""The protocol of the models: a final ranking, reached by gradient steps on a loss or in closed form."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import polars as pl
import torch
from torch import Tensor, nn
from torch.nn import functional

from recmodels.errors import InputError
from recmodels.graphs.bipartite import BipartiteGraph
from recmodels.io.devices import resolve_device
from recmodels.models.config import AnyConfig, ClosedFormConfig, ModelConfig
from recmodels.models.inputs import FeatureMatrix, TrainingData
from recmodels.models.layers.blocks import lookup_each, row_dot, sampled_softmax
from recmodels.ranking.ranker import EmbeddingScorer, Ranker


class AnyModel(nn.Module, ABC):
    """
    What every model of the registry has.

    Attributes
    ----------
    config
        The model's own configuration; each model declares its type.
    device
        Where it computes.
    n_users, n_items
        Sizes of the id spaces.
    """

    keeps_columns_apart: bool = False
    """
    Whether no layer mixes the columns of embeddings, so that several processes can train some each: tables have them as
    their columns, affine maps as their outputs. Sums over columns are `recmodels.models.layers.columns.total`.
    """

    def __init__(self, config: AnyConfig, data: TrainingData, device: torch.device) -> None:
        super().__init__()
        self.config = config
        self.device = device
        self.n_users = data.n_users
        self.n_items = data.n_items

    @classmethod
    def check_shards(cls, config: AnyConfig) -> None:
        """Raise InputError if a model of this class cannot be trained in the shards that its configuration names."""
        shards, width = config.training.shards, getattr(config, "embedding_size", 1)
        where = f"training.shards of {cls.__module__.rpartition('.')[2]}"
        if not cls.keeps_columns_apart:
            raise InputError(where, expected="1, as it mixes embedding columns", found=str(shards))
        if width % shards:
            raise InputError(where, expected=f"a divisor of embedding_size {width}", found=str(shards))
        for setting in ("trainable_features", "training.compile"):
            owner = config.training if setting.startswith("training.") else config
            if getattr(owner, setting.rpartition(".")[2], False):
                raise InputError(where, expected=f"1 with {setting}, which has no columns to cut", found=str(shards))

    @abstractmethod
    def ranker(self) -> Ranker:
        """Return the final ranking: what validation, early stopping, evaluation and serving use."""


class Batch(NamedTuple):
    """A batch of training pairs."""

    users: Tensor
    positives: Tensor
    """Ids of both, (batch,) int64."""
    negatives: Tensor
    """Ids, int64: one a positive, (batch,); under the sampled softmax those of the whole batch, (n,); empty for
    models that use none."""
    barred: Tensor | None = None
    """Under the sampled softmax, (batch, n) bool: what is no negative of the user. None bars nothing."""


class Model(AnyModel):
    """
    A recommender that scores a user and an item by the inner product of their embeddings, trained in gradient steps.

    A model that changes this ranking, such as by a second look at the best items, overrides `ranker`.

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
    batch_size
        Training pairs in a step: those of the configuration, or what follows from the data where it names none.
    generator
        Source of the noise inside the loss; each epoch names its own.
    """

    uses_negatives: bool = True
    """Whether the loss reads the sampled negatives."""
    pairwise: bool = True
    """Whether the loss sets positives against negatives in pairs, so that `training.loss` has something to replace."""
    steps_on_host: bool = False
    """Whether a step needs a value or size on the CPU, so that it cannot be recorded and replayed on a CUDA device."""

    def __init__(self, config: ModelConfig, data: TrainingData, generator: torch.Generator) -> None:
        super().__init__(config, data, resolve_device(config.training.device, setting="training.device", mps=False))
        _check_training_inputs(config, data, self)
        self.generator = generator
        self.batch_size = config.batch_size_for(data.train_users.size)

    @abstractmethod
    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Return the final embeddings, users (n_users, d) and items (n_items, d), on the full graphs, without noise."""

    @abstractmethod
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the weighted parts of the loss of a batch, scalars whose sum is minimised."""

    def ranking_losses(self, users: Tensor, positives: Tensor, negatives: Tensor, barred: Tensor | None) -> Tensor:
        """Return the configured ranking loss of each positive, (batch,), from the embeddings of a batch's ids."""
        settings = self.config.training
        if settings.loss == "sampled_softmax":
            return sampled_softmax(users, positives, negatives, barred, settings.temperature)
        return functional.softplus(-row_dot(users, positives - negatives))

    def split(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """Return the users (n_users, d) and the items (n_items, d) of a matrix of all nodes, users first."""
        users, items = nodes.split([self.n_users, self.n_items])
        return users, items

    def of_batch(self, nodes: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return the rows of users, positives and negatives of a matrix of all nodes, users first."""
        items = batch.positives + self.n_users, batch.negatives + self.n_users
        user, positive, negative = lookup_each(nodes, batch.users, *items)
        return user, positive, negative

    def bipartite_graph(self, data: TrainingData) -> BipartiteGraph:
        """Return the graph of the training pairs, on the model's device."""
        return BipartiteGraph(*data.train_pairs, data.n_users, data.n_items, device=self.device)

    def on_epoch_start(self, epoch: int, generator: torch.Generator) -> None:
        """Redraw what is drawn once an epoch; later noise of the epoch comes from the same generator."""
        self.generator = generator

    def ranker(self) -> Ranker:
        """Return the ranking by the final embeddings, in evaluation mode, float32, detached from the parameters."""
        self.eval()
        with torch.no_grad():
            users, items = self.embeddings()
        return EmbeddingScorer(users.float(), items.float())


class ClosedFormModel(AnyModel):
    """
    A recommender that follows from the training pairs and a few settings, without gradient steps.

    The trainer tries the choices of the settings in their order and keeps the first with the best validation
    Recall@20. The chosen values are the model's only state: the rest follows from them and the data.

    Parameters
    ----------
    config
        The model's own configuration.
    data
        Training pairs, and validation pairs to choose by.
    generator
        Not used: nothing is drawn.

    Raises
    ------
    InputError
        If the configuration asks for added pairs, restricted negatives or another loss, which need gradient steps.

    Attributes
    ----------
    settings
        Names of what is chosen, also columns of the history.
    train_matrix
        (n_users, n_items) binary CSR float32.
    chosen
        The chosen values, (n_settings,) float64; NaN before.
    """

    settings: ClassVar[tuple[str, ...]]
    chosen: Tensor

    def __init__(self, config: ClosedFormConfig, data: TrainingData, generator: torch.Generator) -> None:
        super().__init__(config, data, torch.device("cpu"))
        if config.training.augmentation or config.training.restricted_negatives:
            raise InputError(
                "training.augmentation, training.restricted_negatives",
                expected="false for a model in closed form",
                found="true",
            )
        _check_loss(config, replaceable=False)
        self.train_matrix = data.train_matrix()
        self.register_buffer("chosen", torch.full((len(self.settings),), torch.nan, dtype=torch.float64))

    @property
    @abstractmethod
    def choices(self) -> Sequence[tuple[float, ...]]:
        """The values of the settings to try, at least one choice."""

    @abstractmethod
    def solve(self, values: Sequence[float]) -> Ranker:
        """Return the ranking with these values of the settings."""

    def choose(self, values: Sequence[float]) -> None:
        """Set the values of the settings."""
        self.chosen.copy_(torch.tensor(values, dtype=torch.float64))

    def ranker(self) -> Ranker:
        """Return the ranking with the chosen values."""
        return self.solve(self.chosen.tolist())


def _check_training_inputs(config: ModelConfig, data: TrainingData, model: Model) -> None:
    if config.training.augmentation and data.added_users is None:
        raise InputError("training.augmentation", expected="augmented_interactions", found="none")
    _check_loss(config, replaceable=model.uses_negatives and model.pairwise)
    if config.training.restricted_negatives and not model.uses_negatives:
        raise InputError(
            "training.restricted_negatives",
            expected="a model that samples negatives",
            found="one that uses none",
            action="Turn it off; training.augmentation works without negatives.",
        )
    if config.training.restricted_negatives and not data.item_knn:
        raise InputError("training.restricted_negatives", expected="item_text_knn or item_image_knn", found="neither")


def _check_loss(config: AnyConfig, *, replaceable: bool) -> None:
    if config.training.loss != "bpr" and not replaceable:
        raise InputError(
            "training.loss",
            expected="bpr, as this model has no pairwise loss to replace",
            found=config.training.loss,
        )


def require_item_features(data: TrainingData, model: str) -> dict[str, FeatureMatrix]:
    """Return the item features by modality, at least one; raise InputError if both are absent."""
    if not data.item_features:
        raise InputError(
            f"training data of {model}", expected="item_text_embeddings or item_image_embeddings", found="neither"
        )
    return data.item_features


def require_item_features_and_knn(
    data: TrainingData, model: str
) -> tuple[dict[str, FeatureMatrix], dict[str, pl.DataFrame]]:
    """Return item features and neighbour tables of the modalities that have both; raise InputError if none has."""
    both = [modality for modality in data.item_features if modality in data.item_knn]
    if not both:
        raise InputError(
            f"training data of {model}",
            expected="item_text_embeddings with item_text_knn, or item_image_embeddings with item_image_knn",
            found=f"embeddings of {sorted(data.item_features)}, neighbour tables of {sorted(data.item_knn)}",
        )
    return {name: data.item_features[name] for name in both}, {name: data.item_knn[name] for name in both}
