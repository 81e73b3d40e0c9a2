"""The dense solvers of POT as a reference for `recmodels.transport.sinkhorn`: the same plan, for problems that fit."""

import warnings
from typing import Any

import numpy as np
import psutil
from scipy import sparse
from scipy.special import logsumexp

from recmodels.errors import InputError

# Dense arrays of M x N float64 that POT holds at its peak: cost, kernel, plan and temporaries.
_POT_DENSE_ARRAYS = 6


def dense_potentials(
    cost: sparse.csr_array,
    a: np.ndarray,
    b: np.ndarray,
    epsilon: float,
    relaxation: float | None,
    tolerance: float,
    max_iterations: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """
    Return log f, log g, log(K g) and the number of iterations; see `recmodels.transport.sinkhorn.sinkhorn`.

    Raises
    ------
    InputError
        If the dense arrays would not fit in memory.
    """
    needed = _POT_DENSE_ARRAYS * 8 * a.size * b.size
    available = int(psutil.virtual_memory().available)
    if needed > available:
        raise InputError(
            "solver 'pot'",
            expected=f"a problem whose dense arrays fit in {available / 1e9:.1f} GB of free memory",
            found=f"{a.size} x {b.size}, about {needed / 1e9:.1f} GB",
            action="Use the solver 'structured'.",
        )
    import ot

    dense = cost.toarray().astype(np.float64)
    # POT measures absolute errors: a mass of 1 makes its tolerance mean the same as ours.
    total = float(a.sum())
    common: dict[str, Any] = {"numItermax": max_iterations, "stopThr": tolerance, "log": True}
    with warnings.catch_warnings(), np.errstate(divide="ignore"):
        warnings.filterwarnings("ignore", category=UserWarning)
        if relaxation is None:
            # POT updates the second vector first: with the problem turned round its last update is g, as here.
            solved: Any = ot.sinkhorn(b / total, a / total, dense.T, epsilon, method="sinkhorn_log", **common)
            log = solved[1]
            log_f, log_g = log["log_v"] + np.log(total), log["log_u"]
            n_iterations = int(log["niter"]) + 1
        else:
            unbalanced = ot.unbalanced.sinkhorn_unbalanced
            solved = unbalanced(a, b, dense, epsilon, relaxation, reg_type="entropy", **common)
            log = solved[1]
            log_f, log_g = log["logu"], log["logv"]
            n_iterations = len(log["err"])
        log_kg = logsumexp(log_g - dense / epsilon, axis=1)
    return log_f, log_g, np.asarray(log_kg), n_iterations
