"""MGCN: modality features purified by behaviour, fused by behaviour-guided gates (Yu et al., ACM Multimedia 2023)."""

import torch
from pydantic import Field
from torch import Tensor, nn

from recmodels.graphs.bipartite import BipartiteGraph
from recmodels.graphs.neighbour_graphs import k_cos
from recmodels.graphs.propagation import light_gcn, propagate
from recmodels.models import base
from recmodels.models.config import ModelConfig, TrainingConfig
from recmodels.models.inputs import TrainingData
from recmodels.models.layers.blocks import (
    Features,
    FeaturesByModality,
    info_nce,
    linear,
    node_table,
    rows,
    squared_penalty,
)


class Config(ModelConfig):
    """
    Settings of MGCN.

    Deviation from the published program: features are frozen unless `trainable_features` is set; it trains copies.
    """

    n_ui_layers: int = Field(default=2, ge=1)
    """Layers of the convolution over the user-item graph."""
    neighbours: int = Field(default=10, ge=1)
    """Neighbours k of an item in each modality's graph, itself included."""
    contrast_weight: float = Field(default=1e-2, ge=0)
    """Weight lambda_c of the contrast of side and content; the published grid is 1e-3 to 1e-1."""
    temperature: float = Field(default=0.2, gt=0)
    """Temperature of the contrast."""
    regularisation: float = Field(default=1e-4, ge=0)
    """Weight of the squared lengths of the batch's final embeddings."""
    trainable_features: bool = False
    """Train copies of the features, as the published program does, in place of frozen ones."""
    training: TrainingConfig = TrainingConfig(learning_rate_factor=0.96)
    """The training loop's settings; the step size falls by 0.96 in 50 epochs."""


class Model(base.Model):
    """A content view over the user-item graph and side views over each modality's item graph."""

    def __init__(self, config: Config, data: TrainingData, generator: torch.Generator) -> None:
        super().__init__(config, data, generator)
        features, tables = base.require_item_features_and_knn(data, "mgcn")
        width = config.embedding_size
        self.n_ui_layers, self.temperature = config.n_ui_layers, config.temperature
        self.contrast_weight, self.regularisation = config.contrast_weight, config.regularisation
        self.batch_size = config.training.batch_size
        self.nodes = node_table(data.n_users, data.n_items, width, generator)
        self.features = FeaturesByModality(
            {
                modality: Features(matrix, width, generator, trainable=config.trainable_features)
                for modality, matrix in features.items()
            }
        )
        self.purify = nn.ModuleDict({modality: linear(width, width, generator) for modality in features})
        self.prefer = nn.ModuleDict({modality: linear(width, width, generator) for modality in features})
        self.attention = nn.Sequential(
            linear(width, width, generator), nn.Tanh(), linear(width, 1, generator, bias=False)
        )
        self.item_graphs = {
            modality: k_cos(table, data.n_items, config.neighbours).to(self.device)
            for modality, table in tables.items()
        }
        graph = BipartiteGraph(*data.train_pairs, data.n_users, data.n_items, device=self.device)
        self.adjacency = graph.adjacency(epsilon=0.0)
        self.user_item = graph.user_item(epsilon=0.0)

    def propagate(self) -> tuple[Tensor, Tensor]:
        """Return the sum of content and side."""
        content, side = self._embed()
        users, items = (content + side).split([self.n_users, self.n_items])
        return users, items

    def loss(
        self, users: Tensor, positives: Tensor, negatives: Tensor, barred: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return the ranking loss, the contrast of side and content, and the penalty on the final embeddings."""
        content, side = self._embed()
        sizes = [len(users), len(positives), len(negatives)]
        batch = torch.cat([users, positives + self.n_users, negatives + self.n_users])
        content, side = rows(content, batch), rows(side, batch)
        user, positive, negative = (content + side).split(sizes)
        (user_content, item_content, _), (user_side, item_side, _) = content.split(sizes), side.split(sizes)
        contrast = info_nce(item_side, item_content, self.temperature) + info_nce(
            user_side, user_content, self.temperature
        )
        return {
            self.config.training.loss: self.ranking_losses(user, positive, negative, barred).mean(),
            "contrast": self.contrast_weight * contrast,
            "penalty": self.regularisation * squared_penalty(user, positive, negative, batch_size=self.batch_size),
        }

    def _embed(self) -> tuple[Tensor, Tensor]:
        content = light_gcn(self.adjacency, self.nodes, self.n_ui_layers)
        ids = self.nodes[self.n_users :]
        views: dict[str, Tensor] = {}
        for modality, features in self.features.present():
            purified = ids * torch.sigmoid(self.purify[modality](features.all()))
            items = propagate(self.item_graphs[modality], purified)
            views[modality] = torch.cat([propagate(self.user_item, items), items])
        shares = torch.cat([self.attention(view) for view in views.values()], dim=1).softmax(dim=1)
        common = torch.stack([view * shares[:, [n]] for n, view in enumerate(views.values())]).sum(dim=0)
        special = [torch.sigmoid(self.prefer[modality](content)) * (view - common) for modality, view in views.items()]
        return content, (torch.stack(special).sum(dim=0) + common) / (len(views) + 1)
