"""BRIDGE: multimodal channels in spectral bands, and co-user evidence within the best items (Li et al., CIKM 2026)."""

from typing import Literal, cast

import numpy as np
import torch
from pydantic import Field
from scipy import sparse
from torch import Tensor, nn
from torch.nn import functional

from recmodels.graphs.co_occurrence import cosines_of_columns
from recmodels.graphs.matrices import entry_keys, occurs_in, shape_of
from recmodels.graphs.propagation import light_gcn, propagate
from recmodels.models import base
from recmodels.models.inputs import TrainingData
from recmodels.models.layers.blocks import bpr_loss, info_nce, linear, lookup, lookup_each, row_dot, xavier_table
from recmodels.models.layers.channels import ChannelConfig, Channels
from recmodels.models.layers.item_graphs import fused_item_graph
from recmodels.ranking.calibrated import CalibratedRanker, Evidence, shortlist_support, standardised
from recmodels.ranking.ranker import EmbeddingScorer


class Config(ChannelConfig):
    """
    Settings of BRIDGE, whose fixed strength is the paper's main setting; its gate on the strength is left out.

    Deviations from the published program: the frequency loss is the paper's, which keeps bands apart; the evidence of a
    training pair does not know the pair itself unless `evidence` is ``published``; directions of the bands get no
    gradient; where users are ranked, the shortlist holds none of the excluded items; no graph of users.
    """

    n_bands: int = Field(default=3, ge=1)
    """Bands M of singular directions of a channel, at most its width."""
    strength: float = Field(default=0.4, ge=0)
    """Strength lambda of the evidence; the published grid is 0.1 to 0.8, chosen by validation Recall@20."""
    shortlist: int = Field(default=200, ge=1)
    """Best items of a user by the base score to which evidence is added."""
    co_items: int = Field(default=1000, ge=1)
    """Items with most users in common that an item keeps."""
    evidence: Literal["leave_one_out", "published"] = "leave_one_out"
    """Whether a training pair's evidence comes from the other pairs, as a held-out pair's does, or from itself too."""
    base_weight: float = Field(default=0.2, ge=0)
    """Weight of the ranking loss of the scores without evidence."""
    bottleneck_weight: float = Field(default=1.0, ge=0)
    """Weight of the penalty on gates above 1."""
    frequency_weight: float = Field(default=1e-3, ge=0)
    """Weight of the likeness of different bands and of the contrast of users with items in the higher bands."""


