"""The k-core of a bipartite graph: the largest part in which every user and every item keeps at least k edges."""

from collections.abc import Sequence

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
    return k_core_masks([(users, items)], k)[0]


def k_core_masks(parts: Sequence[tuple[NDArray[np.integer], NDArray[np.integer]]], k: int) -> list[NDArray[np.bool_]]:
    """
    Return `k_core_mask` of edges that are cut into parts by user: of each part in turn.

    Only the degrees of the items are summed over the parts, so what is worked on at a time is one part.

    Parameters
    ----------
    parts
        Users and items of the edges of each part. All edges of a user are in one part, whose numbers for users are its
        own; items have the same number in all.
    k
        As there.

    Examples
    --------
    >>> [part.tolist() for part in k_core_masks([([0, 0], [0, 1]), ([0, 0, 1], [0, 1, 1])], k=2)]
    [[True, True], [True, True, False]]
    """
    edges = [(np.asarray(users), np.asarray(items)) for users, items in parts]
    kept = [np.ones(users.size, dtype=np.bool_) for users, _ in edges]
    if k <= 1:
        return kept
    n_items = 1 + max((int(items.max()) for _, items in edges if items.size), default=-1)
    dropped = True
    while dropped:
        dropped = False
        degrees = np.zeros(n_items, dtype=np.int64)
        for _, items in edges:
            degrees += np.bincount(items, minlength=n_items)
        strong_items = degrees >= k
        for part, (users, items) in enumerate(edges):
            strong = (np.bincount(users) >= k)[users] & strong_items[items] if users.size else np.ones(0, np.bool_)
            if not strong.all():
                dropped = True
                edges[part] = users[strong], items[strong]
                kept[part][kept[part]] = strong
    return kept
