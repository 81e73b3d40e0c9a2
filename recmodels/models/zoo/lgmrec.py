"""LGMRec: local graphs of IDs and modalities, global hypergraphs of attributes (Guo et al., AAAI 2024)."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from recmodels.graphs.adjacency import Adjacency
from recmodels.graphs.bipartite import BipartiteGraph
from recmodels.graphs.propagation import light_gcn, propagate
from recmodels.models import base
from recmodels.models.config import ModelConfig
from recmodels.models.inputs import TrainingData
from recmodels.models.layers.blocks import dropout, frobenius_penalty, node_table, rows, xavier_table

_COLUMNS_AT_ONCE = 512


class Config(ModelConfig):
    """
    Settings of LGMRec.

    Deviation from the published program: memberships in hyperedges hold no noise where users and items are ranked.
    """

    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "baby": {"n_hyper_layers": 1, "n_hyperedges": 4, "keep": 0.5, "global_weight": 0.3},
        "sports": {"n_hyper_layers": 1, "n_hyperedges": 4, "keep": 0.4, "global_weight": 0.6},
        "clothing": {"n_hyper_layers": 2, "n_hyperedges": 64, "keep": 0.2, "global_weight": 0.2},
    }

    n_ui_layers: int = Field(default=2, ge=1)
    """Layers of the convolution of the IDs over the user-item graph."""
    n_modality_layers: int = Field(default=2, ge=1)
    """Layers of the propagation of the features over the user-item graph, of which the last is kept."""
    n_hyper_layers: int = Field(default=1, ge=1)
    """Layers n_h of the hypergraphs."""
    n_hyperedges: int = Field(default=4, ge=1)
    """Hyperedges h of each modality."""
    keep: float = Field(default=0.5, gt=0, le=1)
    """Share of the memberships in hyperedges that training keeps."""
    global_weight: float = Field(default=0.3, ge=0)
    """Weight alpha of the hypergraphs' embeddings beside the local ones."""
    temperature: float = Field(default=0.2, gt=0)
    """Temperature of the memberships and of the contrast."""
    contrast_weight: float = Field(default=1e-4, ge=0)
    """Weight of the contrast of the modalities' hypergraphs."""
    regularisation: float = Field(default=1e-6, ge=0)
    """Weight of the Frobenius norms of the batch's final embeddings."""


