"""BPR: matrix factorisation with the Bayesian personalised ranking loss (Rendle et al., UAI 2009)."""

import torch
from pydantic import Field
from torch import Tensor

from recmodels.models import base
from recmodels.models.config import ModelConfig
from recmodels.models.inputs import TrainingData
from recmodels.models.layers.blocks import frobenius_penalty, lookup, xavier_table


class Config(ModelConfig):
    """Settings of BPR."""

    regularisation: float = Field(default=0.1, ge=0)
    """Weight of the Frobenius norms of the batch's embeddings; the published grid is 1e-5 to 2."""


class Model(base.Model):
    """User and item embeddings, and nothing else."""

    config: Config
    keeps_columns_apart = True

    def __init__(self, config: Config, data: TrainingData, generator: torch.Generator) -> None:
        super().__init__(config, data, generator)
        self.users = xavier_table(data.n_users, config.embedding_size, generator, normal=True)
        self.items = xavier_table(data.n_items, config.embedding_size, generator, normal=True)

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Return the two tables."""
        return self.users, self.items

    def loss(self, batch: base.Batch) -> dict[str, Tensor]:
        """Return the ranking loss and the penalty."""
        user = lookup(self.users, batch.users)
        positive, negative = lookup(self.items, batch.positives), lookup(self.items, batch.negatives)
        return {
            self.config.training.loss: self.ranking_losses(user, positive, negative, batch.barred).mean(),
            "penalty": self.config.regularisation * frobenius_penalty(user, positive, negative, n_rows=len(user)),
        }
