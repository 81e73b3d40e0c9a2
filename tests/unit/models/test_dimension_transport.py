"""Transport between feature columns against the broadcast cost and POT's solver."""

import numpy as np
import ot
import pytest
import torch

from recmodels.models.dimension_transport import COST_SCALE, EPSILON, ITERATIONS, column_cost, transport_plan


def views(n: int, d: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(n, d, generator=generator) for _ in range(2))
    return x, y


def test_the_cost_equals_its_broadcast_form() -> None:
    x, y = views(200, 64)
    broadcast = (x[:, :, None] - y[:, None, :]).square().mean(dim=0)
    torch.testing.assert_close(column_cost(x, y) / COST_SCALE, broadcast, atol=1e-5, rtol=0)


def test_the_log_plan_is_that_of_pot_and_has_the_marginals() -> None:
    cost = 0.05 * torch.rand(20, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    plan = transport_plan(cost, "log").numpy()
    uniform = np.full(20, 1 / 20)
    expected = ot.bregman.sinkhorn_log(
        uniform, uniform, cost.numpy(), EPSILON, numItermax=ITERATIONS, stopThr=0, warn=False
    )
    np.testing.assert_allclose(plan, expected, atol=1e-12)
    np.testing.assert_allclose(plan.sum(axis=0), uniform, atol=1e-6)
    np.testing.assert_allclose(plan.sum(axis=1), uniform, atol=1e-6)


def test_the_barycentric_plan_has_rows_that_sum_to_one() -> None:
    cost = 0.05 * torch.rand(20, 20, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(transport_plan(cost, "barycentric").sum(dim=1), torch.ones(20), atol=1e-4, rtol=0)


def test_at_the_costs_that_occur_the_released_plan_underflows_and_the_log_plan_does_not() -> None:
    x, y = views(500, 64)
    cost = column_cost(x, y)
    assert transport_plan(cost, "released").sum().item() == pytest.approx(0, abs=1e-6)
    assert transport_plan(cost, "log").sum().item() == pytest.approx(1, abs=1e-6)


def test_where_nothing_underflows_the_released_plan_is_the_log_plan() -> None:
    cost = 0.01 * torch.rand(20, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(transport_plan(cost, "released"), transport_plan(cost, "log"), atol=1e-6, rtol=0)


def test_the_linear_plan_is_empty() -> None:
    assert not transport_plan(torch.ones(3, 3), "linear").any()
