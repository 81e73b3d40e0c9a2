"""
Sparse scipy matrices from tables: interactions and neighbour tables, checked and de-duplicated.

Nothing here imports torch. Indices are int32 throughout: products of int32 matrices stay int32, at half the memory.
"""

from typing import Any, Literal

import numpy as np
import polars as pl
from scipy import sparse

from recmodels.errors import InputError


def shape_of(matrix: Any) -> tuple[int, int]:
    """Return the numbers of rows and columns of a sparse matrix as plain integers."""
    n_rows, n_columns = matrix.shape
    return int(n_rows), int(n_columns)


def canonical_csr(name: str, matrix: Any) -> sparse.csr_array:
    """
    Return a sparse matrix as CSR with sorted indices and without repeated entries; the given one is left as it is.

    Raises InputError, which calls it by its name, if it is not sparse.
    """
    if not sparse.issparse(matrix):
        raise InputError(name, expected="a scipy sparse matrix", found=type(matrix).__name__)
    rows = sparse.csr_array(matrix)
    if not rows.has_canonical_format:
        rows = rows.copy()
        rows.sum_duplicates()
    return rows


def check_ids(where: str, ids: np.ndarray, n: int) -> None:
    """Raise InputError, which calls the ids what `where` says, if one is not in ``[0, n)``."""
    if ids.size and (ids.min() < 0 or ids.max() >= n):
        raise InputError(where, expected=f"ids in [0, {n})", found=f"{ids.min()} to {ids.max()}")


def checked_pairs(
    user_ids: Any, item_ids: Any, n_users: int, n_items: int, where: str = "interactions"
) -> tuple[np.ndarray, np.ndarray]:
    """
    Return two int64 arrays of equal length with ids in range.

    Parameters
    ----------
    user_ids, item_ids
        Arrays, polars series or tensors of integers, one pair an entry.
    n_users, n_items
        Numbers of users and items; ids lie in ``[0, n)``.
    where
        What to call the pairs in an error message.

    Raises
    ------
    InputError
        If the two differ in length, are not integers, or hold an id out of range.
    """
    checked: list[np.ndarray] = []
    for name, ids, n in (("user", user_ids, n_users), ("item", item_ids, n_items)):
        array = np.asarray(ids)
        if array.ndim != 1 or (array.size and not np.issubdtype(array.dtype, np.integer)):
            raise InputError(
                f"{where}, {name} ids",
                expected="a flat array of integers",
                found=f"{array.dtype} of shape {array.shape}",
            )
        check_ids(f"{where}, {name} ids", array, n)
        checked.append(array.astype(np.int64))
    users, items = checked
    if users.size != items.size:
        raise InputError(where, expected="as many users as items", found=f"{users.size} users, {items.size} items")
    return users, items


def interaction_matrix(user_ids: Any, item_ids: Any, n_users: int, n_items: int) -> sparse.csr_array:
    """
    Return the binary user-item matrix R of pairs as in `checked_pairs`; repeated pairs count once.

    Returns
    -------
    sparse.csr_array
        Shape (n_users, n_items), float32 ones, int32 indices sorted within rows.
    """
    users, items = checked_pairs(user_ids, item_ids, n_users, n_items)
    matrix = _csr(users, items, np.ones(users.size, np.float32), (n_users, n_items))
    matrix.data[:] = 1
    return matrix


