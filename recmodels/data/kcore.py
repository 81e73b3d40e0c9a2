"""The k-core of a bipartite graph: the largest part in which every user and every item keeps at least k edges."""

import numpy as np
from numpy.typing import NDArray


def k_core_mask(users: NDArray[np.integer], items: NDArray[np.integer], k: int) -> NDArray[np.bool_]:
    """
    Return which of the edges belong to the k-core.

    Users and items below k edges are removed in turn until none is left; the result does not depend on the order.

    Parameters
    ----------
    users, items
        Ends of each edge, shape (n_edges,), non-negative integers, best without large gaps.
    k
        Fewest edges of a kept user or item; up to 1 keeps everything.

    Examples
    --------
    >>> k_core_mask(np.array([0, 0, 1, 1, 2]), np.array([0, 1, 0, 1, 1]), k=2)
    array([ True,  True,  True,  True, False])
    """
    kept = np.ones(users.shape[0], dtype=np.bool_)
    if k <= 1 or users.shape[0] == 0:
        return kept
    rows = np.arange(users.shape[0])
    while True:
        u, i = users[rows], items[rows]
        strong = (np.bincount(u)[u] >= k) & (np.bincount(i)[i] >= k)
        if strong.all():
            break
        rows = rows[strong]
        if rows.size == 0:
            break
    kept[:] = False
    kept[rows] = True
    return kept
