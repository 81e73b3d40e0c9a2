"""BLAST: item-item and user-user graphs from profiles, and balanced interactions (Li et al., IJCAI 2025)."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from recmodels.errors import InputError
from recmodels.graphs.adjacency import Adjacency, BipartiteGraph, fuse, k_bin
from recmodels.graphs.propagation import light_gcn, propagate
from recmodels.models import base
from recmodels.models.blocks import Features, FeaturesByModality, bpr_loss, node_table, row_dot, rows
from recmodels.models.config import ModelConfig
from recmodels.training.config import TrainingConfig
from recmodels.training.data import TrainingData


class Config(ModelConfig):
    """
    Settings of BLAST.

    The rows of the paper's ablation (table 4) are: all of it; without `training.restricted_negatives` and
    `training.augmentation` (BLAST-USER); without `user_graph` and with `profile_weight` 0 (BLAST-FN); with none of
    these, FREEDOM on the same item texts (BLAST-LLM where these are profiles).
    """

    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "baby": {"n_ui_layers": 5, "n_ii_layers": 2, "n_uu_layers": 2}
    }

    n_ui_layers: int = Field(default=2, ge=1)
    """Layers L_UI of the convolution over the user-item graph, averaged from layer 0 on."""
    n_ii_layers: int = Field(default=1, ge=1)
    """Layers L_II of the propagation over the item-item graph, of which the last is kept."""
    n_uu_layers: int = Field(default=1, ge=1)
    """Layers L_UU of the propagation over the user-user graph, of which the last is kept."""
    user_graph: bool = True
    """Propagate over the graph of users with similar profiles."""
    neighbours: int = Field(default=10, ge=1)
    """Neighbours k of an item or user in each graph, itself included."""
    image_weight: float = Field(default=0.1, ge=0, le=1)
    """Share of the image graph in the item-item graph; the text graph has the rest. A modality alone has all."""
    edge_drop: float = Field(default=0.8, ge=0, lt=1)
    """Share of the user-item edges left out in each epoch; the published grid is 0.8 and 0.9."""
    modality_weight: float = Field(default=1e-3, ge=0)
    """Weight lambda_1 of the ranking losses of the projected item features. 0 needs no features."""
    profile_weight: float = Field(default=1e-3, ge=0)
    """Weight lambda_2 of the ranking loss of the projected user profiles. 0 needs no profile embeddings."""
    trainable_features: bool = False
    """Train copies of the features, as the published program does, in place of frozen ones."""
    training: TrainingConfig = TrainingConfig(restricted_negatives=True, augmentation=True)
    """The training loop's settings; restricted negatives and augmentation are part of the model."""


class Model(base.Model):
    """ID embeddings over the user-item, item-item and user-user graphs."""

    def __init__(self, config: Config, data: TrainingData, generator: torch.Generator) -> None:
        super().__init__(config, data, generator)
        _check(config, data)
        self.n_ui_layers, self.n_ii_layers, self.n_uu_layers = (
            config.n_ui_layers,
            config.n_ii_layers,
            config.n_uu_layers,
        )
        self.edge_drop, self.modality_weight = config.edge_drop, config.modality_weight
        self.profile_weight = config.profile_weight
        width = config.embedding_size
        self.nodes = node_table(data.n_users, data.n_items, width, generator)
        self.features = FeaturesByModality(
            {
                modality: Features(matrix, width, generator, trainable=config.trainable_features, bias=False)
                for modality, matrix in data.item_features.items()
                if config.modality_weight
            }
        )
        self.profiles = (
            Features(data.user_features, width, generator, trainable=config.trainable_features)
            if config.profile_weight and data.user_features is not None
            else None
        )
        self.item_graph = fuse(
            {modality: k_bin(table, data.n_items, config.neighbours) for modality, table in data.item_knn.items()},
            {"image": config.image_weight, "text": 1 - config.image_weight},
        ).to(self.device)
        self.user_graph = (
            k_bin(data.user_knn, data.n_users, config.neighbours).to(self.device)
            if config.user_graph and data.user_knn is not None
            else None
        )
        self.graph = BipartiteGraph(*data.train_pairs, data.n_users, data.n_items, device=self.device)
        self.adjacency = self.graph.adjacency()
        self.thinned = self.adjacency

    def on_epoch_start(self, epoch: int, generator: torch.Generator) -> None:
        """Draw the edges that the epoch keeps."""
        super().on_epoch_start(epoch, generator)
        self.thinned = self.graph.edge_drop(self.edge_drop, generator)

    def propagate(self) -> tuple[Tensor, Tensor]:
        """Return the embeddings over the full graphs."""
        return self._embed(self.adjacency)

    def loss(self, users: Tensor, positives: Tensor, negatives: Tensor) -> dict[str, Tensor]:
        """Return the ranking losses of the embeddings, of the projected item features and of the projected profiles."""
        all_users, all_items = self._embed(self.thinned)
        user = rows(all_users, users)
        positive, negative = rows(all_items, torch.cat([positives, negatives])).chunk(2)
        parts = {"bpr": bpr_loss(row_dot(user, positive - negative))}
        for modality, features in self.features.present():
            parts[modality] = self.modality_weight * bpr_loss(features.margins(user, positives, negatives))
        if self.profiles is not None:
            parts["profile"] = self.profile_weight * bpr_loss(row_dot(self.profiles(users), positive - negative))
        return parts

    def _embed(self, adjacency: Adjacency) -> tuple[Tensor, Tensor]:
        sizes = [self.n_users, self.n_items]
        users, items = light_gcn(adjacency, self.nodes, self.n_ui_layers).split(sizes)
        user_side, item_side = self.nodes.split(sizes)
        for _ in range(self.n_ii_layers):
            item_side = propagate(self.item_graph, item_side)
        items = items + item_side
        if self.user_graph is not None:
            for _ in range(self.n_uu_layers):
                user_side = propagate(self.user_graph, user_side)
            users = users + user_side
        return users, items


def _check(config: Config, data: TrainingData) -> None:
    where = "training data of blast"
    if not data.item_knn:
        raise InputError(where, expected="item_text_knn or item_image_knn", found="neither")
    if config.user_graph and data.user_knn is None:
        raise InputError(where, expected="user_knn", found="none", action="Set user_graph to false to do without.")
    if config.modality_weight and not data.item_features:
        raise InputError(
            where,
            expected="item_text_embeddings or item_image_embeddings, as modality_weight is above 0",
            found="neither",
            action="Set modality_weight to 0 to train from the neighbour tables alone.",
        )
    if config.profile_weight and data.user_features is None:
        raise InputError(
            where,
            expected="user_text_embeddings, as profile_weight is above 0",
            found="none",
            action="Set profile_weight to 0 to do without.",
        )
