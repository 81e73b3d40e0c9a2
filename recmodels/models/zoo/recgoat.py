"""RecGOAT: attentive graphs of items and users, aligned with IDs by contrast and transport (arXiv 2602.00682, 2026)."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from recmodels.errors import InputError
from recmodels.graphs.adjacency import Adjacency
from recmodels.graphs.knn import knn_table
from recmodels.graphs.neighbour_graphs import k_sym
from recmodels.graphs.propagation import light_gcn
from recmodels.models import base
from recmodels.models.config import ModelConfig, TrainingConfig
from recmodels.models.inputs import FeatureMatrix, TrainingData
from recmodels.models.layers.attention import GraphAttention
from recmodels.models.layers.blocks import Features, FeaturesByModality, dropout, info_nce, lookup, lookup_each
from recmodels.models.layers.dimension_transport import column_cost, transport_plan

_SHARES = {"image": 0.05, "text": 0.8}
"""Initial shares of the modalities in the fusion; IDs have the rest."""


class Config(ModelConfig):
    """
    Settings of RecGOAT. The width must be a multiple of the number of heads.

    Where the defaults leave the published program: `cmcl`, `oat`, `plan_refresh` and `user_branch` say how; negatives
    are never items that the user has; an item is never among its own neighbours, also where fewer than k others have a
    positive cosine.
    """

    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "baby": {"embedding_size": 800, "neighbours": 20, "contrast_weight": 0.032},
        "sports": {"embedding_size": 600, "neighbours": 30, "contrast_weight": 0.005},
        "electronics": {"embedding_size": 200, "neighbours": 20, "contrast_weight": 0.05},
    }

    n_ui_layers: int = Field(default=3, ge=1)
    """Layers of the convolution over the user-item graph."""
    n_attention_layers: int = Field(default=1, ge=1)
    """Layers of attention over each graph of items or users."""
    n_heads: int = Field(default=8, ge=1)
    """Heads of the attention."""
    neighbours: int = Field(default=20, ge=1)
    """Neighbours k of an item or user beside itself, before the reverse edges are added."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Dropout in and after the attention and after the fusion."""
    regularisation: float = Field(default=1e-4, ge=0)
    """Weight of the squared lengths of the batch's ID embeddings."""
    contrast_weight: float = Field(default=0.01, ge=0)
    """Weight lambda_c of the contrastive losses."""
    modality_share: float = Field(default=0.5, ge=0, le=1)
    """Share w of the contrast between modalities in the contrastive losses; that of users and items has the rest."""
    temperature: float = Field(default=0.2, gt=0)
    """Temperature of the contrastive losses."""
    cmcl: Literal["aligned", "released"] = "aligned"
    """``aligned`` draws an item's views together, as in the paper; ``released`` has the program's opposite sign."""
    oat: Literal["barycentric", "log", "released", "linear"] = "barycentric"
    """
    The transport plan of the fusion: ``log`` is solved in the log domain, with a warning should it not converge,
    ``barycentric`` is the same with rows that sum to 1, ``released`` underflows as the program does, ``linear`` has
    none.
    """
    plan_refresh: Literal["epoch", "batch"] = "epoch"
    """How often training solves for the plan, which gets no gradient."""
    user_branch: Literal["attention", "initial", "none"] = "attention"
    """
    What user profiles do: ``attention`` adds them, attended over the graph of similar users, to the user embeddings;
    ``initial`` adds their projection to the user IDs.
    """
    training: TrainingConfig = TrainingConfig(learning_rate=8e-4, batch_size=4096)
    """The training loop's settings."""


