"""Transport between feature columns against the broadcast cost and POT's solver."""

import numpy as np
import ot
import pytest
import torch

from recmodels.models.layers import dimension_transport
from recmodels.models.layers.dimension_transport import COST_SCALE, EPSILON, TOLERANCE, column_cost, transport_plan
from recmodels.transport.sinkhorn import NotConverged


def views(n: int, d: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(n, d, generator=generator) for _ in range(2))
    return x, y


def test_the_cost_equals_its_broadcast_form() -> None:
    x, y = views(200, 64)
    broadcast = (x[:, :, None] - y[:, None, :]).square().mean(dim=0)
    torch.testing.assert_close(column_cost(x, y) / COST_SCALE, broadcast, atol=1e-5, rtol=0)


@pytest.mark.parametrize("scale", [0.02, 0.3, 1.0, 60.0])
def test_the_log_plan_is_solved_at_every_scale_of_the_features(scale: float) -> None:
    x, y = views(500, 64)
    plan = transport_plan(column_cost(scale * x, scale * y).double(), "log").numpy()
    np.testing.assert_allclose(plan.sum(axis=0) * 64, 1, atol=2 * TOLERANCE)
    np.testing.assert_allclose(plan.sum(axis=1) * 64, 1, atol=1e-9)


def test_the_log_plan_is_that_of_pot(monkeypatch) -> None:
    monkeypatch.setattr(dimension_transport, "TOLERANCE", 1e-6)
    x, y = views(500, 20)
    cost = column_cost(0.1 * x, 0.1 * y).double()
    plan = transport_plan(cost, "log").numpy()
    uniform = np.full(20, 1 / 20)
    expected = ot.bregman.sinkhorn_log(uniform, uniform, cost.numpy(), EPSILON, numItermax=10_000, stopThr=1e-9)
    np.testing.assert_allclose(plan, expected, atol=1e-7)


def test_a_plan_that_does_not_converge_is_no_secret(monkeypatch) -> None:
    monkeypatch.setattr(dimension_transport, "MAX_ITERATIONS", 3)
    x, y = views(500, 64)
    with pytest.warns(NotConverged, match=r"after 3 iterations.*oat to linear"):
        transport_plan(column_cost(x, y), "barycentric")


def test_a_cost_that_is_not_finite_gives_a_plan_that_is_not() -> None:
    assert transport_plan(torch.full((3, 3), torch.nan), "log").isnan().all()


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
