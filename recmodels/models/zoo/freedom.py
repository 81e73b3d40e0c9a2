"""FREEDOM: a frozen item-item graph beside a thinned user-item graph (Zhou and Shen, ACM Multimedia 2023)."""

import torch
from pydantic import Field
from torch import Tensor

from recmodels.errors import InputError
from recmodels.graphs.adjacency import Adjacency
from recmodels.graphs.propagation import Beside, light_gcn
from recmodels.models import base
from recmodels.models.config import FusedGraphConfig
from recmodels.models.inputs import TrainingData
from recmodels.models.layers.blocks import FeaturesByModality, bpr_loss, node_table
from recmodels.models.layers.item_graphs import fused_item_graph


class Config(FusedGraphConfig):
    """Settings of FREEDOM."""

    n_ui_layers: int = Field(default=2, ge=1)
    """Layers L_UI of the convolution over the user-item graph, averaged from layer 0 on."""
    n_ii_layers: int = Field(default=1, ge=1)
    """Layers L_II of the propagation over the item-item graph, of which the last is kept."""
    edge_drop: float = Field(default=0.8, ge=0, lt=1)
    """Share of the user-item edges left out in each epoch; the published grid is 0.8 and 0.9."""
    modality_weight: float = Field(default=1e-3, ge=0)
    """Weight of the ranking losses of the projected item features; the published grid is 0 to 1e-3. 0 needs none."""


class Model(base.Model):
    """ID embeddings over both graphs; features only enter the graph and an auxiliary loss."""

    config: Config
    keeps_columns_apart = True

    def __init__(self, config: Config, data: TrainingData, generator: torch.Generator) -> None:
        super().__init__(config, data, generator)
        _check(config, data)
        self.nodes = node_table(data.n_users, data.n_items, config.embedding_size, generator)
        self.features = FeaturesByModality(
            data.item_features if config.modality_weight else {},
            config.embedding_size,
            generator,
            trainable=config.trainable_features,
            bias=False,
        )
        self.item_graph = fused_item_graph(data.item_knn, data.n_items, config).to(self.device)
        self.graph = self.bipartite_graph(data)
        self.adjacency = self.graph.adjacency()
        self.dropped_adjacency = self.adjacency

    def on_epoch_start(self, epoch: int, generator: torch.Generator) -> None:
        """Draw the edges that the epoch keeps."""
        super().on_epoch_start(epoch, generator)
        self.dropped_adjacency = self.graph.edge_drop(self.config.edge_drop, generator)

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Return the embeddings over the full graphs."""
        return self.split(self._embed(self.adjacency))

    def loss(self, batch: base.Batch) -> dict[str, Tensor]:
        """Return the ranking losses of the embeddings and of what describes users and items."""
        user, positive, negative = self.of_batch(self._embed(self.dropped_adjacency), batch)
        return {
            self.config.training.loss: self.ranking_losses(user, positive, negative, batch.barred).mean(),
            **self._item_losses(user, batch),
            **self._user_losses(batch, positive, negative),
        }

    def _item_losses(self, user: Tensor, batch: base.Batch) -> dict[str, Tensor]:
        """Return the ranking loss of each modality's projected features."""
        parts: dict[str, Tensor] = {}
        for modality, features in self.features.present():
            if self.config.training.loss == "bpr":
                loss = bpr_loss(features.margins(user, batch.positives, batch.negatives))
            else:
                positive, negative = features(batch.positives), features(batch.negatives)
                loss = self.ranking_losses(user, positive, negative, batch.barred).mean()
            parts[modality] = self.config.modality_weight * loss
        return parts

    def _user_losses(self, batch: base.Batch, positive: Tensor, negative: Tensor) -> dict[str, Tensor]:
        """Return nothing: FREEDOM has no features of users. The last two are embeddings of the batch's items."""
        return {}

    def _embed(self, adjacency: Adjacency) -> Tensor:
        return light_gcn(adjacency, self.nodes, self.config.n_ui_layers, self._beside())

    def _beside(self) -> list[Beside]:
        """Return the graphs whose last layer is added to that of users and items: here that of items."""
        return [Beside(self.item_graph, self.n_users, self.n_items, self.config.n_ii_layers)]


def _check(config: Config, data: TrainingData) -> None:
    where = "training data"
    if not data.item_knn:
        raise InputError(where, expected="item_text_knn or item_image_knn", found="neither")
    if config.modality_weight and not data.item_features:
        raise InputError(
            where,
            expected="item_text_embeddings or item_image_embeddings, as modality_weight is above 0",
            found="neither",
            action="Set modality_weight to 0 to train from the neighbour tables alone.",
        )
