"""LayerGCN: layers refined by their likeness to layer 0, over a thinned graph (Zhou et al., ICDE 2023)."""

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from recmodels.graphs.adjacency import Adjacency
from recmodels.graphs.propagation import propagate
from recmodels.models import base
from recmodels.models.config import ModelConfig
from recmodels.models.inputs import TrainingData
from recmodels.models.layers.blocks import node_table, row_dot
from recmodels.models.layers.columns import row_norms, total

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

    config: Config
    keeps_columns_apart = True

    def __init__(self, config: Config, data: TrainingData, generator: torch.Generator) -> None:
        super().__init__(config, data, generator)
        self.nodes = node_table(data.n_users, data.n_items, config.embedding_size, generator)
        self.graph = self.bipartite_graph(data)
        self.adjacency = self.graph.adjacency()
        self.dropped_adjacency = self.adjacency

    def on_epoch_start(self, epoch: int, generator: torch.Generator) -> None:
        """Draw the edges that the epoch keeps: by degree in even epochs, uniformly in odd ones."""
        super().on_epoch_start(epoch, generator)
        weighting = "uniform" if epoch % 2 else "degree"
        self.dropped_adjacency = self.graph.edge_drop(self.config.edge_drop, generator, weighting=weighting)

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Return the sum of the refined layers."""
        return self.split(self._sum_of_layers(self.adjacency))

    def loss(self, batch: base.Batch) -> dict[str, Tensor]:
        """Return the ranking loss and the penalty on layer 0, both summed over the batch."""
        user, positive, negative = self.of_batch(self._sum_of_layers(self.dropped_adjacency), batch)
        ids = torch.cat(self.of_batch(self.nodes, batch))
        return {
            self.config.training.loss: self.ranking_losses(user, positive, negative, batch.barred).sum(),
            "penalty": self.config.regularisation / 2 * total(ids.square().sum()),
        }

    def _sum_of_layers(self, adjacency: Adjacency) -> Tensor:
        return _SumOfLayers.apply(self.nodes, adjacency, self.config.n_layers)


class _SumOfLayers(torch.autograd.Function):
    r"""
    The sum of layers 1 to L, :math:`Y_l = \hat A X_{l-1}`, :math:`X_l = \cos(Y_l, X_0) Y_l` row by row.

    Autograd would take several passes over the nodes for each cosine and each sum; this backward takes few.
    """

    @staticmethod
    def forward(ctx: Any, ego: Tensor, adjacency: Adjacency, n_layers: int) -> Tensor:
        ego_lengths = _lengths(ego)
        layer, total = ego, torch.zeros_like(ego)
        saved: list[Tensor] = []
        for _ in range(n_layers):
            propagated = propagate(adjacency, layer)
            lengths = _lengths(propagated)
            cosines = row_dot(propagated, ego).div_(lengths).div_(ego_lengths)
            layer = propagated * cosines[:, None]
            total += layer
            saved += [propagated, lengths, cosines]
        ctx.adjacency = adjacency
        ctx.save_for_backward(ego, ego_lengths, *saved)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        ego, ego_lengths, *saved = ctx.saved_tensors
        of_ego = torch.zeros_like(ego)
        of_layer = gradients[0]
        for at in reversed(range(0, len(saved), 3)):
            propagated, lengths, cosines = saved[at : at + 3]
            of_cosines = row_dot(of_layer, propagated)
            across = (of_cosines / (lengths * ego_lengths))[:, None]
            along = of_cosines.mul_(cosines).neg_()
            of_ego.addcmul_(propagated, across).addcmul_(ego, (along / ego_lengths.square())[:, None])
            of_propagated = (of_layer * cosines[:, None]).addcmul_(ego, across)
            of_propagated.addcmul_(propagated, (along / lengths.square())[:, None])
            # The adjacency is symmetric. Layer 0 is not part of the sum, so its gradient has no share of the output's.
            through = propagate(ctx.adjacency, of_propagated)
            of_layer = through + gradients[0] if at else through
        return of_ego + of_layer, None, None


def _lengths(x: Tensor) -> Tensor:
    return row_norms(x).clamp_min_(_LEAST_LENGTH)
