"""Full ranking of all items for many users, in blocks, from their embeddings."""

from concurrent.futures import ThreadPoolExecutor

import torch
from scipy import sparse
from torch import Tensor

from recmodels.graphs.matrices import entry_keys

# Scores that are ranked while they are still in the cache: a third faster than blocks of 32 MB.
_BLOCK_BYTES = 4 * 2**20
_LEAST_ROWS = 64


def top_items(
    user_embeddings: Tensor,
    item_embeddings: Tensor,
    users: Tensor,
    k: int,
    *,
    excluded: sparse.csr_array | None = None,
) -> tuple[Tensor, Tensor]:
    """
    Rank all items for each of the users and return the best k.

    Scores are inner products. No more than a block of them (about 4 MB) exists for each thread at a time. No gradient
    flows through them.

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

    Returns
    -------
    items
        (n, k) int64 ids, best first.
    scores
        (n, k) float32; minus infinity where a user has fewer than k items that are not excluded.
    """
    n_items, device = item_embeddings.shape[0], item_embeddings.device
    n_rows = max(_LEAST_ROWS, _BLOCK_BYTES // (4 * n_items))
    transposed = item_embeddings.detach().T.contiguous()
    items = torch.empty(len(users), k, dtype=torch.int64, device=device)
    scores = torch.empty(len(users), k, dtype=item_embeddings.dtype, device=device)

    barred = None if excluded is None else excluded[users.cpu().numpy()]

    @torch.no_grad()
    def rank(start: int) -> None:
        here = slice(start, start + n_rows)
        of_all = user_embeddings[users[here]] @ transposed
        if barred is not None:
            of_all.view(-1)[torch.from_numpy(entry_keys(barred[here])).to(device)] = -torch.inf
        scores[here], items[here] = of_all.topk(k, dim=1)

    starts = range(0, len(users), n_rows)
    n_threads = min(torch.get_num_threads(), len(starts)) if device.type == "cpu" else 1
    if n_threads < 2:
        for start in starts:
            rank(start)
        return items, scores
    # A block has one thread from product to ranking: its scores stay in one core's cache, and no core waits for another
    # after each operation. The number of threads is a setting of each thread.
    with ThreadPoolExecutor(n_threads, "top_items", torch.set_num_threads, (1,)) as pool:
        for _ in pool.map(rank, starts):
            pass
    return items, scores