class Model(base.Model):
    """Channels over the user-item graph, split into gated bands; the ranking adds evidence to the best items."""

    config: Config
    pairwise = False
    steps_on_host = True

    def __init__(self, config: Config, data: TrainingData, generator: torch.Generator) -> None:
        super().__init__(config, data, generator)
        features, tables = base.require_item_features_and_knn(data, "bridge")
        self.channels = Channels(features, data.n_users, data.n_items, config, generator)
        n_channels = len(self.channels.names)
        weights = xavier_table(data.n_users, n_channels, generator, normal=True)
        self.user_weights = nn.Parameter(functional.softmax(weights.data, dim=1))
        self.fuse_users = _Fusion(n_channels * config.embedding_size, config.n_bands, generator)
        self.fuse_items = _Fusion(n_channels * config.embedding_size, config.n_bands, generator)
        self.item_graph = fused_item_graph(tables, data.n_items, config).to(self.device)
        self.adjacency = self.bipartite_graph(data).adjacency(epsilon=0.0)
        self.history = data.train_matrix()
        self.support = CoUserSupport(self.history, config.co_items)

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Return the fused bands of users and items, whose inner products are the base scores."""
        users, items = self._sides()
        return users.fused, items.fused

    def ranker(self) -> CalibratedRanker:
        """Return the ranking by the base scores, with the evidence added to the best items."""
        evidence = Evidence("co_users", self.support.weights, self.config.strength)
        length = min(self.config.shortlist, self.n_items)
        return CalibratedRanker(super().ranker(), self.history, [evidence], length, "row", relative=False)

    def loss(self, batch: base.Batch) -> dict[str, Tensor]:
        """Return the ranking losses with and without evidence, the bottleneck and the frequency loss."""
        config = self.config
        user_side, item_side = self._sides()
        user = lookup(user_side.fused, batch.users)
        positive, negative = lookup_each(item_side.fused, batch.positives, batch.negatives)
        margins = row_dot(user, positive - negative)
        scorer = EmbeddingScorer(user_side.fused.float(), item_side.fused.float())
        liked, other = self._evidence(scorer, batch.users, batch.positives, batch.negatives)
        user_bands = [lookup(band, batch.users) for band in user_side.bands]
        item_bands = [lookup(band, batch.positives) for band in item_side.bands]
        higher = range(config.n_bands // 2, config.n_bands)
        contrast = torch.stack([info_nce(user_bands[m], item_bands[m], 1.0) for m in higher]).mean()
        frequency = _likeness(user_bands) + _likeness(item_bands) + contrast
        return {
            "bpr": bpr_loss(margins + config.strength * (liked - other)),
            "base": config.base_weight * bpr_loss(margins),
            "bottleneck": config.bottleneck_weight * (_bottleneck(user_side.gates) + _bottleneck(item_side.gates)),
            "frequency": config.frequency_weight * frequency,
        }

    def _sides(self) -> tuple["_Side", "_Side"]:
        n_layers, by_channel = self.config.n_layers, self.channels.by_channel
        nodes = (n_layers + 1) * light_gcn(self.adjacency, self.channels(), n_layers)
        users, items = self.split(nodes)
        users = (self.user_weights[:, :, None] * by_channel(users)).flatten(1)
        residual = propagate(self.item_graph, items)
        return (
            _Side(self.fuse_users, users, self._bands(users, self.channels.users)),
            _Side(self.fuse_items, items, self._bands(items, residual)),
        )

    def _bands(self, nodes: Tensor, residual: Tensor) -> list[Tensor]:
        """Return the bands of both, added up, each (n, n_channels * width)."""
        of_each: list[list[Tensor]] = []
        for x in (nodes, residual):
            channels = self.channels.by_channel(x).unbind(dim=1)
            split = [spectral_bands(channel, self.config.n_bands) for channel in channels]
            of_each.append([torch.cat(band, dim=1) for band in zip(*split, strict=True)])
        return [first + second for first, second in zip(*of_each, strict=True)]

    @torch.no_grad()
    def _evidence(self, scorer: EmbeddingScorer, users: Tensor, *items: Tensor) -> list[Tensor]:
        """Return the evidence of pairs, 0 where the item is not among the user's best by the base score, (batch,)."""
        best, _ = scorer.top_items(users, min(self.config.shortlist, self.n_items))
        alone = self.config.evidence == "leave_one_out"
        evidence: list[Tensor] = []
        for ids in items:
            support = self.support.of_pairs(users.cpu().numpy(), ids.cpu().numpy(), without_itself=alone)
            evidence.append(torch.where((best == ids[:, None]).any(dim=1), support.to(ids.device), 0.0))
        return evidence


class CoUserSupport:
    r"""
    How much a user's training items speak for an item, by the users they share, standardised over the user's row.

    :math:`\tilde b_{ui} = |H_u|^{-1/2} \sum_{j \in H_u} |U_i \cap U_j| / \sqrt{|U_i| |U_j|}`, less its mean over all
    items, over its deviation.

    Parameters
    ----------
    history
        (n_users, n_items) binary CSR, the training pairs.
    co_items
        Largest cosines that an item keeps.

    Attributes
    ----------
    weights
        (n_items, n_items) CSR: entry (j, i) is how much item j speaks for item i.
    """

    def __init__(self, history: sparse.csr_array, co_items: int) -> None:
        self.history = history
        cosines = cosines_of_columns(history, co_items)
        self.weights = sparse.csr_array(cosines.T.tocsr())
        self._cosines = cosines
        self._others = _without_one_user(cosines, history)
        self._pairs = entry_keys(history)
        self._lengths = np.diff(history.indptr)
        n_users, self._n_items = shape_of(history)
        evidence = Evidence("co_users", self.weights, 1.0)
        nothing = torch.zeros(n_users, 0, dtype=torch.int64)
        _, moments = shortlist_support(evidence, history, torch.arange(n_users), nothing, "row")
        self._moments = cast(tuple[Tensor, Tensor], moments)

    def of_pairs(self, users: np.ndarray, items: np.ndarray, *, without_itself: bool) -> Tensor:
        """
        Return the standardised support of pairs, (n,) float32 on the CPU.

        Parameters
        ----------
        users, items
            (n,) int64 ids.
        without_itself
            Let a training pair have the support that it would have without itself; the row's mean and deviation stay.
        """
        histories, lengths = self.history[users], self._lengths[users]
        support = _inner(self._cosines[items], histories) / np.sqrt(np.maximum(lengths, 1))
        if without_itself:
            own = occurs_in(users * self._n_items + items, self._pairs)
            others = _inner(self._others[items[own]], histories[own])
            support[own] = others / np.sqrt(np.maximum(lengths[own] - 1, 1))
        column = torch.from_numpy(support.astype(np.float32))[:, None]
        mean, deviation = (values[torch.from_numpy(users)] for values in self._moments)
        return standardised(column, (mean, deviation), column)[:, 0]


