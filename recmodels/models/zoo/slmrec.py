"""SLMRec: self-supervised contrast of ID and modality views, task FAC (Tao et al., IEEE Trans. Multimedia 2022)."""

from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from recmodels.graphs.propagation import light_gcn
from recmodels.models import base
from recmodels.models.config import ModelConfig, TrainingConfig
from recmodels.models.inputs import TrainingData
from recmodels.models.layers.blocks import FeaturesByModality, info_nce, linear, lookup_each, node_table


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

    config: Config
    uses_negatives = False

    def __init__(self, config: Config, data: TrainingData, generator: torch.Generator) -> None:
        super().__init__(config, data, generator)
        features = base.require_item_features(data, "slmrec")
        width = config.embedding_size
        self.nodes = node_table(data.n_users, data.n_items, width, generator)
        self.features = FeaturesByModality(
            {modality: _unit_rows(matrix) for modality, matrix in features.items()},
            width,
            generator,
            init="xavier_uniform",
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
        self.adjacency = self.bipartite_graph(data).adjacency(epsilon=1e-8)

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Return the fused views."""
        users, items = self.split(self._views())
        return self.fuse_users(users), self.fuse_items(items)

    def loss(self, batch: base.Batch) -> dict[str, Tensor]:
        """Return the contrast of users and items, and that of the items' views with each other."""
        user, item = lookup_each(self._views(), batch.users, batch.positives + self.n_users)
        parts = {"contrast": info_nce(self.fuse_users(user), self.fuse_items(item), self.config.temperature)}
        identity, *modalities = item.chunk(1 + len(self.features), dim=1)
        targets = torch.arange(len(item), device=item.device)
        for position, (name, _) in enumerate(self.features.present()):
            identity = self.steps[position](identity)
            met, view = self.exits[position](identity), self.heads[position](modalities[position])
            logits = met @ view.T / self.config.view_temperature
            parts[name] = self.config.view_weight * functional.cross_entropy(logits, targets)
        return parts

    def _views(self) -> Tensor:
        """Return all views of all nodes side by side: one propagation instead of one each."""
        users = self.nodes[: self.n_users]
        views = [torch.cat([users, features.all()]) for _, features in self.features.present()]
        return light_gcn(self.adjacency, torch.cat([self.nodes, *views], dim=1), self.config.n_layers)


def _unit_rows(matrix: np.ndarray) -> np.ndarray:
    return matrix / np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-12)
