"""Transport between the feature columns of two views of the same items (RecGOAT's OAT)."""

from typing import Literal

import torch
from torch import Tensor

EPSILON = 0.01
ITERATIONS = 100
COST_SCALE = 100.0
_RELEASED_FLOOR = 1e-8

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
    Return the entropic transport plan between uniform marginals, (d, d), epsilon 0.01, 100 iterations.

    Parameters
    ----------
    cost
        (d, d).
    kind
        ``log``: Sinkhorn in the log domain, total mass 1. ``barycentric``: that times d, so that the rows sum to 1 and
        a product with the plan is a conditional expectation. ``released``: scaling form with 1e-8 added to the
        denominators, which underflows at the costs that occur. ``linear``: zeros.
    """
    d = cost.shape[0]
    if kind == "linear":
        return torch.zeros_like(cost)
    if kind == "released":
        kernel = torch.exp(-cost / EPSILON)
        left = right = torch.full((d,), 1 / d, dtype=cost.dtype, device=cost.device)
        for _ in range(ITERATIONS):
            left = (1 / d) / (kernel @ right + _RELEASED_FLOOR)
            right = (1 / d) / (kernel.T @ left + _RELEASED_FLOOR)
        return left[:, None] * kernel * right[None, :]
    scaled = -cost.double() / EPSILON
    marginal = -torch.log(torch.tensor(float(d), dtype=torch.float64, device=cost.device))
    rows = columns = torch.zeros(d, dtype=torch.float64, device=cost.device)
    for _ in range(ITERATIONS):
        columns = marginal - torch.logsumexp(scaled + rows[:, None], dim=0)
        # Rows last: they are exact then, also where the columns have not converged, and can be conditional means.
        rows = marginal - torch.logsumexp(scaled + columns, dim=1)
    plan = torch.exp(scaled + rows[:, None] + columns).to(cost.dtype)
    return plan * d if kind == "barycentric" else plan
