"""
Sparse adjacency matrices in torch and their normalisation; which graphs there are is said elsewhere.

`recmodels.graphs.neighbour_graphs` has those of items or users, `recmodels.graphs.bipartite` the user-item graph. Every
matrix is a torch sparse CSR tensor with int32 indices and knows its own transpose, so that a backward pass never has to
build one.
"""

import warnings
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import torch
from scipy import sparse

from recmodels.errors import InputError
from recmodels.graphs.matrices import shape_of

Normalisation = Literal["symmetric", "row", "none"]
"""By the roots of the degrees of both ends, by the degree of the row, or not at all."""

INT32_MAX = np.iinfo(np.int32).max
"""The largest number of entries that the indices can count."""


@dataclass(frozen=True, eq=False)
class Adjacency:
    """A sparse weighted matrix and its transpose, ready for `recmodels.graphs.propagation.propagate`."""

    matrix: torch.Tensor
    """Sparse CSR tensor, shape (n_rows, n_columns), int32 indices sorted within rows."""
    transpose: torch.Tensor
    """The transpose in the same form. For a symmetric matrix it is `matrix` itself."""

    @classmethod
    def from_scipy(cls, matrix: Any, *, symmetric: bool = False, dtype: torch.dtype = torch.float32) -> Self:
        """
        Convert a scipy sparse matrix.

        Parameters
        ----------
        matrix
            Any scipy sparse matrix or array; explicit zeros are kept, duplicates are summed.
        symmetric
            The caller's promise that ``matrix == matrix.T``; no transpose is stored then.
        dtype
            Type of the values.
        """
        rows = _canonical(matrix)
        forward = _csr_from_scipy(rows, dtype)
        return cls(forward, forward if symmetric else _csr_from_scipy(_canonical(rows.T), dtype))

    @property
    def symmetric(self) -> bool:
        """Whether one matrix serves both directions."""
        return self.matrix is self.transpose

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.matrix.shape[0], self.matrix.shape[1]

    @property
    def n_edges(self) -> int:
        """Number of stored entries."""
        return self.matrix.values().numel()

    @property
    def transposed(self) -> "Adjacency":
        """The transpose as an adjacency; of a symmetric matrix, this one."""
        return self if self.symmetric else Adjacency(self.transpose, self.matrix)

    def to(self, target: torch.device | str | torch.dtype) -> "Adjacency":
        """Return the same matrix on another device or with values of another type."""
        forward = self.matrix.to(target)
        return Adjacency(forward, forward if self.symmetric else self.transpose.to(target))

    def edges(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the row and the column of every stored entry, two int64 tensors of length `n_edges`, by row."""
        counts = self.matrix.crow_indices().diff().long()
        everything = torch.arange(self.shape[0], device=counts.device)
        # Told how many entries there are, a device need not be waited for.
        rows = torch.repeat_interleave(everything, counts, output_size=self.n_edges)
        return rows, self.matrix.col_indices().long()

    def to_scipy(self) -> sparse.csr_array:
        """Return the matrix as a scipy CSR array on the CPU."""
        matrix = self.matrix.cpu()
        return sparse.csr_array(
            (matrix.values().numpy(), matrix.col_indices().numpy(), matrix.crow_indices().numpy()), shape=self.shape
        )


def csr_tensor(
    crow_indices: torch.Tensor, col_indices: torch.Tensor, values: torch.Tensor, shape: tuple[int, int]
) -> torch.Tensor:
    """Build a sparse CSR tensor with int32 indices from its three arrays, which are trusted."""
    with warnings.catch_warnings():
        # torch announces once per process that CSR is "in beta state" and, 2.11 at least, that its invariants are not
        # checked, which is said below; the caller can do nothing about it.
        warnings.filterwarnings("ignore", message="Sparse (CSR tensor support|invariant checks)", category=UserWarning)
        return torch.sparse_csr_tensor(
            crow_indices.to(torch.int32), col_indices.to(torch.int32), values, size=shape, check_invariants=False
        )


def _canonical(matrix: Any) -> sparse.csr_array:
    rows = sparse.csr_array(matrix)
    if max(rows.nnz, *shape_of(rows)) > INT32_MAX:
        raise InputError("sparse matrix", expected=f"at most {INT32_MAX} entries (int32 indices)", found=str(rows.nnz))
    rows.sum_duplicates()
    return rows


def _csr_from_scipy(rows: sparse.csr_array, dtype: torch.dtype) -> torch.Tensor:
    return csr_tensor(
        torch.from_numpy(rows.indptr.astype(np.int32)),
        torch.from_numpy(rows.indices.astype(np.int32)),
        torch.from_numpy(np.ascontiguousarray(rows.data)).to(dtype),
        shape_of(rows),
    )


def scaled_by_row_sums(matrix: sparse.csr_array) -> sparse.csr_array:
    r"""Return the square :math:`D^{-1/2} S D^{-1/2}`, float32, with D the sums of rows; what has no sum gets 0."""
    sums = np.asarray(matrix.sum(axis=1), dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = np.where(sums > 0, 1 / np.sqrt(sums), 0.0)
    rows = np.repeat(np.arange(matrix.indptr.size - 1), np.diff(matrix.indptr))
    values = matrix.data * scale[rows] * scale[matrix.indices]
    return sparse.csr_array((values.astype(np.float32), matrix.indices, matrix.indptr), shape=matrix.shape)


def scaled_by_degrees(
    matrix: sparse.csr_array, row_degrees: np.ndarray, column_degrees: np.ndarray, how: Normalisation, epsilon: float
) -> tuple[sparse.csr_array, bool]:
    """Return a matrix normalised by the given degrees plus epsilon, and whether that is symmetric."""
    n_rows, n_columns = shape_of(matrix)
    square = n_rows == n_columns
    if how == "none":
        return matrix, square
    if how not in ("symmetric", "row"):
        raise InputError("normalisation", expected="'symmetric', 'row' or 'none'", found=repr(how))
    power = -0.5 if how == "symmetric" else -1.0
    left = np.where(row_degrees > 0, (np.maximum(row_degrees, 1) + epsilon) ** power, 0.0)
    rows = np.repeat(np.arange(matrix.indptr.size - 1), np.diff(matrix.indptr))
    values = matrix.data * left[rows]
    if how == "symmetric":
        right = np.where(column_degrees > 0, (np.maximum(column_degrees, 1) + epsilon) ** power, 0.0)
        values = values * right[matrix.indices]
    scaled = sparse.csr_array((values, matrix.indices, matrix.indptr), shape=matrix.shape)
    return scaled, how == "symmetric" and square
