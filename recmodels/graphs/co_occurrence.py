"""How alike the columns of a sparse 0/1 matrix are: items by the users they share, users by the items they share."""

import numpy as np
from scipy import sparse

from recmodels.errors import InputError
from recmodels.graphs.matrices import only_entries, row_blocks, shape_of

# Multiplications of one sparse product, which bound its temporary arrays to about 200 MB.
_BLOCK_PRODUCTS = 1 << 23


def cosines_of_columns(
    matrix: sparse.csr_array, neighbours: int | None = None, *, shrinkage: float = 0.0
) -> sparse.csr_array:
    r"""
    Return :math:`|U_i \cap U_j| / (\sqrt{|U_i| |U_j|} + h)` for the columns i and j of a 0/1 matrix with row sets U.

    Parameters
    ----------
    matrix
        (n, m) CSR, binary.
    neighbours
        Keep this many of the largest entries of each row, see `largest_of_rows`. None keeps all.
    shrinkage
        h, at least 0: what is seen in few rows counts for less.

    Returns
    -------
    sparse.csr_array
        (m, m) float32, int32 indices sorted within rows, without diagonal. Entries lie above 0 and reach 1 where two
        columns are equal and h is 0; without pruning it is symmetric.

    Raises
    ------
    InputError
        If `neighbours` is below 1 or `shrinkage` below 0.
    """
    if not shrinkage >= 0:
        raise InputError("shrinkage", expected="at least 0", found=str(shrinkage))
    n_columns = shape_of(matrix)[1]
    transposed = matrix.T.tocsr()
    sizes = np.diff(transposed.indptr).astype(np.float64)
    row_work = np.diff(matrix.indptr)[transposed.indices]
    work = np.concatenate(([0], np.cumsum(row_work, dtype=np.int64)))[transposed.indptr]
    # Counts are whole numbers, exact in float32.
    counted = matrix.astype(np.float32)
    blocks: list[sparse.csr_array] = [sparse.csr_array((0, n_columns), dtype=np.float32)]
    for first, last in row_blocks(work, _BLOCK_PRODUCTS):
        block = sparse.csr_array(transposed[first:last].astype(np.float32) @ counted)
        block.sort_indices()
        rows = np.repeat(np.arange(first, last), np.diff(block.indptr))
        block.data = (block.data / (np.sqrt(sizes[rows] * sizes[block.indices]) + shrinkage)).astype(np.float32)
        block = only_entries(block, block.indices != rows)
        blocks.append(block if neighbours is None else largest_of_rows(block, neighbours))
    return sparse.csr_array(sparse.vstack(blocks, format="csr"))


def largest_of_rows(matrix: sparse.csr_array, k: int) -> sparse.csr_array:
    """
    Return the k largest stored entries of each row; of equal ones the first columns stay.

    Raises
    ------
    InputError
        If k is below 1.
    """
    if k < 1:
        raise InputError("neighbours", expected="at least 1", found=str(k))
    lengths = np.diff(matrix.indptr)
    rows = np.repeat(np.arange(lengths.size), lengths)
    long = np.flatnonzero(lengths[rows] > k)
    order = long[np.lexsort((matrix.indices[long], np.negative(matrix.data[long]), rows[long]))]
    starts = np.concatenate(([0], np.cumsum(np.where(lengths > k, lengths, 0))))[:-1]
    place = np.arange(order.size) - starts[rows[order]]
    kept = np.ones(matrix.nnz, dtype=bool)
    kept[order[place >= k]] = False
    return only_entries(matrix, kept)