class Model(base.Model):
    """
    IDs and features over the user-item graph, and ID embeddings over soft hyperedges of users and items.

    The features are frozen, so their propagation over the graph is done once, before the projection that is trained.
    """

    def __init__(self, config: Config, data: TrainingData, generator: torch.Generator) -> None:
        super().__init__(config, data, generator)
        features = base.require_item_features(data, "lgmrec")
        self.n_ui_layers, self.n_hyper_layers, self.keep = config.n_ui_layers, config.n_hyper_layers, config.keep
        self.global_weight, self.temperature = config.global_weight, config.temperature
        self.contrast_weight, self.regularisation = config.contrast_weight, config.regularisation
        graph = BipartiteGraph(*data.train_pairs, data.n_users, data.n_items, device=self.device)
        self.adjacency = graph.adjacency()
        self.sum_of_items = graph.user_item(normalisation="none")
        mean_of_items = graph.user_item(normalisation="row", epsilon=0.0)
        self.nodes = node_table(data.n_users, data.n_items, config.embedding_size, generator)
        self.projections = nn.ParameterDict()
        self.hyperedges = nn.ParameterDict()
        self.items: dict[str, Tensor] = {}
        self.propagated: dict[str, Tensor] = {}
        for modality, matrix in features.items():
            self.projections[modality] = xavier_table(matrix.shape[1], config.embedding_size, generator)
            self.hyperedges[modality] = xavier_table(matrix.shape[1], config.n_hyperedges, generator)
            self.items[modality] = torch.from_numpy(matrix).to(self.device)
            self.propagated[modality] = _propagated(
                self.adjacency, mean_of_items, self.items[modality], config.n_modality_layers
            )

    def propagate(self) -> tuple[Tensor, Tensor]:
        """Return local plus weighted global embeddings, with memberships that hold no noise."""
        content = light_gcn(self.adjacency, self.nodes, self.n_ui_layers)
        everything = torch.arange(self.n_users + self.n_items, device=self.device)
        hyper = self._hyper(content[self.n_users :])
        users, items = self._final(content, hyper, everything).split([self.n_users, self.n_items])
        return users, items

    def loss(
        self, users: Tensor, positives: Tensor, negatives: Tensor, barred: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return the ranking loss, the contrast between the modalities' hypergraphs, and the penalty."""
        content = light_gcn(self.adjacency, self.nodes, self.n_ui_layers)
        hyper = self._hyper(content[self.n_users :])
        sizes = [len(users), len(positives), len(negatives)]
        batch = torch.cat([users, positives + self.n_users, negatives + self.n_users])
        user, positive, negative = self._final(content, hyper, batch).split(sizes)
        parts = {
            self.config.training.loss: self.ranking_losses(user, positive, negative, barred).mean(),
            "penalty": self.regularisation * frobenius_penalty(user, positive, negative, n_rows=len(users)),
        }
        if len(hyper) == 2:
            (first_users, first_items), (second_users, second_items) = (
                view.split([self.n_users, self.n_items]) for view in hyper
            )
            parts["contrast"] = self.contrast_weight * (
                _contrast(first_users, second_users, users, self.temperature)
                + _contrast(first_items, second_items, positives, self.temperature)
            )
        return parts

    def _final(self, content: Tensor, hyper: list[Tensor], nodes: Tensor) -> Tensor:
        result = rows(content, nodes)
        for modality, weight in self.projections.items():
            result = result + functional.normalize(self.propagated[modality][nodes] @ weight)
        return result + self.global_weight * functional.normalize(rows(torch.stack(hyper).sum(dim=0), nodes))

    def _hyper(self, items: Tensor) -> list[Tensor]:
        """Return each modality's hypergraph embeddings of all nodes, users first."""
        views: list[Tensor] = []
        for modality, weight in self.hyperedges.items():
            logits = self.items[modality] @ weight
            item_members = self._memberships(logits)
            user_members = self._memberships(propagate(self.sum_of_items, logits))
            x, edges = items, items[:0]
            for _ in range(self.n_hyper_layers):
                edges = item_members.T @ x
                x = item_members @ edges
            views.append(torch.cat([user_members @ edges, x]))
        return views

    def _memberships(self, logits: Tensor) -> Tensor:
        if not self.training:
            return functional.softmax(logits / self.temperature, dim=1)
        noise = torch.empty_like(logits).exponential_(generator=self.generator).log()
        return dropout(functional.softmax((logits - noise) / self.temperature, dim=1), 1 - self.keep, self.generator)


def _propagated(adjacency: Adjacency, mean_of_items: Adjacency, items: Tensor, n_layers: int) -> Tensor:
    """Return the last layer of [mean of the user's items ; items], (n_users + n_items, width)."""
    # Some columns at a time: the propagation needs two arrays of its size beside the result.
    columns: list[Tensor] = []
    for part in items.split(_COLUMNS_AT_ONCE, dim=1):
        x = torch.cat([propagate(mean_of_items, part.contiguous()), part])
        for _ in range(n_layers):
            x = propagate(adjacency, x)
        columns.append(x)
    return torch.cat(columns, dim=1)


def _contrast(first: Tensor, second: Tensor, ids: Tensor, temperature: float) -> Tensor:
    """Return the sum over the batch of the contrast of a row with its own among all rows of the other view."""
    anchors = functional.normalize(rows(first, ids))
    return functional.cross_entropy(anchors @ functional.normalize(second).T / temperature, ids, reduction="sum")
