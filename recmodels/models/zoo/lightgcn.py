"""LightGCN: the mean of the layers of a linear convolution over the user-item graph (He et al., SIGIR 2020)."""

import torch
from pydantic import Field
from torch import Tensor

from recmodels.graphs.bipartite import BipartiteGraph
from recmodels.graphs.propagation import light_gcn
from recmodels.models import base
from recmodels.models.config import ModelConfig
from recmodels.models.inputs import TrainingData
from recmodels.models.layers.blocks import frobenius_penalty, node_table, rows


class Config(ModelConfig):
    """Settings of LightGCN."""

    n_layers: int = Field(default=3, ge=1)
    """Layers L of the convolution; the published grid is 1 to 4."""
    regularisation: float = Field(default=1e-4, ge=0)
    """Weight of the Frobenius norms of the batch's ID embeddings; the published grid is 1e-6 to 1e-2."""


class Model(base.Model):
    """ID embeddings, propagated."""

    def __init__(self, config: Config, data: TrainingData, generator: torch.Generator) -> None:
        super().__init__(config, data, generator)
        self.n_layers = config.n_layers
        self.regularisation = config.regularisation
        self.nodes = node_table(data.n_users, data.n_items, config.embedding_size, generator)
        self.adjacency = BipartiteGraph(*data.train_pairs, data.n_users, data.n_items, device=self.device).adjacency()

    def propagate(self) -> tuple[Tensor, Tensor]:
        """Return the mean of the layers."""
        users, items = light_gcn(self.adjacency, self.nodes, self.n_layers).split([self.n_users, self.n_items])
        return users, items

    def loss(
        self, users: Tensor, positives: Tensor, negatives: Tensor, barred: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return the ranking loss and the penalty, which is on layer 0."""
        sizes = [len(users), len(positives), len(negatives)]
        batch = torch.cat([users, positives + self.n_users, negatives + self.n_users])
        propagated = light_gcn(self.adjacency, self.nodes, self.n_layers)
        user, positive, negative = rows(propagated, batch).split(sizes)
        return {
            self.config.training.loss: self.ranking_losses(user, positive, negative, barred).mean(),
            "penalty": self.regularisation
            * frobenius_penalty(*rows(self.nodes, batch).split(sizes), n_rows=len(users)),
        }
