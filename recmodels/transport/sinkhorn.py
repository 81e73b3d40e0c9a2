r"""
Entropic optimal transport for a sparse cost, without the dense matrix.

A cost that is zero outside its stored entries has a kernel of rank one plus a sparse part,

.. math:: K = e^{-C/\varepsilon} = 1 1^T + S, \qquad S = e^{-C/\varepsilon} - 1 \text{ on the stored entries},

so that one Sinkhorn update, :math:`f \leftarrow a / (\sum g + S g)`, is a sparse product and a sum: O(nnz + M + N)
instead of O(M N). The plan :math:`P_{ui} = f_u K_{ui} g_i` is never formed.
"""

import warnings
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import psutil
from scipy import sparse
from scipy.special import logsumexp

from recmodels.errors import InputError
from recmodels.graphs.matrices import row_blocks, shape_of

Backend = Literal["structured", "pot"]
Form = Literal["auto", "scaling", "log"]

# In the scaling form a row sum is sum(g) plus negative terms; where they cancel, e^(max C / eps) digits are lost.
_LARGEST_SCALING_COST = 12.0
# The scaling vectors spread by at most e^(range of C / eps) times the range of the marginals; float64 ends at e^709.
_LARGEST_SCALING_RANGE = 300.0
# Entries handled at once in the log form, so that its temporary arrays stay near 100 MB.
_BLOCK_ENTRIES = 1 << 22
# Dense arrays of M x N float64 that POT holds at its peak: cost, kernel, plan and temporaries.
_POT_DENSE_ARRAYS = 6


class NotConverged(UserWarning):
    """A solver stopped at its iteration limit; the result says how far its marginals are off."""


@dataclass(frozen=True, eq=False)
class SinkhornResult:
    r"""
    The plan :math:`P_{ui} = e^{\log f_u + \log g_i - C_{ui}/\varepsilon}`, kept as its two potentials.

    Attributes
    ----------
    log_f, log_g
        Logarithms of the scaling vectors, float64, shapes (n_users,) and (n_items,); -inf where a marginal is 0.
    marginal_error
        Sum of absolute differences between the row sums of the plan and what the fixed point asks for, as a share of
        the mass. The column sums are exact, because g is updated last.
    n_iterations
        Updates of both vectors that were made.
    converged
        Whether `marginal_error` is within the tolerance.
    mass
        Sum of the plan.
    form
        ``scaling``, ``log`` or ``pot``: how it was computed.
    """

    log_f: np.ndarray
    log_g: np.ndarray
    marginal_error: float
    n_iterations: int
    converged: bool
    mass: float
    form: str


def sinkhorn(
    cost: Any,
    a: np.ndarray,
    b: np.ndarray,
    epsilon: float = 1.0,
    *,
    relaxation: float | None = None,
    tolerance: float = 1e-8,
    max_iterations: int = 1000,
    form: Form = "auto",
    backend: Backend = "structured",
) -> SinkhornResult:
    r"""
    Solve the entropic transport problem for a sparse cost.

    .. math::
        \min_P \; \langle P, C \rangle + \varepsilon \sum_{ui} P_{ui} (\log P_{ui} - 1)
        \quad \text{s.t.} \quad P 1 = a, \; P^T 1 = b

    or, with a relaxation :math:`\rho`, the two constraints replaced by the penalties
    :math:`\rho\, KL(P 1 | a) + \rho\, KL(P^T 1 | b)` (Chizat et al., 2018), whose updates are
    :math:`f \leftarrow (a / K g)^{\rho / (\rho + \varepsilon)}`.

    Parameters
    ----------
    cost
        Sparse matrix, shape (n_users, n_items); what is not stored costs 0. Any finite values.
    a, b
        Row and column marginals, shapes (n_users,) and (n_items,), finite, at least 0, of equal sums unless relaxed.
    epsilon
        Entropic weight, above 0, in the unit of the cost. Stable down to 1e-3 and below.
    relaxation
        None for exact marginals, else :math:`\rho` above 0.
    tolerance
        Largest marginal error, as a share of the mass.
    max_iterations
        Updates of both vectors after which to stop with a `NotConverged` warning.
    form
        ``scaling`` multiplies, ``log`` adds logarithms and is safe for small `epsilon`; ``auto`` takes the first
        where no digit is lost.
    backend
        ``structured``, or ``pot``: the dense solver of POT for reference.

    Returns
    -------
    SinkhornResult

    Raises
    ------
    InputError
        If a shape, a marginal, `epsilon`, `relaxation`, `tolerance` or `max_iterations` is not as above, the cost holds
        NaN or infinity, or (``pot``) the dense arrays would not fit in memory.

    Notes
    -----
    Sources: M. Cuturi, "Sinkhorn distances" (2013); L. Chizat et al., "Scaling algorithms for unbalanced optimal
    transport problems" (2018).
    """
    matrix = _checked_cost(cost)
    n_users, n_items = shape_of(matrix)
    a = _checked_marginal("a", a, n_users)
    b = _checked_marginal("b", b, n_items)
    for name, value in (("epsilon", epsilon), ("tolerance", tolerance), ("relaxation", relaxation)):
        if value is not None and not (np.isfinite(value) and value > 0):
            raise InputError(name, expected="a finite number above 0", found=str(value))
    if max_iterations < 1:
        raise InputError("max_iterations", expected="at least 1", found=str(max_iterations))
    if relaxation is None and abs(a.sum() - b.sum()) > 1e-9 * a.sum():
        raise InputError(
            "marginals",
            expected="equal sums",
            found=f"{a.sum():g} and {b.sum():g}",
            action="Scale one of them, or set a relaxation.",
        )
    if backend == "pot":
        return _solve_with_pot(matrix, a, b, epsilon, relaxation, tolerance, max_iterations)
    if backend != "structured":
        raise InputError("backend", expected="'structured' or 'pot'", found=repr(backend))
    if form not in ("auto", "scaling", "log"):
        raise InputError("form", expected="'auto', 'scaling' or 'log'", found=repr(form))
    if form == "auto":
        form = "scaling" if _scaling_is_safe(matrix, a, b, epsilon) else "log"
    kernel = _ScalingKernel(matrix, epsilon) if form == "scaling" else _LogKernel(matrix, epsilon)
    power = 1.0 if relaxation is None else relaxation / (relaxation + epsilon)
    with np.errstate(divide="ignore"):
        log_a, log_b = np.log(a), np.log(b)
    return _iterate(kernel, form, log_a, log_b, power, tolerance, max_iterations)


