"""How MGCN and GUME read modalities through behaviour: purified items, views of all nodes, and their integration."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from recmodels.graphs.adjacency import Adjacency
from recmodels.graphs.propagation import propagate
from recmodels.models.layers.blocks import FeaturesByModality, linear


def gates(modalities: Iterable[str], width: int, generator: torch.Generator) -> nn.ModuleDict:
    """Return an affine map of `width` columns onto themselves for each modality."""
    return nn.ModuleDict({modality: linear(width, width, generator) for modality in modalities})


def attention_scores(width: int, generator: torch.Generator) -> nn.Sequential:
    """Return the map from a view (n, width) to how much of it is attended to, (n, 1)."""
    return nn.Sequential(linear(width, width, generator), nn.Tanh(), linear(width, 1, generator, bias=False))


def purified(ids: Tensor, features: FeaturesByModality, gates: nn.ModuleDict) -> dict[str, Tensor]:
    """Return the item IDs (n_items, width) gated by each modality's projected features."""
    return {
        modality: ids * torch.sigmoid(gates[modality](projected.all())) for modality, projected in features.present()
    }


def views(
    items: Mapping[str, Tensor], item_graphs: Mapping[str, Adjacency], user_item: Adjacency, n_layers: int = 1
) -> dict[str, Tensor]:
    """Return each modality's items over its graph, under their users' sums of them, (n_users + n_items, width)."""
    found: dict[str, Tensor] = {}
    for modality, graph in item_graphs.items():
        nodes = items[modality]
        for _ in range(n_layers):
            nodes = propagate(graph, nodes)
        found[modality] = torch.cat([propagate(user_item, nodes), nodes])
    return found


def integrated(views: Mapping[str, Tensor], content: Tensor, attention: nn.Module, prefer: nn.ModuleDict) -> Tensor:
    """Return the mean of what the views have in common and what each has alone, as behaviour (`content`) prefers it."""
    shares = torch.cat([attention(view) for view in views.values()], dim=1).softmax(dim=1)
    common = torch.stack([view * shares[:, n, None] for n, view in enumerate(views.values())]).sum(dim=0)
    special = [torch.sigmoid(prefer[modality](content)) * (view - common) for modality, view in views.items()]
    return (torch.stack(special).sum(dim=0) + common) / (len(views) + 1)
