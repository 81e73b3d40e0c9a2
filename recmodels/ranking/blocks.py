"""How ranking is cut: users for the machines of a cluster, users and items for a core. The data alone say how."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray

WHOLE_ITEMS = 100_000
"""Most items whose scores for some users are made at once on the CPU (26 MB a thread); more are cut into blocks."""
USERS, ITEMS = 256, 4096
"""What one core ranks at a time where items are cut: 4 MB of scores."""
# Scores that are ranked while they are still in the cache: a third faster than blocks of 32 MB.
_BLOCK_BYTES = 4 * 2**20
_LEAST_ROWS = 64
# What one machine ranks at a time: below a minute of a core, and lists and figures of its users in some 100 MB.
_MOST_SCORES = 2**34
_MOST_USERS = 2**18


def user_blocks(users: NDArray[np.int64], n_items: int) -> list[NDArray[np.int64]]:
    """
    Cut ids into blocks that machines rank one at a time. All are one block up to 2^34 scores and 2^18 users.

    Examples
    --------
    >>> [block.size for block in user_blocks(np.arange(20_000), 1_000_000)]
    [17152, 2848]
    """
    # A core ranks the same users together, whether they were cut here or not.
    together = USERS if n_items > WHOLE_ITEMS else _rows(n_items)
    size = max(1, min(_MOST_SCORES // n_items, _MOST_USERS) // together) * together
    return [users[first : first + size] for first in range(0, users.size, size)]


def in_blocks(
    work: Callable[[slice], None], n_rows: int, n_columns: int, *, n_together: int | None = None, parallel: bool = True
) -> None:
    """Do work that makes float32 rows of n_columns, one block of rows (`n_together`) after the other in each thread."""
    size = n_together or _rows(n_columns)
    blocks = [slice(start, start + size) for start in range(0, n_rows, size)]
    n_threads = min(torch.get_num_threads(), len(blocks)) if parallel else 1
    if n_threads < 2:
        for block in blocks:
            work(block)
        return
    # A block has one thread from product to ranking: its scores stay in one core's cache, and no core waits for another
    # after each operation. The number of threads is a setting of each thread.
    with ThreadPoolExecutor(n_threads, "ranking", torch.set_num_threads, (1,)) as pool:
        for _ in pool.map(work, blocks):
            pass


def _rows(n_columns: int) -> int:
    return max(_LEAST_ROWS, _BLOCK_BYTES // (4 * n_columns))
