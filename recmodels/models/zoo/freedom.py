"""FREEDOM: a frozen item-item graph beside a thinned user-item graph (Zhou and Shen, ACM Multimedia 2023)."""

import torch
from pydantic import Field
from torch import Tensor

from recmodels.errors import InputError
from recmodels.graphs.adjacency import Adjacency
from recmodels.graphs.bipartite import BipartiteGraph
from recmodels.graphs.neighbour_graphs import fuse, k_bin
from recmodels.graphs.propagation import light_gcn, propagate
from recmodels.models import base
from recmodels.models.config import ModelConfig
from recmodels.models.inputs import TrainingData
from recmodels.models.layers.blocks import Features, FeaturesByModality, bpr_loss, node_table, rows


class Config(ModelConfig):
    """
    Settings of FREEDOM.

    Deviation from the published program: features are frozen unless `trainable_features` is set; it trains copies.
    """

    n_ui_layers: int = Field(default=2, ge=1)
    """Layers L_UI of the convolution over the user-item graph, averaged from layer 0 on."""
    n_ii_layers: int = Field(default=1, ge=1)
    """Layers L_II of the propagation over the item-item graph, of which the last is kept."""
    neighbours: int = Field(default=10, ge=1)
    """Neighbours k of a node in each graph of similar nodes, itself included."""
    image_weight: float = Field(default=0.1, ge=0, le=1)
    """Share of the image graph in the item-item graph; the text graph has the rest. A modality alone has all."""
    edge_drop: float = Field(default=0.8, ge=0, lt=1)
    """Share of the user-item edges left out in each epoch; the published grid is 0.8 and 0.9."""
    modality_weight: float = Field(default=1e-3, ge=0)
    """Weight of the ranking losses of the projected item features; the published grid is 0 to 1e-3. 0 needs none."""
    trainable_features: bool = False
    """Train copies of the features, as the published program does, in place of frozen ones."""


class Model(base.Model):
    """ID embeddings over both graphs; features only enter the graph and an auxiliary loss."""

    def __init__(self, config: Config, data: TrainingData, generator: torch.Generator) -> None:
        super().__init__(config, data, generator)
        _check(config, data)
        self.n_ui_layers, self.n_ii_layers = config.n_ui_layers, config.n_ii_layers
        self.edge_drop, self.modality_weight = config.edge_drop, config.modality_weight
        self.nodes = node_table(data.n_users, data.n_items, config.embedding_size, generator)
        self.features = FeaturesByModality(
            {
                modality: Features(
                    matrix, config.embedding_size, generator, trainable=config.trainable_features, bias=False
                )
                for modality, matrix in data.item_features.items()
                if config.modality_weight
            }
        )
        self.item_graph = fuse(
            {modality: k_bin(table, data.n_items, config.neighbours) for modality, table in data.item_knn.items()},
            {"image": config.image_weight, "text": 1 - config.image_weight},
        ).to(self.device)
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

    def loss(
        self, users: Tensor, positives: Tensor, negatives: Tensor, barred: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return the ranking losses of the embeddings and of what describes users and items."""
        all_users, all_items = self._embed(self.thinned)
        user = rows(all_users, users)
        sizes = [len(positives), len(negatives)]
        positive, negative = rows(all_items, torch.cat([positives, negatives])).split(sizes)
        return {
            self.config.training.loss: self.ranking_losses(user, positive, negative, barred).mean(),
            **self._item_losses(user, positives, negatives, barred),
            **self._user_losses(users, positive, negative, barred),
        }

    def _item_losses(
        self, user: Tensor, positives: Tensor, negatives: Tensor, barred: Tensor | None
    ) -> dict[str, Tensor]:
        """Return the ranking loss of each modality's projected features."""
        parts: dict[str, Tensor] = {}
        for modality, features in self.features.present():
            if self.config.training.loss == "bpr":
                loss = bpr_loss(features.margins(user, positives, negatives))
            else:
                loss = self.ranking_losses(user, features(positives), features(negatives), barred).mean()
            parts[modality] = self.modality_weight * loss
        return parts

    def _user_losses(
        self, users: Tensor, positive: Tensor, negative: Tensor, barred: Tensor | None
    ) -> dict[str, Tensor]:
        """Return nothing: FREEDOM has no features of users. Users are ids, the others embeddings of items."""
        return {}

    def _embed(self, adjacency: Adjacency) -> tuple[Tensor, Tensor]:
        users, items = light_gcn(adjacency, self.nodes, self.n_ui_layers).split([self.n_users, self.n_items])
        return self._with_similar_users(users), items + self._over(self.item_graph, 1, self.n_ii_layers)

    def _with_similar_users(self, users: Tensor) -> Tensor:
        """Return the users as they are: FREEDOM has no graph of users."""
        return users

    def _over(self, graph: Adjacency, side: int, n_layers: int) -> Tensor:
        """Return the last layer over a graph of users (side 0) or items (side 1)."""
        nodes = self.nodes.split([self.n_users, self.n_items])[side]
        for _ in range(n_layers):
            nodes = propagate(graph, nodes)
        return nodes


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
