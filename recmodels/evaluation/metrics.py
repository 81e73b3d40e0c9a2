"""Ranking metrics of many users at once, from the hits in their top lists."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Hits = NDArray[np.bool_]
Counts = NDArray[np.int64]
Values = NDArray[np.float64]


def recall(hits: Hits, n_relevant: Counts) -> Values:
    """Return the share of the relevant items that were found."""
    return np.asarray(hits.sum(axis=1) / n_relevant)


def precision(hits: Hits, n_relevant: Counts) -> Values:
    """Return the share of the list that is relevant."""
    return np.asarray(hits.sum(axis=1) / hits.shape[1])


def hit_rate(hits: Hits, n_relevant: Counts) -> Values:
    """Return 1 where anything relevant was found."""
    return np.asarray(hits.any(axis=1), dtype=np.float64)


def ndcg(hits: Hits, n_relevant: Counts) -> Values:
    """Return the discounted gain (1 / log2(rank + 1) a hit) over that of the best possible list of the same length."""
    discounts = 1 / np.log2(np.arange(2, hits.shape[1] + 2))
    ideal = np.concatenate([[0.0], np.cumsum(discounts)])
    return np.asarray(hits @ discounts) / ideal[np.minimum(n_relevant, hits.shape[1])]


def reciprocal_rank(hits: Hits, n_relevant: Counts) -> Values:
    """Return 1 / rank of the first relevant item, 0 without one (MRR is the mean over users)."""
    return np.where(hits.any(axis=1), 1 / (hits.argmax(axis=1) + 1), 0.0)


def average_precision(hits: Hits, n_relevant: Counts) -> Values:
    """Return the mean of the precisions at the hits, over the most hits possible (MAP: mean over users)."""
    precisions = np.cumsum(hits, axis=1) / np.arange(1, hits.shape[1] + 1)
    return (precisions * hits).sum(axis=1) / np.minimum(n_relevant, hits.shape[1])


METRICS: dict[str, Callable[[Hits, Counts], Values]] = {
    "recall": recall,
    "ndcg": ndcg,
    "mrr": reciprocal_rank,
    "hit": hit_rate,
    "precision": precision,
    "map": average_precision,
}
"""
Every per-user metric by name.

Each takes `hits`, (n_users, k) bool, whether the item at each rank is relevant, and `n_relevant`, (n_users,) >= 1, the
number of held-out items, and returns (n_users,) float64 values.
"""
