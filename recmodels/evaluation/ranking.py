"""Full ranking of all items for many users, in blocks, from their embeddings."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

# Scores that are ranked while they are still in the cache: a third faster than blocks of 32 MB.
_BLOCK_BYTES = 4 * 2**20
_LEAST_ROWS = 64


@dataclass(frozen=True, eq=False)
class RankedBlock:
    """
    The best items of a block of users.

    Attributes
    ----------
    users
        (b,) int64 ids.
    items
        (b, k) int64 ids, best first.
    scores
        (b, k) float32; minus infinity where a user has fewer than k items that are not excluded.
    """

    users: Tensor
    items: Tensor
    scores: Tensor


def top_items(
    user_embeddings: Tensor,
    item_embeddings: Tensor,
    users: Tensor,
    k: int,
    *,
    excluded: sparse.csr_array | None = None,
) -> Iterator[RankedBlock]:
    """
    Rank all items for each of the users and yield the best k, block by block.

    No more than a block of scores exists at a time (about 4 MB). Scores are inner products.

    Parameters
    ----------
    user_embeddings, item_embeddings
        (n_users, d) and (n_items, d) float32, on one device.
    users
        (n,) int64 ids of the users to rank for.
    k
        Items per user, at most n_items.
    excluded
        (n_users, n_items) CSR; its entries get a score of minus infinity.
    """
    n_items = item_embeddings.shape[0]
    block_size = max(_LEAST_ROWS, _BLOCK_BYTES // (4 * n_items))
    transposed = item_embeddings.T.contiguous()
    for block in users.split(block_size):
        scores = user_embeddings[block] @ transposed
        if excluded is not None:
            rows, columns = row_entries(excluded, block)
            scores[rows, columns] = -torch.inf
        best, items = scores.topk(k, dim=1)
        yield RankedBlock(block, items, best)


def row_entries(matrix: sparse.csr_array, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return positions within `rows`, and columns, of the entries of some rows of a CSR matrix, on the rows' device."""
    chosen = rows.cpu().numpy()
    starts = matrix.indptr[chosen].astype(np.int64)
    counts = matrix.indptr[chosen + 1] - starts
    positions = np.repeat(np.arange(len(chosen)), counts)
    ends = np.cumsum(counts)
    entries = np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - (ends - counts), counts)
    columns = matrix.indices[entries].astype(np.int64)
    return torch.from_numpy(positions).to(rows.device), torch.from_numpy(columns).to(rows.device)