def neighbour_matrix(
    knn: pl.DataFrame,
    n: int,
    k: int | None = None,
    *,
    include_self: bool = True,
    weights: Literal["binary", "similarity"] = "binary",
) -> sparse.csr_array:
    """
    Turn a neighbour table into a sparse matrix S without normalisation.

    Parameters
    ----------
    knn
        Table of schema `recmodels.schemas.tables.KNN`. Zero rows give an empty matrix. Repeated edges count once, with
        their best similarity.
    n
        Number of nodes.
    k
        Keep the `k` best neighbours of each row (after removal of the row itself, if `include_self` is False).
        None keeps all.
    include_self
        Whether an edge from a node to itself is kept.
    weights
        ``binary``: every kept edge is 1. ``similarity``: its similarity; an unknown (null) similarity is 0.

    Returns
    -------
    sparse.csr_array
        Shape (n, n), float32; ``S[i, j]`` is the edge from src i to dst j. Zero similarities stay as stored entries.

    Raises
    ------
    InputError
        If an id is out of range, `k` is below 1, or the table holds fewer than `k` neighbours in every row although
        `n` would allow them.
    """
    if k is not None and k < 1:
        raise InputError("neighbours k", expected="at least 1", found=str(k))
    src, dst = checked_pairs(knn["src"].to_numpy(), knn["dst"].to_numpy(), n, n, "neighbour table")
    similarity = knn["similarity"].fill_null(0.0).fill_nan(0.0).to_numpy().astype(np.float32)
    order = np.lexsort((knn["rank"].to_numpy(), src))
    if not include_self:
        order = order[src[order] != dst[order]]
    src, dst, similarity = src[order], dst[order], similarity[order]
    # Repeated edges: the first (best ranked) of each pair stays, and does not use up one of the k places.
    _, first = np.unique(src * n + dst, return_index=True)
    first.sort()
    src, dst, similarity = src[first], dst[first], similarity[first]
    counts = np.bincount(src, minlength=n)
    if k is not None and src.size:
        deepest = int(counts.max())
        if deepest < min(k, n if include_self else n - 1):
            raise InputError(
                "neighbour table",
                expected=f"at least {k} neighbours a row{'' if include_self else ' beside the row itself'}",
                found=f"at most {deepest}",
                action="Build the table with a larger k, or ask for fewer neighbours.",
            )
        place = np.arange(src.size) - np.repeat(np.cumsum(counts) - counts, counts)
        kept = place < k
        src, dst, similarity = src[kept], dst[kept], similarity[kept]
    values = similarity if weights == "similarity" else np.ones(src.size, np.float32)
    return _csr(src, dst, values, (n, n))


def entry_keys(matrix: sparse.csr_array) -> np.ndarray:
    """Return row * n_columns + column of each stored entry, int64; ascending when the indices are sorted."""
    n_rows, n_columns = shape_of(matrix)
    keys = np.repeat(np.arange(n_rows, dtype=np.int64) * n_columns, np.diff(matrix.indptr))
    keys += matrix.indices
    return keys


def only_entries(matrix: sparse.csr_array, kept: np.ndarray) -> sparse.csr_array:
    """Return a CSR matrix with those of its stored entries that are marked, int32 indices."""
    indptr = np.concatenate(([0], np.cumsum(kept)))[matrix.indptr].astype(np.int32)
    return sparse.csr_array((matrix.data[kept], matrix.indices[kept], indptr), shape=matrix.shape)


def occurs_in(keys: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Mark the keys, an array of any shape, that occur in an ascending table."""
    if not table.size:
        return np.zeros(keys.shape, dtype=bool)
    at = np.minimum(np.searchsorted(table, keys), table.size - 1)
    return table[at] == keys


def row_blocks(indptr: np.ndarray, n_entries: int) -> list[tuple[int, int]]:
    """Cut CSR rows into runs [first, last) of about `n_entries` stored entries; a longer row stands alone."""
    n_rows = indptr.size - 1
    wanted = np.arange(0, int(indptr[-1]) + n_entries, n_entries)
    borders = np.unique(np.concatenate((np.searchsorted(indptr, wanted, side="right") - 1, [0, n_rows])))
    borders = borders[borders <= n_rows]
    return list(zip(borders[:-1].tolist(), borders[1:].tolist(), strict=True))


def _csr(rows: np.ndarray, columns: np.ndarray, values: np.ndarray, shape: tuple[int, int]) -> sparse.csr_array:
    pairs = (rows.astype(np.int32), columns.astype(np.int32))
    matrix = sparse.csr_array(sparse.coo_array((values, pairs), shape=shape))
    matrix.sum_duplicates()
    return matrix
