"""TimeMM: a bank of time kernels as graph filters, mixed by node and routed by modality (Yang et al., SIGIR 2026)."""

from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from recmodels.errors import InputError
from recmodels.graphs.propagation import light_gcn, propagate
from recmodels.models import base
from recmodels.models.inputs import TrainingData
from recmodels.models.layers.blocks import linear, lookup, lookup_each, row_dot
from recmodels.models.layers.channels import ChannelConfig, Channels
from recmodels.models.layers.item_graphs import fused_item_graph
from recmodels.models.layers.recency import (
    Kernel,
    ages,
    item_states,
    kernel_weights,
    routing_states,
    shuffled_within,
    user_states,
)

_GATE_HIDDEN = 64
_ROUTER_HIDDEN = 32


class Config(ChannelConfig):
    """
    Settings of TimeMM. It needs the time of every training pair.

    The controls of its claims are `kernel` ``constant``, `time_scales` of one entry, `shuffle_times` and `routing`
    ``global``. Deviations from the published program: `loss` ``paper`` has the terms that the program has commented
    out; no graph of users.
    """

    time_scales: tuple[Annotated[float, Field(gt=0)], ...] = Field(default=(4.0, 6.0, 10.0), min_length=1)
    """Scales tau of the kernels; the larger, the slower a pair's weight falls with its age."""
    kernel: Kernel = "power"
    """``power`` (1 + age)^(-1/tau), ``inverse`` 1 / (1 + age/tau), or ``constant``, which knows no age."""
    shuffle_times: bool = False
    """Permute the times among the pairs of each user, which leaves the user's states alone."""
    routing: Literal["user", "global"] = "user"
    """Weigh the modalities for each user by the user's states, or once for all users."""
    gate_temperature: float = Field(default=0.7, gt=0)
    """Temperature of the softmax that mixes the kernels of a node."""
    loss: Literal["paper", "released"] = "paper"
    """``released`` is the cross-entropy of scores alone, as in the program; ``paper`` adds the three terms below."""
    diversity_weight: float = Field(default=1e-2, ge=0)
    """Weight of the squared correlations between the kernels' margins."""
    entropy_weight: float = 1e-3
    """Weight of the entropy of the modality weights: above 0 it sharpens them, as in the program; below, it evens."""
    regularisation: float = Field(default=0.1, ge=0)
    """Weight of the mean squares of the user tables and of the item IDs."""


