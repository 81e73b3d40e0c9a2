"""
What the epochs of a training are drawn from: its pairs, and the sampler of the negatives that they are set against.

Which items a sampler may draw is decided in `recmodels.training.negatives`; how batches are made, in the trainer.
"""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recmodels.errors import InputError
from recmodels.graphs.matrices import interaction_matrix
from recmodels.models.base import Model
from recmodels.models.inputs import TrainingData
from recmodels.training.negatives import NegativeSampler
from recmodels.transport.false_negatives import false_negatives


@dataclass(frozen=True, eq=False)
class TrainingPairs:
    """
    The positives of a training, and their negatives.

    Attributes
    ----------
    users, positives
        (n,) int64 ids on the model's device, by user: the sampler is fastest that way, batches are shuffled later.
    sampler
        Of items that occur in training and that the user neither has nor, if so set, likely likes; None for a model
        that uses no negatives.
    n_left_out
        Pairs that are not among them, because their user has every item that occurs in training: there is nothing to
        set these positives against. Graphs and features of the model know them all the same.
    """

    users: Tensor
    positives: Tensor
    sampler: NegativeSampler | None
    n_left_out: int = 0


def training_pairs(model: Model, data: TrainingData) -> TrainingPairs:
    """
    Return what a model is trained on under its configuration. A warning tells how many pairs are left out.

    Raises
    ------
    InputError
        If the model uses negatives and every user has every item.
    """
    config = model.config.training
    users, items = data.train_pairs
    barred: Any = None
    if config.augmentation and data.added_users is not None and data.added_items is not None:
        barred = interaction_matrix(data.added_users, data.added_items, data.n_users, data.n_items)
        users = np.concatenate([users, data.added_users])
        items = np.concatenate([items, data.added_items])
        order = np.lexsort((items, users))
        users, items = users[order], items[order]
    pairs = torch.tensor(users, device=model.device), torch.tensor(items, device=model.device)
    if not model.uses_negatives:
        return TrainingPairs(*pairs, sampler=None)
    if config.restricted_negatives:
        size = (data.n_users, data.n_items)
        likely = false_negatives(*data.train_pairs, *size, data.item_knn, k=config.restricted_neighbours)
        barred = likely if barred is None else barred + likely
    sampler = NegativeSampler(data.train_matrix(), barred, device=model.device)
    kept = sampler.n_negatives[pairs[0]] > 0
    n_left_out = len(kept) - int(kept.sum())
    if n_left_out == len(kept):
        raise InputError("training pairs", expected="a user who lacks one of the items", found="none: no negatives")
    if n_left_out:
        warnings.warn(
            f"{n_left_out} of {len(kept)} training pairs are left out of the loss: their users have every item that "
            "occurs in training, so that no negative is left for them.",
            stacklevel=2,
        )
    return TrainingPairs(pairs[0][kept], pairs[1][kept], sampler, n_left_out)
