r"""
Products of vectors with the kernel :math:`K = e^{-C/\varepsilon}` of a sparse cost, by logarithms; no iteration here.

A cost that is zero outside its stored entries has a kernel of rank one plus a sparse part,

.. math:: K = 1 1^T + S, \qquad S = e^{-C/\varepsilon} - 1 \text{ on the stored entries}.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy import sparse

from recmodels.graphs.adjacency import Adjacency
from recmodels.graphs.matrices import only_entries, row_blocks

# In the scaling form a row sum is sum(g) plus negative terms; where they cancel, e^(max C / eps) digits are lost.
_LARGEST_SCALING_COST = 12.0
# The scaling vectors spread by at most e^(range of C / eps) times the range of the marginals; float64 ends at e^709.
_LARGEST_SCALING_RANGE = 300.0
# Entries handled at once in the log form, so that its temporary arrays stay near 100 MB.
_BLOCK_ENTRIES = 1 << 22


@dataclass(frozen=True)
class Kernel:
    """The products that a Sinkhorn iteration needs."""

    rows: Callable[[np.ndarray], np.ndarray]
    """log(K g) of log g."""
    columns: Callable[[np.ndarray], np.ndarray]
    """log(K^T f) of log f."""


def scaling_kernel(cost: sparse.csr_array, epsilon: float, device: str = "cpu") -> Kernel:
    """
    Return products by multiplication, for a cost that `scaling_is_safe` finds small enough.

    On another device than the CPU matrix and transpose are stored there and vectors go to and fro; sums run in another
    order, so that results agree to rounding, not to the bit.
    """
    weights = cost.data.astype(np.float64)
    weights *= -1 / epsilon
    np.expm1(weights, out=weights)
    s = sparse.csr_array((weights, cost.indices, cost.indptr), shape=cost.shape)
    if device != "cpu":
        stored = Adjacency.from_scipy(s, dtype=torch.float64).to(device)
        return Kernel(*(partial(_scaling_product, _OnDevice(matrix)) for matrix in (stored.matrix, stored.transpose)))
    # The transpose is a view on the same arrays: the product with it runs over the rows and scatters.
    return Kernel(partial(_scaling_product, s), partial(_scaling_product, s.T))


def log_kernel(cost: sparse.csr_array, epsilon: float) -> Kernel:
    """Return products by sums of logarithms, for any cost."""
    return Kernel(_LogProduct(cost, epsilon), _LogProduct(sparse.csr_array(cost.T), epsilon))


def _scaling_product(s: Any, logs: np.ndarray) -> np.ndarray:
    # Only the size of the largest entry is taken out: the spread of the others is bounded where this form is used.
    shift = logs.max()
    scaled = np.exp(logs - shift)
    return np.log(scaled.sum() + s @ scaled) + shift


class _OnDevice:
    """Products of a sparse tensor with vectors of the CPU."""

    def __init__(self, matrix: torch.Tensor) -> None:
        self._matrix = matrix

    def __matmul__(self, vector: np.ndarray) -> np.ndarray:
        return (self._matrix @ torch.from_numpy(vector).to(self._matrix.device)).cpu().numpy()


class _LogProduct:
    """log(K x) from log x, for the rows of one sparse cost, with positive terms only."""

    # With C < 0 the sparse part e^(-C/eps) - 1 is positive and is added to the rank-one sum. With C > 0 it would be
    # subtracted; such an entry is left out of the rank-one sum instead and added with its own weight e^(-C/eps).

    def __init__(self, cost: sparse.csr_array, epsilon: float) -> None:
        self._indptr = cost.indptr
        self._indices = cost.indices
        exponent = cost.data.astype(np.float64) * (-1 / epsilon)
        with np.errstate(divide="ignore"):
            self._log_weights = np.where(exponent < 0, exponent, exponent + np.log(-np.expm1(-np.abs(exponent))))
        dear = exponent < 0
        ones = sparse.csr_array((np.ones(cost.nnz), cost.indices, cost.indptr), shape=cost.shape)
        self._left_out = only_entries(ones, dear)

    def __call__(self, log_x: np.ndarray) -> np.ndarray:
        total = self._log_rest(log_x)
        for first, last in row_blocks(self._indptr, _BLOCK_ENTRIES):
            start, stop = self._indptr[first], self._indptr[last]
            terms = log_x[self._indices[start:stop]]
            terms += self._log_weights[start:stop]
            total[first:last] = np.logaddexp(
                total[first:last], _segment_log_sum(terms, self._indptr[first : last + 1] - start)
            )
        return total

    def _log_rest(self, log_x: np.ndarray) -> np.ndarray:
        """Log of the sum over the columns that are not left out of each row."""
        shift = log_x.max()
        x = np.exp(log_x - shift)
        if not self._left_out.nnz:
            return np.full(self._indptr.size - 1, np.log(x.sum()) + shift)
        whole = x.sum()
        rest = whole - self._left_out @ x
        # Below a thousandth of the sum the difference has lost digits that a second, slower way keeps.
        cancelled = rest < 1e-3 * whole
        with np.errstate(divide="ignore", invalid="ignore"):
            log_rest = np.log(rest) + shift
        if cancelled.any():
            log_rest[cancelled] = _log_complement(self._left_out, log_x, np.flatnonzero(cancelled))
        return log_rest


def _log_complement(left_out: sparse.csr_array, log_x: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """
    Return the log of the sum over the columns that a row does not hold, without cancellation.

    With columns sorted by falling x, take the first one, k, that the row does not hold. The suffix sum from k on
    contains x_k, and the entries of the row behind k are at most x_k each, so that subtracting them loses at most a
    factor of (1 + entries of the row) in precision, whatever the range of x.
    """
    order = np.argsort(-log_x, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(order.size)
    suffix = np.append(np.logaddexp.accumulate(log_x[order][::-1])[::-1], -np.inf)
    chosen = sparse.csr_array(left_out[rows])
    counts = np.diff(chosen.indptr)
    owner = np.repeat(np.arange(rows.size), counts)
    places = place[chosen.indices]
    by_place = np.lexsort((places, owner))
    places = places[by_place]
    leading = places == np.arange(places.size) - np.repeat(chosen.indptr[:-1], counts)
    first_free = np.bincount(owner, weights=leading, minlength=rows.size).astype(np.int64)
    behind = np.where(leading, -np.inf, log_x[order[places]])
    whole = suffix[first_free]
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.exp(_segment_log_sum(behind, chosen.indptr) - whole)
        return np.where(np.isfinite(whole), whole + np.log1p(-np.minimum(share, 1.0)), -np.inf)


def _segment_log_sum(terms: np.ndarray, indptr: np.ndarray) -> np.ndarray:
    """Log of the sum of exponentials within each segment; -inf for an empty one. `terms` is overwritten."""
    result = np.full(indptr.size - 1, -np.inf)
    counts = np.diff(indptr)
    filled = np.flatnonzero(counts)
    if filled.size:
        starts = indptr[filled]
        largest = np.maximum.reduceat(terms, starts)
        # A segment of nothing but -inf would become NaN below.
        shift = np.where(np.isfinite(largest), largest, 0.0)
        terms -= np.repeat(shift, counts[filled])
        np.exp(terms, out=terms)
        with np.errstate(divide="ignore"):
            result[filled] = np.log(np.add.reduceat(terms, starts)) + shift
    return result


def scaling_is_safe(lowest: float, highest: float, a: np.ndarray, b: np.ndarray, epsilon: float) -> bool:
    """Tell whether multiplying loses no digit and leaves no range, whatever the iteration, for costs in that range."""
    highest, lowest = max(highest, 0.0), min(lowest, 0.0)
    spread = sum(float(np.log(m.max() / m[m > 0].min())) for m in (a, b))
    return (
        highest / epsilon <= _LARGEST_SCALING_COST
        and 2 * (highest - lowest) / epsilon + spread <= _LARGEST_SCALING_RANGE
    )
