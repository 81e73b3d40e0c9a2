"""LATTICE: item graphs learned from the projected features beside fixed ones (Zhang et al., ACM Multimedia 2021)."""

import numpy as np
import torch
from pydantic import Field
from scipy import sparse
from torch import Tensor, nn
from torch.nn import functional

from recmodels.graphs.adjacency import Adjacency
from recmodels.graphs.propagation import light_gcn, propagate
from recmodels.models import base
from recmodels.models.config import ItemGraphConfig, TrainingConfig
from recmodels.models.inputs import TrainingData
from recmodels.models.layers.blocks import FeaturesByModality, lookup, lookup_each, node_table, squared_penalty
from recmodels.models.layers.item_graphs import item_graphs
from recmodels.ranking.ranker import EmbeddingScorer

Edges = list[tuple[Tensor, Tensor]]
"""Of each modality, the destinations and the weights of the edges of every item, both (n_items, k)."""


class Config(ItemGraphConfig):
    """
    Settings of LATTICE.

    As in the published program, Adam's momentum moves the item graph's parameters in every batch, though only the first
    of an epoch has a gradient for them.
    """

    n_ui_layers: int = Field(default=2, ge=1)
    """Layers of the convolution over the user-item graph."""
    fixed_share: float = Field(default=0.9, ge=0, le=1)
    """Share of the graphs of the raw features in the item graph; the learned one has the rest."""
    regularisation: float = Field(default=1e-4, ge=0)
    """Weight of the squared lengths of the batch's final embeddings; the published grid is 0 to 1e-3."""
    training: TrainingConfig = TrainingConfig(learning_rate_factor=0.96)
    """The training loop's settings; the published learning rates are 1e-4 to 5e-3, falling by 0.96 in 50 epochs."""


class Model(base.Model):
    """
    ID embeddings over the user-item graph, and one step over an item graph that the first batch of an epoch trains.

    The learned graph is kept as its edges: k destinations and weights a row and modality, never a dense matrix.
    """

    config: Config

    def __init__(self, config: Config, data: TrainingData, generator: torch.Generator) -> None:
        super().__init__(config, data, generator)
        features, tables = base.require_item_features_and_knn(data, "lattice")
        self.nodes = node_table(data.n_users, data.n_items, config.embedding_size, generator)
        self.features = FeaturesByModality(
            features, config.embedding_size, generator, trainable=config.trainable_features
        )
        self.shares = nn.Parameter(torch.full((len(features),), 1 / len(features)))
        self.fixed_graphs = list(item_graphs(tables, data.n_items, config.neighbours, self.device).values())
        self.adjacency = self.bipartite_graph(data).adjacency(normalisation="row", self_loops=True, epsilon=0.0)
        self.frozen_graph: Adjacency | None = None

    def on_epoch_start(self, epoch: int, generator: torch.Generator) -> None:
        """Forget the item graph, so that the first batch builds it anew, with its gradient."""
        super().on_epoch_start(epoch, generator)
        self.frozen_graph = None

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Return the embeddings over the user-item graph and the item graph of the present parameters."""
        return self._embed(self._item_side(self._learned_edges()))

    def loss(self, batch: base.Batch) -> dict[str, Tensor]:
        """Return the ranking loss and the penalty on the final embeddings."""
        if self.frozen_graph is None:
            edges = self._learned_edges()
            side = self._item_side(edges)
            self.frozen_graph = self._frozen(edges)
        else:
            side = propagate(self.frozen_graph, self.nodes[self.n_users :])
        all_users, all_items = self._embed(side)
        user = lookup(all_users, batch.users)
        positive, negative = lookup_each(all_items, batch.positives, batch.negatives)
        return {
            self.config.training.loss: self.ranking_losses(user, positive, negative, batch.barred).mean(),
            "penalty": self.config.regularisation
            * squared_penalty(user, positive, negative, batch_size=self.batch_size),
        }

    def _embed(self, side: Tensor) -> tuple[Tensor, Tensor]:
        users, items = self.split(light_gcn(self.adjacency, self.nodes, self.config.n_ui_layers))
        return users, items + functional.normalize(side)

    def _item_side(self, learned_edges: Edges) -> Tensor:
        """Return S E_I with the gradient to the projections and shares."""
        items = self.nodes[self.n_users :]
        fixed = torch.stack([propagate(graph, items) for graph in self.fixed_graphs], dim=2) @ self.shares.softmax(0)
        learned = torch.zeros_like(items)
        for destinations, weight in learned_edges:
            gathered = lookup(items, destinations.reshape(-1)).view(*destinations.shape, -1)
            learned = learned + (weight[:, None, :] @ gathered).squeeze(1)
        share = self.config.fixed_share
        return share * fixed + (1 - share) * learned

    def _learned_edges(self) -> Edges:
        """Return the edges of the learned graph, normalised over all modalities."""
        neighbours: list[Tensor] = []
        similarities: list[Tensor] = []
        everything = torch.arange(self.n_items, device=self.device)
        n_neighbours = min(self.config.neighbours, self.n_items)
        for (_, features), share in zip(self.features.present(), self.shares.softmax(0), strict=True):
            directions = functional.normalize(features.all())
            nearest, _ = EmbeddingScorer(directions, directions).top_items(everything, n_neighbours)
            gathered = lookup(directions, nearest.reshape(-1)).view(*nearest.shape, -1)
            neighbours.append(nearest)
            similarities.append(share * (gathered @ directions[:, :, None]).squeeze(2))
        sums = torch.stack([similarity.sum(dim=1) for similarity in similarities]).sum(dim=0)
        # A row of opposing neighbours can sum to nothing or less; like a row without edges it gets no weight.
        scale = torch.where(sums > 0, sums.clamp_min(torch.finfo(sums.dtype).tiny).rsqrt(), 0.0)
        by_column = [lookup(scale[:, None], nearest.reshape(-1)).view(nearest.shape) for nearest in neighbours]
        weights = [
            similarity * scale[:, None] * column for similarity, column in zip(similarities, by_column, strict=True)
        ]
        return list(zip(neighbours, weights, strict=True))

    @torch.no_grad()
    def _frozen(self, learned_edges: Edges) -> Adjacency:
        """Return the item graph S of the present parameters as one matrix."""
        shares, fixed_share = self.shares.softmax(0).tolist(), self.config.fixed_share
        total = sparse.csr_array((self.n_items, self.n_items), dtype=np.float32)
        for graph, share in zip(self.fixed_graphs, shares, strict=True):
            total = total + graph.to_scipy() * np.float32(fixed_share * share)
        for nearest, weight in learned_edges:
            indptr = np.arange(0, nearest.numel() + 1, nearest.shape[1])
            learned = (weight.detach().reshape(-1).float().cpu().numpy(), nearest.reshape(-1).cpu().numpy(), indptr)
            total = total + sparse.csr_array(learned, shape=total.shape) * np.float32(1 - fixed_share)
        return Adjacency.from_scipy(total).to(self.device)
