"""
Which rows of a matrix are equal, found by their hashes: memory for some numbers a row, not for copies of the rows.

Rows with equal hashes are compared, so that a hash decides nothing.
"""

import numpy as np

_BLOCK_ROWS = 4096
"""Rows that are hashed or compared at once."""


def distinct_rows(unit: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """
    Return the first row of each set of equal rows, rising, and for every row the number of its set.

    Parameters
    ----------
    unit
        Shape (n, d), float32, finite, without -0.0.
    seed
        Of the hashes; it decides about time alone.

    Returns
    -------
    tuple[np.ndarray, np.ndarray]
        Int64, one for each set and one for each row. On the way 25 bytes a row more are used.

    Examples
    --------
    >>> first, number = distinct_rows(np.array([[2, 1], [0, 1], [2, 1]], np.float32))
    >>> first.tolist(), number.tolist()
    ([0, 1], [0, 1, 0])
    """
    hashes = _hashes(unit, seed)
    order = np.argsort(hashes, kind="stable")
    hashes = hashes[order]
    leads = np.concatenate(([True], hashes[1:] != hashes[:-1]))
    del hashes
    row = np.empty(order.size, np.int64)
    # For each row the first one with its hash.
    row[order] = np.repeat(order[leads], np.diff(np.flatnonzero(np.append(leads, True))))
    del order, leads
    later = np.flatnonzero(row != np.arange(row.size))
    other = np.concatenate(
        [np.empty(0, np.int64)]
        + [
            block[(unit[block] != unit[row[block]]).any(axis=1)]
            for block in np.array_split(later, -(-later.size // _BLOCK_ROWS) or 1)
        ]
    )
    if other.size:
        # Rows that only their hash has in common with the first are told apart among themselves, by another hash.
        first_of_others, row_of_others = distinct_rows(unit[other], seed + 1)
        row[other] = other[first_of_others][row_of_others]
    is_first = np.zeros(row.size, bool)
    is_first[row] = True
    number = np.cumsum(is_first)
    number -= 1
    return np.flatnonzero(is_first), number[row]


def _hashes(unit: np.ndarray, seed: int) -> np.ndarray:
    """Return a 64-bit hash of the bytes of each row."""
    factors = np.random.default_rng(seed).integers(1 << 63, 1 << 64, unit.shape[1], dtype=np.uint64) | np.uint64(1)
    hashes = np.empty(len(unit), np.uint64)
    for start in range(0, len(unit), _BLOCK_ROWS):
        words = unit[start : start + _BLOCK_ROWS].view(np.uint32) * factors
        # The low bits of a product know only the low bits of its word.
        words ^= words >> np.uint64(29)
        hashes[start : start + _BLOCK_ROWS] = words.sum(axis=1)
    return hashes
