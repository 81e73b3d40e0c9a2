"""BM3: bootstrapped agreement of a user, an item and its modalities, without negatives (Zhou et al., WWW 2023)."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from recmodels.graphs.propagation import Beside, light_gcn
from recmodels.models import base
from recmodels.models.config import FeatureConfig
from recmodels.models.inputs import TrainingData
from recmodels.models.layers.blocks import (
    FeaturesByModality,
    dropout,
    frobenius_penalty,
    linear,
    lookup_each,
    node_table,
)


class Config(FeatureConfig):
    """
    Settings of BM3.

    Deviation from the published program: an item that occurs twice in a batch has two perturbed targets, there it has
    one.
    """

    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "baby": {"n_layers": 1, "dropout": 0.5, "regularisation": 0.1},
        "sports": {"n_layers": 1, "dropout": 0.5, "regularisation": 0.01},
        "electronics": {"n_layers": 2, "dropout": 0.3, "regularisation": 0.1},
    }

    n_layers: int = Field(default=1, ge=1)
    """Layers of the convolution; the published grid is 1 and 2."""
    dropout: float = Field(default=0.5, ge=0, lt=1)
    """Share of the targets' entries that are set to 0; the published grid is 0.3 and 0.5."""
    regularisation: float = Field(default=0.1, ge=0)
    """Weight of the Frobenius norms of all embeddings; the published grid is 0.01 and 0.1."""
    modality_weight: float = Field(default=2.0, ge=0)
    """Weight c of the agreements that involve a modality."""


class Model(base.Model):
    """ID embeddings, propagated, and a predictor that is trained to meet their perturbed copies."""

    config: Config
    uses_negatives = False

    def __init__(self, config: Config, data: TrainingData, generator: torch.Generator) -> None:
        super().__init__(config, data, generator)
        features, width = base.require_item_features(data, "bm3"), config.embedding_size
        self.nodes = node_table(data.n_users, data.n_items, width, generator)
        self.predictor = linear(width, width, generator, init="xavier_normal")
        self.features = FeaturesByModality(
            features, width, generator, trainable=config.trainable_features, init="xavier_normal"
        )
        self.adjacency = self.bipartite_graph(data).adjacency()

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Return the predictor's output for all users and items."""
        users, items = self.split(self._embed())
        return self.predictor(users), self.predictor(items)

    def loss(self, batch: base.Batch) -> dict[str, Tensor]:
        """Return the disagreement of user and item, that of each modality with the item and itself, and the penalty."""
        nodes = self._embed()
        user, item = lookup_each(nodes, batch.users, batch.positives + self.n_users)
        # Only the batch's rows are perturbed: the others' targets enter no term.
        user_target, item_target = self._target(user), self._target(item)
        parts = {
            "agreement": _disagreement(self.predictor(user), item_target)
            + _disagreement(self.predictor(item), user_target),
            "penalty": self.config.regularisation * frobenius_penalty(*self.split(nodes), n_rows=self.n_items),
        }
        for modality, features in self.features.present():
            projected = features(batch.positives)
            predicted = self.predictor(projected)
            parts[modality] = self.config.modality_weight * (
                _disagreement(predicted, item_target) + _disagreement(predicted, self._target(projected))
            )
        return parts

    def _embed(self) -> Tensor:
        items_themselves = Beside(None, self.n_users, self.n_items)
        return light_gcn(self.adjacency, self.nodes, self.config.n_layers, [items_themselves])

    def _target(self, x: Tensor) -> Tensor:
        return dropout(x.detach(), self.config.dropout, self.generator)


def _disagreement(predicted: Tensor, target: Tensor) -> Tensor:
    return 1 - functional.cosine_similarity(predicted, target, dim=1).mean()
