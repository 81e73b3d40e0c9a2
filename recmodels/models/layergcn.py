"""LayerGCN: layers refined by their likeness to layer 0, over a thinned graph (Zhou et al., ICDE 2023)."""

from typing import Any

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from recmodels.graphs.adjacency import Adjacency, BipartiteGraph
from recmodels.graphs.propagation import propagate
from recmodels.models import base
from recmodels.models.blocks import node_table, row_dot, rows
from recmodels.models.config import ModelConfig
from recmodels.training.data import TrainingData

_LEAST_LENGTH = 1e-8


class Config(ModelConfig):
    """Settings of LayerGCN."""

    n_layers: int = Field(default=4, ge=1)
    """Layers of the convolution; layer 0 is not part of the result."""
    edge_drop: float = Field(default=0.1, ge=0, lt=1)
    """Share of the edges left out in each epoch, by degree and uniformly in turns; the published grid is 0 to 0.2."""
    regularisation: float = Field(default=1e-3, ge=0)
    """Weight of half the squared lengths of the batch's ID embeddings; the published grid is 1e-5 to 1e-2."""


class Model(base.Model):
    """ID embeddings, propagated; each layer's rows are scaled by their cosine with layer 0."""

    def __init__(self, config: Config, data: TrainingData, generator: torch.Generator) -> None:
        super().__init__(config, data, generator)
        self.n_layers, self.regularisation, self.edge_drop = config.n_layers, config.regularisation, config.edge_drop
        self.nodes = node_table(data.n_users, data.n_items, config.embedding_size, generator)
        self.graph = BipartiteGraph(*data.train_pairs, data.n_users, data.n_items, device=self.device)
        self.adjacency = self.graph.adjacency()
        self.thinned = self.adjacency

    def on_epoch_start(self, epoch: int, generator: torch.Generator) -> None:
        """Draw the edges that the epoch keeps: by degree in even epochs, uniformly in odd ones."""
        super().on_epoch_start(epoch, generator)
        weighting = "uniform" if epoch % 2 else "degree"
        self.thinned = self.graph.edge_drop(self.edge_drop, generator, weighting=weighting)

    def propagate(self) -> tuple[Tensor, Tensor]:
        """Return the sum of the refined layers."""
        users, items = self._sum_of_layers(self.adjacency).split([self.n_users, self.n_items])
        return users, items

    def loss(self, users: Tensor, positives: Tensor, negatives: Tensor) -> dict[str, Tensor]:
        """Return the ranking loss and the penalty on layer 0, both summed over the batch."""
        batch = torch.cat([users, positives + self.n_users, negatives + self.n_users])
        user, positive, negative = rows(self._sum_of_layers(self.thinned), batch).chunk(3)
        return {
            "bpr": functional.softplus(row_dot(user, negative - positive)).sum(),
            "penalty": self.regularisation / 2 * rows(self.nodes, batch).square().sum(),
        }

    def _sum_of_layers(self, adjacency: Adjacency) -> Tensor:
        layer = self.nodes
        total = torch.zeros_like(layer)
        for _ in range(self.n_layers):
            layer = refine(propagate(adjacency, layer), self.nodes)
            total = total + layer
        return total


def refine(layer: Tensor, ego: Tensor) -> Tensor:
    """Return the rows of a layer, each times its cosine with the same row of the ego layer, both (n, d)."""
    return _Refine.apply(layer, ego)


class _Refine(torch.autograd.Function):
    """The product with a backward of a few passes: autograd's own through the cosine takes four times as long."""

    @staticmethod
    def forward(ctx: Any, layer: Tensor, ego: Tensor) -> Tensor:
        lengths = torch.linalg.vector_norm(layer, dim=1).clamp_min_(_LEAST_LENGTH)
        ego_lengths = torch.linalg.vector_norm(ego, dim=1).clamp_min_(_LEAST_LENGTH)
        cosines = row_dot(layer, ego).div_(lengths).div_(ego_lengths)
        ctx.save_for_backward(layer, ego, cosines, lengths, ego_lengths)
        return layer * cosines[:, None]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        layer, ego, cosines, lengths, ego_lengths = ctx.saved_tensors
        (gradient,) = gradients
        of_cosines = row_dot(gradient, layer)
        across = (of_cosines / (lengths * ego_lengths))[:, None]
        along = -of_cosines * cosines
        of_layer = (gradient * cosines[:, None]).addcmul_(ego, across)
        of_layer.addcmul_(layer, (along / lengths.square())[:, None])
        of_ego = (layer * across).addcmul_(ego, (along / ego_lengths.square())[:, None])
        return of_layer, of_ego
