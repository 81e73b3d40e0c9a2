"""Recommenders that learn nothing about a user: what every model has to beat. They rank by the same inner product."""

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn import functional


def popularity_embeddings(train_items: ArrayLike, n_users: int, n_items: int) -> tuple[Tensor, Tensor]:
    """Return embeddings of width 1, (n_users, 1) and (n_items, 1), whose score is the item's count in training."""
    counts = np.bincount(train_items, minlength=n_items).astype(np.float32)
    return torch.ones(n_users, 1), torch.from_numpy(counts)[:, None]


def random_embeddings(n_users: int, n_items: int, *, seed: int, width: int = 64) -> tuple[Tensor, Tensor]:
    """
    Return random directions, (n_users, width) and (n_items, width), so that every item is equally likely at any rank.

    The items have length 1: a longer one would stand at the ends of the rankings more often.
    """
    generator = torch.Generator().manual_seed(seed)
    users = torch.randn(n_users, width, generator=generator)
    return users, functional.normalize(torch.randn(n_items, width, generator=generator))
