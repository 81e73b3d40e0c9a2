"""BLAST: FREEDOM with a user-user graph from profiles, and balanced interactions (Li et al., IJCAI 2025)."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from recmodels.errors import InputError
from recmodels.graphs.neighbour_graphs import k_bin
from recmodels.graphs.propagation import Beside
from recmodels.models import base
from recmodels.models.config import TrainingConfig
from recmodels.models.inputs import TrainingData
from recmodels.models.layers.blocks import Features
from recmodels.models.zoo import freedom


class Config(freedom.Config):
    """
    Settings of BLAST.

    The rows of the paper's ablation (table 4) are: all of it; without `training.restricted_negatives` and
    `training.augmentation` (BLAST-USER); without `user_graph` and with `profile_weight` 0 (BLAST-FN); with none of
    these, FREEDOM on the same item texts (BLAST-LLM where these are profiles). `trainable_features` is about the
    profiles too.
    """

    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "baby": {"n_ui_layers": 5, "n_ii_layers": 2, "n_uu_layers": 2}
    }

    n_uu_layers: int = Field(default=1, ge=1)
    """Layers L_UU of the propagation over the user-user graph, of which the last is kept."""
    user_graph: bool = True
    """Propagate over the graph of users with similar profiles."""
    user_graph_weight: float = Field(default=1.0, ge=0)
    """Weight of what comes over the graph of users beside the user-item graph's embeddings; the paper adds it as is."""
    profile_weight: float = Field(default=1e-3, ge=0)
    """Weight lambda_2 of the ranking loss of the projected user profiles. 0 needs no profile embeddings."""
    training: TrainingConfig = TrainingConfig(restricted_negatives=True, augmentation=True)
    """The training loop's settings; restricted negatives and augmentation are part of the model."""


class Model(freedom.Model):
    """FREEDOM's embeddings, those of users over the graph of similar users too."""

    config: Config  # pyright: ignore[reportIncompatibleVariableOverride] it is never assigned anew

    def __init__(self, config: Config, data: TrainingData, generator: torch.Generator) -> None:
        super().__init__(config, data, generator)
        _check(config, data)
        self.profiles = (
            Features(data.user_features, config.embedding_size, generator, trainable=config.trainable_features)
            if config.profile_weight and data.user_features is not None
            else None
        )
        self.user_graph = (
            k_bin(data.user_knn, data.n_users, config.neighbours).to(self.device)
            if config.user_graph and data.user_knn is not None
            else None
        )

    def _user_losses(self, batch: base.Batch, positive: Tensor, negative: Tensor) -> dict[str, Tensor]:
        """Return the ranking loss of the projected profiles."""
        if self.profiles is None:
            return {}
        losses = self.ranking_losses(self.profiles(batch.users), positive, negative, batch.barred)
        return {"profile": self.config.profile_weight * losses.mean()}

    def _beside(self) -> list[Beside]:
        if self.user_graph is None:
            return super()._beside()
        users = Beside(self.user_graph, 0, self.n_users, self.config.n_uu_layers, self.config.user_graph_weight)
        return [users, *super()._beside()]


def _check(config: Config, data: TrainingData) -> None:
    where = "training data of blast"
    if config.user_graph and data.user_knn is None:
        raise InputError(where, expected="user_knn", found="none", action="Set user_graph to false to do without.")
    if config.profile_weight and data.user_features is None:
        raise InputError(
            where,
            expected="user_text_embeddings, as profile_weight is above 0",
            found="none",
            action="Set profile_weight to 0 to do without.",
        )
