"""LightGCN: the mean of the layers of a linear convolution over the user-item graph (He et al., SIGIR 2020)."""

import torch
from pydantic import Field
from torch import Tensor

from recmodels.graphs.propagation import light_gcn
from recmodels.models import base
from recmodels.models.config import ModelConfig
from recmodels.models.inputs import TrainingData
from recmodels.models.layers.blocks import frobenius_penalty, node_table


class Config(ModelConfig):
    """Settings of LightGCN."""

    n_layers: int = Field(default=3, ge=1)
    """Layers L of the convolution; the published grid is 1 to 4."""
    regularisation: float = Field(default=1e-4, ge=0)
    """Weight of the Frobenius norms of the batch's ID embeddings; the published grid is 1e-6 to 1e-2."""


class Model(base.Model):
    """ID embeddings, propagated."""

    config: Config
    keeps_columns_apart = True

    def __init__(self, config: Config, data: TrainingData, generator: torch.Generator) -> None:
        super().__init__(config, data, generator)
        self.nodes = node_table(data.n_users, data.n_items, config.embedding_size, generator)
        self.adjacency = self.bipartite_graph(data).adjacency()

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Return the mean of the layers."""
        return self.split(self._convolved())

    def loss(self, batch: base.Batch) -> dict[str, Tensor]:
        """Return the ranking loss and the penalty, which is on layer 0."""
        user, positive, negative = self.of_batch(self._convolved(), batch)
        return {
            self.config.training.loss: self.ranking_losses(user, positive, negative, batch.barred).mean(),
            "penalty": self.config.regularisation
            * frobenius_penalty(*self.of_batch(self.nodes, batch), n_rows=len(user)),
        }

    def _convolved(self) -> Tensor:
        return light_gcn(self.adjacency, self.nodes, self.config.n_layers)
