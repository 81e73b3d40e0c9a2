r"""
Entropic optimal transport for a sparse cost, without the dense matrix.

A cost that is zero outside its stored entries has a kernel of rank one plus a sparse part,

.. math:: K = e^{-C/\varepsilon} = 1 1^T + S, \qquad S = e^{-C/\varepsilon} - 1 \text{ on the stored entries},

so that one Sinkhorn update, :math:`f \leftarrow a / (\sum g + S g)`, is a sparse product and a sum: O(nnz + M + N)
instead of O(M N). The plan :math:`P_{ui} = f_u K_{ui} g_i` is never formed.
"""

import warnings
from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal, get_args

import numpy as np

from recmodels.compute.base import Group
from recmodels.compute.local import LocalGroup
from recmodels.errors import InputError
from recmodels.graphs.matrices import shape_of
from recmodels.transport.kernels import scaling_is_safe
from recmodels.transport.parts import PlanRows, Potentials, checked_cost, row_difference
from recmodels.transport.pot_solver import dense_potentials

Solver = Literal["structured", "cuda", "pot"]
Form = Literal["auto", "scaling", "log"]


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


@dataclass(frozen=True, eq=False)
class PlanInParts:
    """
    A plan by the item vectors from which its parts know their rows.

    Attributes
    ----------
    potentials
        The item vectors.
    marginal_error, n_iterations, converged, mass
        As in `SinkhornResult`.
    """

    potentials: Potentials
    marginal_error: float
    n_iterations: int
    converged: bool
    mass: float

    @property
    def form(self) -> str:
        """``scaling`` or ``log``: how it was computed."""
        return self.potentials.form


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
    solver: Solver = "structured",
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
    solver
        ``structured``; ``cuda``, which keeps the matrix of the scaling form on a CUDA device; or ``pot``: the dense
        solver of POT for reference.

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

    See Also
    --------
    recmodels.transport.top_q.top_q : The largest entries of the plan.

    Examples
    --------
    >>> from scipy import sparse
    >>> cost = sparse.csr_array([[-1.0, 0.0], [0.0, -1.0]])
    >>> solved = sinkhorn(cost, np.array([0.5, 0.5]), np.array([0.5, 0.5]))
    >>> plan = np.exp(solved.log_f[:, None] + solved.log_g - cost.toarray())
    >>> plan.round(3).tolist()
    [[0.366, 0.134], [0.134, 0.366]]
    >>> solved.converged
    True
    """
    matrix = checked_cost(cost)
    n_users, n_items = shape_of(matrix)
    a, b = _checked_marginal("a", a, n_users), _checked_marginal("b", b, n_items)
    if solver not in get_args(Solver):
        raise InputError("solver", expected="'structured', 'cuda' or 'pot'", found=repr(solver))
    _check_problem(a, b, epsilon, relaxation, tolerance, max_iterations, form)
    power = power_of(epsilon, relaxation)
    if solver == "pot":
        potentials = dense_potentials(matrix, a, b, epsilon, relaxation, tolerance, max_iterations)
        log_f, log_g, log_kg, n_iterations = potentials
        with np.errstate(divide="ignore"):
            difference, mass = row_difference(log_f, log_kg, power * (np.log(a) - log_kg))
        error = difference / mass
        result = SinkhornResult(log_f, log_g, error, n_iterations, error <= tolerance, mass, "pot")
    else:
        with LocalGroup([PlanRows(matrix, a, epsilon, power, on_cuda=solver == "cuda")]) as group:
            found = _iterate(group, a, b, epsilon, power, tolerance, max_iterations, form)
            (log_f,) = group.call("log_f", found.potentials.form, found.potentials.before)
        result = SinkhornResult(
            log_f,
            found.potentials.log_g,
            found.marginal_error,
            found.n_iterations,
            found.converged,
            found.mass,
            found.form,
        )
    if not result.converged:
        _warn(result, tolerance)
    return result


def sinkhorn_in_parts(
    group: Group,
    a: np.ndarray,
    b: np.ndarray,
    epsilon: float,
    *,
    relaxation: float | None = None,
    tolerance: float = 1e-8,
    max_iterations: int = 1000,
    form: Form = "auto",
) -> PlanInParts:
    """
    Solve a problem whose rows are in parts, each a `recmodels.transport.parts.PlanRows`; see `sinkhorn`.

    An iteration sends item vectors to the parts and adds their answers in the order of the parts. One part gives what
    `sinkhorn` gives, to the bit, several the same to rounding.

    Parameters
    ----------
    group
        The parts, made with this `epsilon` and the `power_of` it and the relaxation.
    a, b
        Marginals of all users and items.
    epsilon, relaxation, tolerance, max_iterations, form
        As for `sinkhorn`.

    Raises
    ------
    InputError
        If a marginal or a setting is not as it has to be.
    """
    a, b = _checked_marginal("a", a, a.size), _checked_marginal("b", b, b.size)
    _check_problem(a, b, epsilon, relaxation, tolerance, max_iterations, form)
    result = _iterate(group, a, b, epsilon, power_of(epsilon, relaxation), tolerance, max_iterations, form)
    if not result.converged:
        _warn(result, tolerance)
    return result


def power_of(epsilon: float, relaxation: float | None) -> float:
    """Return the exponent of an update: 1 for exact marginals, else rho / (rho + epsilon)."""
    return 1.0 if relaxation is None else relaxation / (relaxation + epsilon)


def _iterate(
    group: Group,
    a: np.ndarray,
    b: np.ndarray,
    epsilon: float,
    power: float,
    tolerance: float,
    max_iterations: int,
    form: Form,
) -> PlanInParts:
    if form == "auto":
        lowest, highest = zip(*group.call("cost_range"), strict=True)
        form = "scaling" if scaling_is_safe(min(lowest), max(highest), a, b, epsilon) else "log"
    with np.errstate(divide="ignore"):
        log_b = np.log(b)
    before, n_iterations = np.zeros_like(log_b), 0
    while True:
        log_g = power * (log_b - reduce(np.logaddexp, group.call("columns", form, before)))
        n_iterations += 1
        differences, masses = zip(*group.call("difference", form, before, log_g), strict=True)
        mass = sum(masses)
        error = sum(differences) / mass
        if error <= tolerance or n_iterations == max_iterations:
            return PlanInParts(Potentials(form, before, log_g), error, n_iterations, error <= tolerance, mass)
        before = log_g


def _check_problem(
    a: np.ndarray,
    b: np.ndarray,
    epsilon: float,
    relaxation: float | None,
    tolerance: float,
    max_iterations: int,
    form: Form,
) -> None:
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
    if form not in ("auto", "scaling", "log"):
        raise InputError("form", expected="'auto', 'scaling' or 'log'", found=repr(form))


def _warn(result: SinkhornResult | PlanInParts, tolerance: float) -> None:
    warnings.warn(
        f"Sinkhorn stopped after {result.n_iterations} iterations with a marginal error of "
        f"{result.marginal_error:.1e} of the mass (tolerance {tolerance:.1e}). "
        "Allow more iterations, or raise epsilon or the tolerance.",
        NotConverged,
        stacklevel=3,
    )


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
