"""SLMRec: self-supervised contrast of ID and modality views, task FAC (Tao et al., IEEE Trans. Multimedia 2022)."""

from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from recmodels.graphs.bipartite import BipartiteGraph
from recmodels.graphs.propagation import light_gcn
from recmodels.models import base
from recmodels.models.config import ModelConfig, TrainingConfig
from recmodels.models.inputs import TrainingData
from recmodels.models.layers.blocks import Features, FeaturesByModality, info_nce, linear, node_table, rows


class Config(ModelConfig):
    """
    Settings of SLMRec.

    Deviation from the published program: users and items are scored with the embeddings of the present parameters; it
    uses those of the last training batch, a step older.
    """

    n_layers: int = Field(default=3, ge=1)
    """Layers of the convolution of each view."""
    temperature: float = Field(default=0.2, gt=0)
    """Temperature of the contrast of users and items."""
    view_temperature: float = Field(default=0.2, gt=0)
    """Temperature s of the contrast of views; the published grid is 0.1 to 1."""
    view_weight: float = Field(default=0.1, ge=0)
    """Weight a of the contrast of views; the published grid is 0.01 to 1."""
    initialisation: Literal["xavier_uniform", "default"] = "xavier_uniform"
    """
    Law of the initial weights of the fusion and of the contrast's maps: ``xavier_uniform`` as in the published
    programs, ``default`` is torch's, about half as wide.
    """
    training: TrainingConfig = TrainingConfig(weight_decay=1e-4)
    """The training loop's settings; the published learning rates are 1e-4 to 1e-1."""


class Model(base.Model):
    """The same users beside items as IDs and as projected features, each propagated and then fused."""

    uses_negatives = False

    def __init__(self, config: Config, data: TrainingData, generator: torch.Generator) -> None:
        super().__init__(config, data, generator)
        features = base.require_item_features(data, "slmrec")
        width = config.embedding_size
        self.n_layers, self.temperature = config.n_layers, config.temperature
        self.view_temperature, self.view_weight = config.view_temperature, config.view_weight
        self.nodes = node_table(data.n_users, data.n_items, width, generator)
        self.features = FeaturesByModality(
            {
                modality: Features(_unit_rows(matrix), width, generator, init="xavier_uniform")
                for modality, matrix in features.items()
            }
        )
        n_views = 1 + len(features)
        init = config.initialisation
        self.fuse_users = linear(n_views * width, width, generator, init=init)
        self.fuse_items = linear(n_views * width, width, generator, init=init)
        # Each modality is met in a space of its own; the ID view reaches the next one through the one before.
        self.steps, self.exits, self.heads = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for position in range(len(features)):
            space = width if position == 0 else width // 2
            self.steps.append(linear(width, width, generator, init=init))
            self.exits.append(linear(width, space, generator, init=init) if position else nn.Identity())
            self.heads.append(linear(width, space, generator, init=init))
        graph = BipartiteGraph(*data.train_pairs, data.n_users, data.n_items, device=self.device)
        self.adjacency = graph.adjacency(epsilon=1e-8)

    def propagate(self) -> tuple[Tensor, Tensor]:
        """Return the fused views."""
        users, items = self._views().split([self.n_users, self.n_items])
        return self.fuse_users(users), self.fuse_items(items)

    def loss(
        self, users: Tensor, positives: Tensor, negatives: Tensor, barred: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return the contrast of users and items, and that of the items' views with each other."""
        user, item = rows(self._views(), torch.cat([users, positives + self.n_users])).chunk(2)
        parts = {"contrast": info_nce(self.fuse_users(user), self.fuse_items(item), self.temperature)}
        identity, *modalities = item.chunk(1 + len(self.features), dim=1)
        targets = torch.arange(len(users), device=users.device)
        for position, (name, _) in enumerate(self.features.present()):
            identity = self.steps[position](identity)
            met, view = self.exits[position](identity), self.heads[position](modalities[position])
            logits = met @ view.T / self.view_temperature
            parts[name] = self.view_weight * functional.cross_entropy(logits, targets)
        return parts

    def _views(self) -> Tensor:
        """Return all views of all nodes side by side: one propagation instead of one each."""
        users = self.nodes[: self.n_users]
        views = [torch.cat([users, features.all()]) for _, features in self.features.present()]
        return light_gcn(self.adjacency, torch.cat([self.nodes, *views], dim=1), self.n_layers)


def _unit_rows(matrix: np.ndarray) -> np.ndarray:
    return matrix / np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-12)
