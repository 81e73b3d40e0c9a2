"""Transport between the feature columns of two views of the same items (RecGOAT's OAT)."""

import math
import warnings
from typing import Literal

import torch
from torch import Tensor

from recmodels.transport.sinkhorn import NotConverged

EPSILON = 0.01
COST_SCALE = 100.0
TOLERANCE = 1e-2
"""Largest error of a column's mass, as a share of that mass, at which a plan counts as solved."""
MAX_ITERATIONS = 1000
"""Updates at the last epsilon after which the solver stops with a warning."""
_STAGE_ITERATIONS = 30
_CHECK_INTERVAL = 10

Plan = Literal["barycentric", "log", "released", "linear"]


def column_cost(x: Tensor, y: Tensor) -> Tensor:
    r"""
    Return :math:`C_{jk} = 100 \cdot mean_i (x_{ij} - y_{ik})^2`, (d, d), for views x and y, each (n, d).

    The square is multiplied out, so that memory is d * d and not n * d * d.
    """
    n = x.shape[0]
    cross = x.T @ y
    cost = x.square().mean(dim=0)[:, None] + y.square().mean(dim=0)[None, :] - (2 / n) * cross
    return COST_SCALE * cost.clamp_min(0.0)


def transport_plan(cost: Tensor, kind: Plan) -> Tensor:
    """
    Return the entropic transport plan between uniform marginals, (d, d), epsilon 0.01.

    Parameters
    ----------
    cost
        (d, d).
    kind
        ``log``: solved in the log domain, total mass 1. ``barycentric``: that times d, so that the rows sum to 1 and a
        product with the plan is a conditional expectation. ``released``: the program's 100 iterations in the scaling
        form with 1e-8 added to the denominators, which underflow at the costs that occur. ``linear``: zeros.

    Warns
    -----
    NotConverged
        If the columns of ``log`` or ``barycentric`` are off by more than `TOLERANCE` after `MAX_ITERATIONS`; the rows
        are exact in any case.
    """
    d = cost.shape[0]
    if kind == "linear":
        return torch.zeros_like(cost)
    if kind == "released":
        kernel = torch.exp(-cost / EPSILON)
        left = right = cost.new_full((d,), 1 / d)
        for _ in range(100):
            left = 1 / d / (kernel @ right + 1e-8)
            right = 1 / d / (kernel.T @ left + 1e-8)
        return left[:, None] * kernel * right[None, :]
    plan = _solved(cost.double()).to(cost.dtype)
    return plan * d if kind == "barycentric" else plan


def _solved(cost: Tensor) -> Tensor:
    """Return the plan by Sinkhorn in the log domain, epsilon halved from the largest cost on (Schmitzer 2019, 3.2)."""
    d, largest = cost.shape[0], cost.max().item()
    if not math.isfinite(largest):
        return torch.full_like(cost, torch.nan)
    marginal, error = -math.log(d), math.inf
    scaled, rows = cost, torch.zeros(d, dtype=cost.dtype, device=cost.device)
    potential = columns = rows
    # At epsilon 0.01 alone the costs of long feature vectors would take more iterations than anybody waits for.
    for stage in reversed(range(1 + math.ceil(math.log2(max(largest / EPSILON, 1.0))))):
        epsilon = EPSILON * 2**stage
        scaled, potential, error = -cost / epsilon, rows / epsilon, math.inf
        for iteration in range(_STAGE_ITERATIONS if stage else MAX_ITERATIONS):
            sums = torch.logsumexp(scaled + potential[:, None], dim=0)
            if iteration % _CHECK_INTERVAL == 0 and iteration:
                error = (torch.exp(sums + columns) * d - 1).abs().max().item()
                if error <= TOLERANCE:
                    break
            columns = marginal - sums
            # Rows last: they are exact then, also where the columns are not, and can be conditional means.
            potential = marginal - torch.logsumexp(scaled + columns, dim=1)
        rows = potential * epsilon
    if error > TOLERANCE:
        warnings.warn(
            f"transport between {d} feature columns: expected column masses within {TOLERANCE:g} of 1/{d}, found an "
            f"error of {error:.1g} of it after {MAX_ITERATIONS} iterations. Scale the features down, or set oat to "
            "linear.",
            NotConverged,
            stacklevel=3,
        )
    return torch.exp(scaled + potential[:, None] + columns)
