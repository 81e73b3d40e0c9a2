"""GUME: like items joined in the user-item graph, modalities separated and aligned (Lin et al., CIKM 2024)."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from recmodels.errors import InputError
from recmodels.graphs.matrices import neighbour_matrix
from recmodels.graphs.propagation import light_gcn
from recmodels.models import base
from recmodels.models.config import ItemGraphConfig, TrainingConfig
from recmodels.models.inputs import TrainingData
from recmodels.models.layers import behaviour
from recmodels.models.layers.blocks import (
    FeaturesByModality,
    info_nce,
    lookup,
    lookup_each,
    node_table,
    squared_penalty,
    xavier_table,
)
from recmodels.models.layers.item_graphs import item_graphs

_NOISE = 0.1


class Config(ItemGraphConfig):
    """
    Settings of GUME.

    Where there are neighbour tables and no features, set `purify` to false, and `graph_weights` to ``binary`` if the
    tables have no similarities. Who is a neighbour in all graphs is joined to the item in the user-item graph.
    """

    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "baby": {"n_ii_layers": 2, "behaviour_temperature": 0.4, "alignment_weight": 0.1},
        "sports": {},
        "clothing": {"user_weight": 0.1, "user_temperature": 0.2, "alignment_weight": 1e-3},
        "electronics": {"user_weight": 0.1, "user_temperature": 0.2, "alignment_weight": 0.1},
    }

    n_ui_layers: int = Field(default=3, ge=1)
    """Layers of the convolution over users and items."""
    n_ii_layers: int = Field(default=1, ge=1)
    """Layers of the propagation over each modality's item graph, of which the last is kept."""
    graph_weights: Literal["cosine", "binary"] = "cosine"
    """Weigh neighbours by their similarity, as published, or all alike."""
    purify: bool = True
    """Scale the item IDs by the modality's projected features; without, the graphs alone tell the modalities apart."""
    behaviour_weight: float = Field(default=0.01, ge=0)
    """Weight of the contrast of integrated modalities with the IDs' embeddings, for users and items."""
    behaviour_temperature: float = Field(default=0.2, gt=0)
    """Temperature of that contrast."""
    user_weight: float = Field(default=0.01, ge=0)
    """Weight of the contrasts of users: extended with integrated modalities, and each with itself under noise."""
    user_temperature: float = Field(default=0.1, gt=0)
    """Temperature of those contrasts."""
    alignment_weight: float = Field(default=0.01, ge=0)
    """Weight of the distance between mean and variance of the two modalities' embeddings."""
    regularisation: float = Field(default=1e-5, ge=0)
    """Weight of the squared lengths of the batch's final embeddings."""
    extended_regularisation: float = Field(default=0.1, ge=0)
    """Weight of the squared lengths of the positives' extended modality embeddings."""
    training: TrainingConfig = TrainingConfig(learning_rate_factor=0.96)
    """The training loop's settings; the step size falls by 0.96 in 50 epochs."""


class Model(base.Model):
    """IDs over the user-item graph with edges between like items, plus what the modalities share and hold alone."""

    config: Config
    steps_on_host = True

    def __init__(self, config: Config, data: TrainingData, generator: torch.Generator) -> None:
        super().__init__(config, data, generator)
        if config.purify:
            features, tables = base.require_item_features_and_knn(data, "gume")
        else:
            features, tables = {}, data.item_knn
            if not tables:
                raise InputError("training data of gume", expected="item_text_knn or item_image_knn", found="neither")
        width = config.embedding_size
        self.nodes = node_table(data.n_users, data.n_items, width, generator)
        self.users = nn.ParameterDict({name: xavier_table(data.n_users, width, generator) for name in tables})
        self.features = FeaturesByModality(features, width, generator, trainable=config.trainable_features)
        self.gates = behaviour.gates(features, width, generator)
        self.prefer = behaviour.gates(tables, width, generator)
        self.attention = behaviour.attention_scores(width, generator)
        self.item_graphs = item_graphs(tables, data.n_items, config.neighbours, self.device, config.graph_weights)
        first, *others = (neighbour_matrix(table, data.n_items, config.neighbours) for table in tables.values())
        for other in others:
            first = first.multiply(other)
        self.adjacency, self.user_item = self.bipartite_graph(data).with_item_edges(first)

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Return the sum of the IDs' embeddings and of the integrated modalities."""
        explicit = self._explicit()
        content = light_gcn(self.adjacency, self.nodes, self.config.n_ui_layers)
        return self.split(content + self._integrated(explicit, content))

    def loss(self, batch: base.Batch) -> dict[str, Tensor]:
        """Return the ranking loss, the contrasts, the modalities' distance and the penalties."""
        config, batch_size = self.config, self.batch_size
        explicit = self._explicit()
        content, extended = self._extended(explicit)
        side = self._integrated(explicit, content)
        user, positive, negative = self.of_batch(content + side, batch)
        user_side, item_side, _ = self.of_batch(side, batch)
        user_content, item_content, _ = self.of_batch(content, batch)
        user_extended, item_extended = lookup_each(extended, batch.users, batch.positives + self.n_users)
        of_behaviour = info_nce(user_side, user_content, config.behaviour_temperature) + info_nce(
            item_side, item_content, config.behaviour_temperature
        )
        of_users = info_nce(user_extended, user_side, config.user_temperature)
        for view in (side, extended):
            of_users = of_users + self._noise_contrast(view, batch.users)
        parts = {
            config.training.loss: self.ranking_losses(user, positive, negative, batch.barred).mean(),
            "behaviour": config.behaviour_weight * of_behaviour,
            "users": config.user_weight * of_users,
            "penalty": config.regularisation * squared_penalty(user, positive, negative, batch_size=batch_size)
            + config.extended_regularisation * squared_penalty(item_extended, batch_size=batch_size),
        }
        if len(explicit) == 2:
            first, second = explicit.values()
            distance = (first.var() - second.var()).abs() + (first.mean() - second.mean()).abs()
            parts["alignment"] = config.alignment_weight * distance
        return parts

    def _explicit(self) -> dict[str, Tensor]:
        """Return each modality's embeddings over its item graph, users from their items, (n_users + n_items, width)."""
        ids = self.nodes[self.n_users :]
        items = dict.fromkeys(self.item_graphs, ids) | behaviour.purified(ids, self.features, self.gates)
        return behaviour.views(items, self.item_graphs, self.user_item, self.config.n_ii_layers)

    def _extended(self, explicit: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the convolution of the IDs, and the mean of those of the modalities, in one product."""
        layers = [self.nodes, *(torch.cat([self.users[m], view[self.n_users :]]) for m, view in explicit.items())]
        convolved = light_gcn(self.adjacency, torch.cat(layers, dim=1), self.config.n_ui_layers)
        content, *modalities = convolved.chunk(len(layers), dim=1)
        return content, torch.stack(modalities).mean(dim=0)

    def _integrated(self, explicit: dict[str, Tensor], content: Tensor) -> Tensor:
        return behaviour.integrated(explicit, content, self.attention, self.prefer)

    def _noise_contrast(self, view: Tensor, users: Tensor) -> Tensor:
        """Return the contrast of users with themselves, both perturbed; a user that is twice in a batch is so alike."""
        present, place = torch.unique(users, return_inverse=True)
        embeddings = lookup(view, present)

        def perturbed() -> Tensor:
            noise = torch.rand(embeddings.shape, generator=self.generator, device=embeddings.device)
            return lookup(embeddings + _NOISE * embeddings.sign() * functional.normalize(noise), place)

        return info_nce(perturbed(), perturbed(), self.config.user_temperature)
