"""MGCN: modality features purified by behaviour, fused by behaviour-guided gates (Yu et al., ACM Multimedia 2023)."""

import torch
from pydantic import Field
from torch import Tensor

from recmodels.graphs.propagation import light_gcn
from recmodels.models import base
from recmodels.models.config import ItemGraphConfig, TrainingConfig
from recmodels.models.inputs import TrainingData
from recmodels.models.layers import behaviour
from recmodels.models.layers.blocks import FeaturesByModality, info_nce, node_table, squared_penalty
from recmodels.models.layers.item_graphs import item_graphs


class Config(ItemGraphConfig):
    """Settings of MGCN."""

    n_ui_layers: int = Field(default=2, ge=1)
    """Layers of the convolution over the user-item graph."""
    contrast_weight: float = Field(default=1e-2, ge=0)
    """Weight lambda_c of the contrast of side and content; the published grid is 1e-3 to 1e-1."""
    temperature: float = Field(default=0.2, gt=0)
    """Temperature of the contrast."""
    regularisation: float = Field(default=1e-4, ge=0)
    """Weight of the squared lengths of the batch's final embeddings."""
    training: TrainingConfig = TrainingConfig(learning_rate_factor=0.96)
    """The training loop's settings; the step size falls by 0.96 in 50 epochs."""


class Model(base.Model):
    """A content view over the user-item graph and side views over each modality's item graph."""

    config: Config

    def __init__(self, config: Config, data: TrainingData, generator: torch.Generator) -> None:
        super().__init__(config, data, generator)
        features, tables = base.require_item_features_and_knn(data, "mgcn")
        width = config.embedding_size
        self.nodes = node_table(data.n_users, data.n_items, width, generator)
        self.features = FeaturesByModality(features, width, generator, trainable=config.trainable_features)
        self.purify = behaviour.gates(features, width, generator)
        self.prefer = behaviour.gates(features, width, generator)
        self.attention = behaviour.attention_scores(width, generator)
        self.item_graphs = item_graphs(tables, data.n_items, config.neighbours, self.device)
        graph = self.bipartite_graph(data)
        self.adjacency = graph.adjacency(epsilon=0.0)
        self.user_item = graph.user_item(epsilon=0.0)

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Return the sum of content and side."""
        content, side = self._embed()
        return self.split(content + side)

    def loss(self, batch: base.Batch) -> dict[str, Tensor]:
        """Return the ranking loss, the contrast of side and content, and the penalty on the final embeddings."""
        content, side = self._embed()
        of_content, of_side = (self.of_batch(nodes, batch) for nodes in (content, side))
        user, positive, negative = (first + second for first, second in zip(of_content, of_side, strict=True))
        (user_content, item_content, _), (user_side, item_side, _) = of_content, of_side
        temperature = self.config.temperature
        contrast = info_nce(item_side, item_content, temperature) + info_nce(user_side, user_content, temperature)
        return {
            self.config.training.loss: self.ranking_losses(user, positive, negative, batch.barred).mean(),
            "contrast": self.config.contrast_weight * contrast,
            "penalty": self.config.regularisation
            * squared_penalty(user, positive, negative, batch_size=self.batch_size),
        }

    def _embed(self) -> tuple[Tensor, Tensor]:
        content = light_gcn(self.adjacency, self.nodes, self.config.n_ui_layers)
        items = behaviour.purified(self.nodes[self.n_users :], self.features, self.purify)
        views = behaviour.views(items, self.item_graphs, self.user_item)
        return content, behaviour.integrated(views, content, self.attention, self.prefer)