class _Kernel(Protocol):
    def rows(self, log_g: np.ndarray) -> np.ndarray:
        """Return log(K g)."""
        ...

    def columns(self, log_f: np.ndarray) -> np.ndarray:
        """Return log(K^T f)."""
        ...


def _iterate(
    kernel: _Kernel,
    form: str,
    log_a: np.ndarray,
    log_b: np.ndarray,
    power: float,
    tolerance: float,
    max_iterations: int,
) -> SinkhornResult:
    log_g = np.zeros_like(log_b)
    log_kg = kernel.rows(log_g)
    error, mass, n_iterations = np.inf, np.nan, 0
    log_f = power * (log_a - log_kg)
    while n_iterations < max_iterations:
        log_g = power * (log_b - kernel.columns(log_f))
        n_iterations += 1
        log_kg = kernel.rows(log_g)
        wanted = power * (log_a - log_kg)
        row_sums = np.exp(log_f + log_kg)
        mass = float(row_sums.sum())
        error = float(np.abs(np.exp(wanted + log_kg) - row_sums).sum()) / mass
        if error <= tolerance or n_iterations == max_iterations:
            break
        log_f = wanted
    return _reported(SinkhornResult(log_f, log_g, error, n_iterations, error <= tolerance, mass, form), tolerance)


def _reported(result: SinkhornResult, tolerance: float) -> SinkhornResult:
    if not result.converged:
        warnings.warn(
            f"Sinkhorn stopped after {result.n_iterations} iterations with a marginal error of "
            f"{result.marginal_error:.1e} of the mass (tolerance {tolerance:.1e}). "
            "Allow more iterations, or raise epsilon or the tolerance.",
            NotConverged,
            stacklevel=4,
        )
    return result


class _ScalingKernel:
    def __init__(self, cost: sparse.csr_array, epsilon: float) -> None:
        weights = cost.data.astype(np.float64)
        weights *= -1 / epsilon
        np.expm1(weights, out=weights)
        self._s = sparse.csr_array((weights, cost.indices, cost.indptr), shape=cost.shape)
        # A view on the same arrays: the product with it runs over the rows and scatters.
        self._s_transposed = self._s.T

    def rows(self, log_g: np.ndarray) -> np.ndarray:
        return self._product(self._s, log_g)

    def columns(self, log_f: np.ndarray) -> np.ndarray:
        return self._product(self._s_transposed, log_f)

    @staticmethod
    def _product(s: Any, logs: np.ndarray) -> np.ndarray:
        # Only the size of the largest entry is taken out: the spread of the others is bounded where this form is used.
        shift = logs.max()
        scaled = np.exp(logs - shift)
        return np.log(scaled.sum() + s @ scaled) + shift


