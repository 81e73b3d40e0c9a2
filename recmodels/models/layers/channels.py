"""The inputs of TimeMM and BRIDGE: IDs and each modality as a channel of its own, with its own users."""

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from recmodels.models.config import FusedGraphConfig, TrainingConfig
from recmodels.models.inputs import FeatureMatrix
from recmodels.models.layers.blocks import FeaturesByModality, linear, xavier_table

_HIDDEN = 256


class ChannelConfig(FusedGraphConfig):
    """
    Settings that TimeMM and BRIDGE have in common.

    Of the published programs' graph of users there is none.
    """

    n_layers: int = Field(default=2, ge=1)
    """Layers L of the convolution of each channel: the sum of the operator's powers 0 to L."""
    training: TrainingConfig = TrainingConfig(learning_rate=1e-4, epochs=300)
    """The training loop's settings."""


class Channels(nn.Module):
    """
    Layer 0 of every channel: a table of users beside the items' IDs or projected features, each row of length 1.

    Parameters
    ----------
    features
        Item features by modality, each (n_items, its own width) float32.
    n_users, n_items
        Sizes of the tables.
    config
        Its `embedding_size` is the width of a channel; `trainable_features` trains copies of the features too.
    generator
        Source of the initial parameters.

    Attributes
    ----------
    names
        ``id``, then the modalities.
    users
        (n_users, n_channels * width), the users of the channels side by side.
    ids
        (n_items, width), the items of the channel ``id``.
    """

    def __init__(
        self,
        features: Mapping[str, FeatureMatrix],
        n_users: int,
        n_items: int,
        config: ChannelConfig,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        width = self.width = config.embedding_size
        self.names = ("id", *features)
        tables = [xavier_table(n_users, width, generator, normal=True).data for _ in self.names]
        self.users = nn.Parameter(torch.cat(tables, dim=1))
        self.ids = xavier_table(n_items, width, generator)
        self.features = FeaturesByModality(features, _HIDDEN, generator, trainable=config.trainable_features)
        self.outputs = nn.ModuleDict({modality: linear(_HIDDEN, width, generator) for modality in features})

    def forward(self) -> Tensor:
        """Return users and items, (n_users + n_items, n_channels * width)."""
        items: list[Tensor] = [self.ids]
        for modality, features in self.features.present():
            items.append(self.outputs[modality](functional.leaky_relu(features.all())))
        nodes = torch.cat([self.users, torch.cat(items, dim=1).float()])
        return functional.normalize(self.by_channel(nodes), dim=2).flatten(1)

    def by_channel(self, nodes: Tensor) -> Tensor:
        """Return (n, n_channels * width) embeddings as (n, n_channels, width)."""
        return nodes.view(len(nodes), len(self.names), self.width)