def spectral_bands(x: Tensor, n_bands: int) -> list[Tensor]:
    """
    Return the parts of x (n, d) along contiguous runs of its right singular directions, strongest first.

    They add up to x. Runs differ in length by at most one, the longer first. The directions get no gradient.
    """
    x = x.float()
    with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
        _, directions = torch.linalg.eigh((x.T @ x).double())
    sizes = [len(part) for part in np.array_split(np.arange(x.shape[1]), n_bands)]
    runs = directions.flip(1).float().split(sizes, dim=1)
    with torch.autocast(x.device.type, enabled=False):
        return [(x @ run) @ run.T for run in runs]


class _Fusion(nn.Module):
    """Weights of the bands and the gates that nodes have on them."""

    def __init__(self, n_in: int, n_bands: int, generator: torch.Generator) -> None:
        super().__init__()
        self.gate = linear(n_in, n_bands, generator)
        self.scale = nn.Parameter(torch.tensor(0.5))
        self.weights = nn.Parameter(torch.ones(n_bands))

    def gates(self, nodes: Tensor) -> Tensor:
        """Return the gates, (n, n_bands)."""
        return 1 + self.scale * torch.sigmoid(self.gate(nodes).float())


class _Side:
    """Users or items: their bands, gates and fused embeddings."""

    def __init__(self, fusion: _Fusion, nodes: Tensor, bands: list[Tensor]) -> None:
        self.bands = bands
        self.gates = fusion.gates(nodes)
        shares = torch.sigmoid(fusion.weights) * self.gates
        self.fused = torch.stack([shares[:, m, None] * band for m, band in enumerate(bands)]).sum(dim=0)


def _likeness(bands: list[Tensor]) -> Tensor:
    """Return the mean squared cosine of different bands of a node."""
    pairs = [(m, n) for m in range(len(bands)) for n in range(m)]
    squares = [functional.cosine_similarity(bands[m], bands[n], dim=1).square().mean() for m, n in pairs]
    return torch.stack(squares).mean() if squares else bands[0].new_zeros(())


def _bottleneck(gates: Tensor) -> Tensor:
    """Return the mean over the nodes of what their gates exceed 1 by, squared and times its own sum."""
    excess = functional.relu(gates - 1)
    length = torch.linalg.vector_norm(excess, dim=1)
    return (length.square() + length * excess.sum(dim=1)).mean()


def _without_one_user(cosines: sparse.csr_array, history: sparse.csr_array) -> sparse.csr_array:
    """Return the cosines of items i (rows) and j that share a user, had that user not had item i."""
    sizes = np.bincount(history.indices, minlength=shape_of(cosines)[0]).astype(np.float64)
    own = np.repeat(sizes, np.diff(cosines.indptr))
    other = sizes[cosines.indices]
    shared = np.rint(cosines.data * np.sqrt(own * other))
    values = (shared - 1) / np.sqrt(np.maximum(own - 1, 1) * other)
    return sparse.csr_array((values.astype(np.float32), cosines.indices, cosines.indptr), shape=shape_of(cosines))


def _inner(first: sparse.csr_array, second: sparse.csr_array) -> np.ndarray:
    """Return the inner products of the rows of two sparse matrices."""
    return np.asarray(first.multiply(second).sum(axis=1), dtype=np.float64).reshape(-1)