class _LogKernel:
    def __init__(self, cost: sparse.csr_array, epsilon: float) -> None:
        self._rows = _LogProduct(cost, epsilon)
        self._columns = _LogProduct(sparse.csr_array(cost.T), epsilon)

    def rows(self, log_g: np.ndarray) -> np.ndarray:
        return self._rows(log_g)

    def columns(self, log_f: np.ndarray) -> np.ndarray:
        return self._columns(log_f)


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
        self._left_out = sparse.csr_array(
            (
                np.ones(int(dear.sum())),
                cost.indices[dear],
                np.concatenate(([0], np.cumsum(dear)))[cost.indptr].astype(cost.indptr.dtype),
            ),
            shape=cost.shape,
        )

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


def _scaling_is_safe(cost: sparse.csr_array, a: np.ndarray, b: np.ndarray, epsilon: float) -> bool:
    highest = max(float(cost.data.max(initial=0.0)), 0.0)
    lowest = min(float(cost.data.min(initial=0.0)), 0.0)
    spread = sum(float(np.log(m.max() / m[m > 0].min())) for m in (a, b))
    return (
        highest / epsilon <= _LARGEST_SCALING_COST
        and 2 * (highest - lowest) / epsilon + spread <= _LARGEST_SCALING_RANGE
    )


def _checked_cost(cost: Any) -> sparse.csr_array:
    if not sparse.issparse(cost):
        raise InputError("cost", expected="a scipy sparse matrix", found=type(cost).__name__)
    matrix = sparse.csr_array(cost)
    if not matrix.has_canonical_format:
        matrix = matrix.copy()
        matrix.sum_duplicates()
    if min(shape_of(matrix)) < 1:
        raise InputError("cost", expected="at least one user and one item", found=f"shape {shape_of(matrix)}")
    if not np.isfinite(matrix.data).all():
        n_wrong = int((~np.isfinite(matrix.data)).sum())
        raise InputError("cost", expected="finite values", found=f"{n_wrong} entries of NaN or infinity")
    return matrix


def _checked_marginal(name: str, values: np.ndarray, n: int) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    if values.shape != (n,):
        raise InputError(f"marginal {name}", expected=f"shape ({n},)", found=f"shape {values.shape}")
    if not np.isfinite(values).all() or (values < 0).any():
        raise InputError(
            f"marginal {name}", expected="finite numbers of at least 0", found="NaN, infinite or negative ones"
        )
    if not values.sum() > 0:
        raise InputError(f"marginal {name}", expected="a positive sum", found="0")
    return values


def _solve_with_pot(
    cost: sparse.csr_array,
    a: np.ndarray,
    b: np.ndarray,
    epsilon: float,
    relaxation: float | None,
    tolerance: float,
    max_iterations: int,
) -> SinkhornResult:
    needed = _POT_DENSE_ARRAYS * 8 * a.size * b.size
    available = int(psutil.virtual_memory().available)
    if needed > available:
        raise InputError(
            "backend 'pot'",
            expected=f"a problem whose dense arrays fit in {available / 1e9:.1f} GB of free memory",
            found=f"{a.size} x {b.size}, about {needed / 1e9:.1f} GB",
            action="Use the backend 'structured'.",
        )
    import ot

    dense = cost.toarray().astype(np.float64)
    # POT measures absolute errors: a mass of 1 makes its tolerance mean the same as ours.
    total = float(a.sum())
    with warnings.catch_warnings(), np.errstate(divide="ignore"):
        warnings.filterwarnings("ignore", category=UserWarning)
        if relaxation is None:
            power = 1.0
            # POT updates the second vector first: with the problem turned round its last update is g, as here.
            solved: Any = ot.sinkhorn(
                b / total,
                a / total,
                dense.T,
                epsilon,
                method="sinkhorn_log",
                numItermax=max_iterations,
                stopThr=tolerance,
                log=True,
            )
            log = solved[1]
            log_f, log_g = log["log_v"] + np.log(total), log["log_u"]
            n_iterations = int(log["niter"]) + 1
        else:
            power = relaxation / (relaxation + epsilon)
            solved = ot.unbalanced.sinkhorn_unbalanced(
                a,
                b,
                dense,
                epsilon,
                relaxation,
                reg_type="entropy",
                numItermax=max_iterations,
                stopThr=tolerance,
                log=True,
            )
            log = solved[1]
            log_f, log_g = log["logu"], log["logv"]
            n_iterations = len(log["err"])
        log_kg = logsumexp(log_g - dense / epsilon, axis=1)
        log_a = np.log(a)
    row_sums = np.exp(log_f + log_kg)
    mass = float(row_sums.sum())
    error = float(np.abs(np.exp(power * (log_a - log_kg) + log_kg) - row_sums).sum()) / mass
    return _reported(SinkhornResult(log_f, log_g, error, n_iterations, error <= tolerance, mass, "pot"), tolerance)