class Model(base.Model):
    """IDs and modalities as channels, each filtered at several time scales; users weigh the channels."""

    config: Config
    pairwise = False

    def __init__(self, config: Config, data: TrainingData, generator: torch.Generator) -> None:
        super().__init__(config, data, generator)
        if data.train_times is None:
            raise InputError(
                "training data of timemm",
                expected="the timestamp of every training pair",
                found="pairs without one",
                action="Use a data set whose interactions have timestamps.",
            )
        features, tables = base.require_item_features_and_knn(data, "timemm")
        self.channels = Channels(features, data.n_users, data.n_items, config, generator)
        names, n_kernels = self.channels.names, len(config.time_scales)
        self.user_stems, self.item_stems, self.heads = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        for name in names:
            self.user_stems[name] = linear(7, _GATE_HIDDEN, generator)
            self.item_stems[name] = linear(7, _GATE_HIDDEN, generator)
            self.heads[name] = linear(_GATE_HIDDEN, n_kernels, generator)
        if config.routing == "global":
            self.routes = nn.Parameter(torch.zeros(len(names)))
        else:
            hidden, output = linear(4, _ROUTER_HIDDEN, generator), linear(_ROUTER_HIDDEN, len(names), generator)
            self.router = nn.Sequential(hidden, nn.ReLU(), output)
        self.item_graph = fused_item_graph(tables, data.n_items, config).to(self.device)
        users, items = data.train_pairs
        times = data.train_times
        if config.shuffle_times:
            noise = torch.rand(len(times), dtype=torch.float64, generator=generator).numpy()
            times = shuffled_within(users, times, noise)
        graph = self.bipartite_graph(data)
        age = ages(users, times, data.n_users)
        self.operators = [
            graph.weighted_adjacency(kernel_weights(age, scale, config.kernel)) for scale in config.time_scales
        ]
        self.user_states = self._constant(user_states(users, times, data.n_users))
        self.item_states = self._constant(item_states(items, times, data.n_items))
        self.routing_states = self._constant(routing_states(users, times, data.n_users))

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Return the mixed channels side by side, those of users weighed, those of items over their graph too."""
        return self._embed(self._filtered(), self._route())

    def loss(self, batch: base.Batch) -> dict[str, Tensor]:
        """Return the cross-entropy of the scores and, of the paper, the terms for diversity, routing and size."""
        config = self.config
        filtered, route = self._filtered(), self._route()
        all_users, all_items = self._embed(filtered, route)
        user = lookup(all_users, batch.users)
        positive, negative = lookup_each(all_items, batch.positives, batch.negatives)
        liked, other = row_dot(user, positive), row_dot(user, negative)
        parts = {"bce": (functional.softplus(-liked) + functional.softplus(other)).mean() / 2}
        if config.loss == "released":
            return parts
        triples = [self.of_batch(nodes, batch) for nodes in filtered]
        margins = torch.stack([row_dot(u, i - j) for u, i, j in triples])
        entropy = -(route * torch.log(route.clamp_min(torch.finfo(route.dtype).tiny))).sum(dim=1).mean()
        return parts | {
            "diversity": config.diversity_weight * _diversity(margins),
            "entropy": config.entropy_weight * entropy,
            "penalty": config.regularisation
            * (self.channels.users.square().mean() + self.channels.ids.square().mean()),
        }

    def _filtered(self) -> list[Tensor]:
        """Return the sum of each operator's powers applied to all channels, one (n, n_channels * width) a kernel."""
        nodes, n_layers = self.channels(), self.config.n_layers
        return [(n_layers + 1) * light_gcn(operator, nodes, n_layers) for operator in self.operators]

    def _embed(self, filtered: list[Tensor], route: Tensor) -> tuple[Tensor, Tensor]:
        by_channel = self.channels.by_channel
        gates = self._gates()
        mixed = torch.stack([gates[:, :, k, None] * by_channel(nodes) for k, nodes in enumerate(filtered)]).sum(dim=0)
        users, items = self.split(mixed)
        items = items.flatten(1)
        return (route[:, :, None] * users).flatten(1) + self.channels.users, items + propagate(self.item_graph, items)

    def _gates(self) -> Tensor:
        """Return the shares of the kernels in every node's channels, (n, n_channels, n_kernels)."""
        gates: list[Tensor] = []
        for name in self.channels.names:
            hidden = torch.cat([self.user_stems[name](self.user_states), self.item_stems[name](self.item_states)])
            logits = self.heads[name](functional.relu(hidden)).float()
            gates.append(functional.softmax(logits / self.config.gate_temperature, dim=1))
        return torch.stack(gates, dim=1)

    def _route(self) -> Tensor:
        """Return the weights of the channels, (n_users, n_channels)."""
        if self.config.routing == "global":
            return functional.softmax(self.routes, dim=0).expand(self.n_users, -1)
        return functional.softmax(self.router(self.routing_states).float(), dim=1)

    def _constant(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values.astype(np.float32)).to(self.device)


def _diversity(margins: Tensor) -> Tensor:
    """Return the squared correlations between the kernels' margins, (n_kernels, batch), over n_kernels squared."""
    directions = functional.normalize(margins - margins.mean(dim=1, keepdim=True), dim=1)
    correlations = directions @ directions.T
    return (correlations.square().sum() - correlations.diagonal().square().sum()) / len(margins) ** 2
