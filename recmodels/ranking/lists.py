"""The best items of many users, in blocks of users wherever those are computed; not how a block is ranked."""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from recmodels.compute.base import Compute
from recmodels.ranking.blocks import user_blocks
from recmodels.ranking.ranker import Ranker


def best_lists(
    ranker: Ranker, users: NDArray[np.int64], k: int, excluded: sparse.csr_array | None, compute: Compute
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """
    Return what `Ranker.top_items` does, as arrays.

    Examples
    --------
    >>> from recmodels.compute.local import LOCAL
    >>> from recmodels.ranking.ranker import EmbeddingScorer
    >>> ranker = EmbeddingScorer(torch.ones(2, 1), torch.tensor([[1.0], [3.0], [2.0]]))
    >>> best_lists(ranker, np.array([1]), 2, None, LOCAL)
    (array([[1, 2]]), array([[3., 2.]], dtype=float32))
    """
    blocks = user_blocks(users, ranker.n_items)
    if not blocks:
        return np.empty((0, k), dtype=np.int64), np.empty((0, k), dtype=np.float32)
    items, scores = zip(*compute.map(_lists, blocks, shared=(ranker, k, excluded)), strict=True)
    return np.concatenate(items), np.concatenate(scores)


def _lists(
    asked: tuple[Ranker, int, sparse.csr_array | None], users: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    ranker, k, excluded = asked
    items, scores = ranker.top_items(torch.from_numpy(users), k, excluded=excluded)
    return items.cpu().numpy(), scores.cpu().numpy()