class Model(base.Model):
    """
    Items fused from IDs and attended modalities, users from IDs and attended profiles.

    The propagated IDs stand in for a modality that is absent.
    """

    config: Config

    def __init__(self, config: Config, data: TrainingData, generator: torch.Generator) -> None:
        super().__init__(config, data, generator)
        features = base.require_item_features(data, "recgoat")
        width = config.embedding_size
        if width % config.n_heads:
            raise InputError(
                "recgoat, embedding_size", expected=f"a multiple of n_heads ({config.n_heads})", found=str(width)
            )
        self.nodes = nn.Parameter(torch.empty(data.n_users + data.n_items, width))
        nn.init.normal_(self.nodes, std=0.1, generator=generator)
        self.adjacency = self.bipartite_graph(data).adjacency()
        self.features = FeaturesByModality(features, width, generator)
        self.attention = nn.ModuleDict(
            {modality: self._attention(matrix, generator) for modality, matrix in features.items()}
        )
        self.profiles, self.profile_attention = self._user_branch(data, generator)
        self.maps = nn.ParameterDict({modality: nn.Parameter(torch.empty(width, width)) for modality in _SHARES})
        for parameter in self.maps.values():
            nn.init.xavier_uniform_(parameter, generator=generator)
        self.shares = nn.ParameterDict(
            {modality: nn.Parameter(torch.tensor(share)) for modality, share in _SHARES.items()}
        )
        self.norm = nn.LayerNorm(width)
        self.plans: dict[str, Tensor] = {}
        self.steps_on_host = config.plan_refresh == "batch"

    def on_epoch_start(self, epoch: int, generator: torch.Generator) -> None:
        """Forget the transport plans, so that the first batch solves for them anew."""
        super().on_epoch_start(epoch, generator)
        self.plans = {}

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Return users and fused items, with plans for the present parameters."""
        users, views = self._views()
        return users, self._fused(views, {modality: self._plan(views, modality) for modality in self.maps})

    def loss(self, batch: base.Batch) -> dict[str, Tensor]:
        """Return the ranking loss, the penalty on the IDs, and the contrasts of users with items and of views."""
        config = self.config
        all_users, views = self._views()
        if config.plan_refresh == "batch" or not self.plans:
            self.plans = {modality: self._plan(views, modality) for modality in self.maps}
        user = lookup(all_users, batch.users)
        positive, negative = lookup_each(self._fused(views, self.plans), batch.positives, batch.negatives)
        ids = torch.cat(self.of_batch(self.nodes, batch))
        between = info_nce(user, positive, config.temperature)
        return {
            self.config.training.loss: self.ranking_losses(user, positive, negative, batch.barred).mean(),
            "penalty": config.regularisation * ids.square().sum() / len(user),
            "contrast": config.contrast_weight * (1 - config.modality_share) * between,
            "modalities": config.contrast_weight
            * config.modality_share
            * self._modality_contrast(views, batch.positives, batch.negatives),
        }

    def _views(self) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the users and the views of the items: ``id`` and one a modality."""
        nodes = self.nodes
        if self.profiles is not None and self.profile_attention is None:
            users, items = self.split(nodes)
            nodes = torch.cat([users + self.profiles.all(), items])
        users, ids = self.split(light_gcn(self.adjacency, nodes, self.config.n_ui_layers))
        if self.profiles is not None and self.profile_attention is not None:
            users = users + self._attended(self.profiles.all(), self.profile_attention)
        views = {"id": ids, **dict.fromkeys(_SHARES, ids)}
        for modality, features in self.features.present():
            views[modality] = self._attended(features.all(), self.attention[modality])
        return users, views

    def _attended(self, x: Tensor, layers: nn.Module) -> Tensor:
        for layer in layers.children():
            x = dropout(functional.leaky_relu(layer(x, self.generator), 0.2), self._rate, self.generator)
        return x

    def _fused(self, views: dict[str, Tensor], plans: dict[str, Tensor]) -> Tensor:
        shares = torch.stack(list(self.shares.values()))
        mixed = (1 - shares.sum()) * views["id"]
        for modality, change in self.maps.items():
            mixed = mixed + self.shares[modality] * (views[modality] @ (plans[modality] + change))
        return functional.normalize(dropout(self.norm(mixed), self._rate, self.generator))

    @torch.no_grad()
    def _plan(self, views: dict[str, Tensor], modality: str) -> Tensor:
        return transport_plan(column_cost(views[modality], views["id"]), self.config.oat)

    def _modality_contrast(self, views: dict[str, Tensor], *items: Tensor) -> Tensor:
        names = list(views)
        losses = [
            info_nce(lookup(views[first], part), lookup(views[second], part), self.config.temperature)
            for part in items
            for n, first in enumerate(names)
            for second in names[n + 1 :]
        ]
        mean = torch.stack(losses).mean()
        return mean if self.config.cmcl == "aligned" else 1 - mean

    @property
    def _rate(self) -> float:
        return self.config.dropout if self.training else 0.0

    def _attention(self, matrix: FeatureMatrix, generator: torch.Generator) -> nn.ModuleList:
        config = self.config
        graph = _neighbour_graph(matrix, config.neighbours).to(self.device)
        return nn.ModuleList(
            GraphAttention(graph, config.embedding_size, config.n_heads, config.dropout, generator)
            for _ in range(config.n_attention_layers)
        )

    def _user_branch(
        self, data: TrainingData, generator: torch.Generator
    ) -> tuple[Features | None, nn.ModuleList | None]:
        branch = self.config.user_branch
        if branch == "none":
            return None, None
        if data.user_features is None:
            raise InputError(
                f"training data of recgoat, user_branch {branch}",
                expected="user_text_embeddings",
                found="none",
                action="Set user_branch to none to do without.",
            )
        profiles = Features(data.user_features, self.config.embedding_size, generator)
        return profiles, self._attention(data.user_features, generator) if branch == "attention" else None


def _neighbour_graph(matrix: FeatureMatrix, k: int) -> Adjacency:
    """Return the symmetrised graph of the k nearest others of each row, with self-loops."""
    table = knn_table(matrix, min(k, len(matrix) - 1), include_self=False)
    return k_sym(table, len(matrix))
