"""VBPR: matrix factorisation whose items are half ID, half projected features (He and McAuley, AAAI 2016)."""

import numpy as np
import torch
from torch import Tensor

from recmodels.models import base
from recmodels.models.inputs import TrainingData
from recmodels.models.layers.blocks import Features, frobenius_penalty, lookup, xavier_table
from recmodels.models.zoo import bpr


class Config(bpr.Config):
    """Settings of VBPR: those of BPR."""


class Model(base.Model):
    """Users of width 2d against items [ID ; projection of text and image features side by side]."""

    config: Config

    def __init__(self, config: Config, data: TrainingData, generator: torch.Generator) -> None:
        super().__init__(config, data, generator)
        features = base.require_item_features(data, "vbpr")
        width = config.embedding_size
        self.users = xavier_table(data.n_users, 2 * width, generator)
        self.items = xavier_table(data.n_items, width, generator)
        joined = np.concatenate(list(features.values()), axis=1) if len(features) > 1 else next(iter(features.values()))
        self.features = Features(joined, width, generator, init="xavier_normal")
        torch.nn.init.zeros_(self.features.projection.bias)

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Return the users and the items' two halves side by side."""
        return self.users, torch.cat([self.items, self.features.all()], dim=1)

    def loss(self, batch: base.Batch) -> dict[str, Tensor]:
        """Return the ranking loss and the penalty."""
        user, items = lookup(self.users, batch.users), torch.cat([batch.positives, batch.negatives])
        joined = torch.cat([lookup(self.items, items), self.features(items)], dim=1)
        positive, negative = joined.split([len(batch.positives), len(batch.negatives)])
        return {
            self.config.training.loss: self.ranking_losses(user, positive, negative, batch.barred).mean(),
            "penalty": self.config.regularisation * frobenius_penalty(user, positive, negative, n_rows=len(user)),
        }
