"""The structured solver against POT's dense ones, and its answers to bad input."""

import warnings

import numpy as np
import ot
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import sparse

from recmodels.errors import InputError
from recmodels.transport import kernels as module
from recmodels.transport.sinkhorn import NotConverged, SinkhornResult, sinkhorn


def plan_of(result: SinkhornResult, cost: np.ndarray, epsilon: float) -> np.ndarray:
    return np.exp(result.log_f[:, None] + result.log_g - cost / epsilon)


def pot_after(
    cost: np.ndarray, a: np.ndarray, b: np.ndarray, epsilon: float, n_iterations: int, error: float = 0.0
) -> np.ndarray:
    """POT's log-domain plan after a number of iterations; turned round, because it updates the columns first."""
    with warnings.catch_warnings(), np.errstate(divide="ignore"):
        warnings.simplefilter("ignore")
        plan = ot.sinkhorn(b, a, cost.T, epsilon, method="sinkhorn_log", numItermax=n_iterations, stopThr=error)
    return plan.T


@st.composite
def problems(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cost and marginals; three-valued as in the paper, or graded; some dense rows; masses of equal sum."""
    n_users, n_items = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    share = draw(st.sampled_from([0.2, 0.6, 1.0]))
    if draw(st.booleans()):
        values = rng.choice([-1.0, 1.0], (n_users, n_items))
    else:
        values = rng.uniform(-3, 2, (n_users, n_items))
    cost = np.where(rng.random((n_users, n_items)) < share, values, 0.0)
    a, b = rng.uniform(0.1, 2, n_users), rng.uniform(0.1, 2, n_items)
    return cost, a / a.sum(), b / b.sum()


@settings(max_examples=150, deadline=None)
@given(problems(), st.floats(-3, 1), st.sampled_from([1, 7, 60]))
def test_every_iterate_equals_that_of_pot_from_small_to_large_epsilon(
    problem: tuple[np.ndarray, np.ndarray, np.ndarray], exponent: float, n_iterations: int
) -> None:
    cost, a, b = problem
    epsilon = 10.0**exponent
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotConverged)
        result = sinkhorn(sparse.csr_array(cost), a, b, epsilon, tolerance=1e-300, max_iterations=n_iterations)
    expected = pot_after(cost, a, b, epsilon, result.n_iterations)
    assert np.isfinite(result.log_f).all()
    assert np.isfinite(result.log_g).all()
    assert_allclose(plan_of(result, cost, epsilon), expected, rtol=0, atol=1e-6 * expected.max())


@settings(max_examples=40, deadline=None)
@given(problems(), st.floats(-0.7, 1))
def test_scaling_and_log_forms_agree_with_the_converged_plan_of_pot(
    problem: tuple[np.ndarray, np.ndarray, np.ndarray], exponent: float
) -> None:
    cost, a, b = problem
    epsilon = 10.0**exponent
    expected = pot_after(cost, a, b, epsilon, 3000, error=1e-12)
    for form in ("scaling", "log"):
        result = sinkhorn(sparse.csr_array(cost), a, b, epsilon, tolerance=1e-9, max_iterations=3000, form=form)
        plan = plan_of(result, cost, epsilon)
        assert result.converged
        assert result.form == form
        assert_allclose(plan, expected, rtol=0, atol=1e-6 * expected.max())
        assert np.abs(plan.sum(axis=1) - a).sum() <= 1.01e-9
        assert_allclose(plan.sum(axis=0), b, rtol=1e-9)


@settings(max_examples=60, deadline=None)
@given(problems(), st.floats(-1, 1), st.floats(0.05, 20), st.floats(0.2, 5))
def test_relaxed_marginals_agree_with_the_unbalanced_solver_of_pot(
    problem: tuple[np.ndarray, np.ndarray, np.ndarray], exponent: float, relaxation: float, excess: float
) -> None:
    cost, a, b = problem
    epsilon = 10.0**exponent
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = ot.unbalanced.sinkhorn_unbalanced(
            a * excess, b, cost, epsilon, relaxation, reg_type="entropy", numItermax=20000, stopThr=1e-13
        )
    for form in ("scaling", "log"):
        result = sinkhorn(
            sparse.csr_array(cost),
            a * excess,
            b,
            epsilon,
            relaxation=relaxation,
            tolerance=1e-12,
            max_iterations=20000,
            form=form,
        )
        assert_allclose(plan_of(result, cost, epsilon), expected, rtol=0, atol=1e-6 * expected.max())


@pytest.mark.parametrize("epsilon", [1e-3, 1e-2, 1.0])
def test_users_who_own_almost_all_items_lose_no_digit(epsilon: float) -> None:
    # Their row is a difference of nearly equal sums in the scaling form; the free item gets mass 1e-300 of the others.
    cost = np.ones((4, 6))
    cost[0, 2] = cost[1, 4] = 0
    cost[2, 0] = -1
    a, b = np.full(4, 1.5), np.ones(6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotConverged)
        result = sinkhorn(sparse.csr_array(cost), a, b, epsilon, tolerance=1e-300, max_iterations=50)
    expected = pot_after(cost, a, b, epsilon, 50)
    assert_allclose(plan_of(result, cost, epsilon), expected, rtol=0, atol=1e-6 * expected.max())


def test_log_form_stays_finite_where_the_kernel_overflows() -> None:
    rng = np.random.default_rng(3)
    cost = rng.choice([-2.0, 0.0, 2.0], (30, 20), p=[0.1, 0.8, 0.1])
    a, b = np.full(30, 2.0), np.full(20, 3.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotConverged)
        result = sinkhorn(sparse.csr_array(cost), a, b, 1e-4, max_iterations=200)
    plan = plan_of(result, cost, 1e-4)
    assert result.form == "log"
    assert np.isfinite(plan).all()
    assert_allclose(plan.sum(axis=0), b, rtol=1e-9)


def test_equal_marginals_of_any_size_give_the_same_plan_up_to_a_constant() -> None:
    rng = np.random.default_rng(0)
    cost = sparse.csr_array(rng.choice([-1.0, 0.0, 1.0], (12, 8), p=[0.2, 0.7, 0.1]))
    small = sinkhorn(cost, np.full(12, 1 / 12), np.full(8, 1 / 8), 0.5, tolerance=1e-12)
    large = sinkhorn(cost, np.full(12, 40.0), np.full(8, 60.0), 0.5, tolerance=1e-12)
    dense = cost.toarray()
    assert_allclose(plan_of(large, dense, 0.5), 480 * plan_of(small, dense, 0.5), rtol=1e-9)
    assert large.mass == pytest.approx(480)


def test_users_and_items_without_mass_get_none() -> None:
    rng = np.random.default_rng(1)
    cost = rng.choice([-1.0, 0.0, 1.0], (6, 5))
    a, b = np.array([0.0, 1, 2, 0, 3, 4]), np.array([5.0, 0, 5, 0, 0])
    for form in ("scaling", "log"):
        result = sinkhorn(sparse.csr_array(cost), a, b, 0.5, form=form, tolerance=1e-12)
        plan = plan_of(result, cost, 0.5)
        assert_allclose(plan.sum(axis=1), a, atol=1e-9)
        assert_allclose(plan.sum(axis=0), b, atol=1e-9)


@pytest.mark.parametrize("block_entries", [1, 7, 50])
def test_the_log_form_does_not_depend_on_its_blocks(block_entries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    cost = sparse.csr_array(rng.choice([-1.0, 0.0, 1.0], (20, 10), p=[0.2, 0.6, 0.2]))
    a, b = np.full(20, 1.0), np.full(10, 2.0)
    whole = sinkhorn(cost, a, b, 0.5, form="log")
    monkeypatch.setattr(module, "_BLOCK_ENTRIES", block_entries)
    cut = sinkhorn(cost, a, b, 0.5, form="log")
    assert_allclose(cut.log_f, whole.log_f, rtol=1e-12)
    assert_allclose(cut.log_g, whole.log_g, rtol=1e-12)


def test_stored_zeros_cost_what_absent_entries_cost() -> None:
    rng = np.random.default_rng(6)
    dense = rng.choice([-1.0, 0.0, 1.0], (12, 8))
    padded = sparse.csr_array((dense.ravel(), np.tile(np.arange(8), 12), np.arange(0, 97, 8)), shape=(12, 8))
    a, b = np.full(12, 2.0), np.full(8, 3.0)
    for form in ("scaling", "log"):
        with_zeros, without = (sinkhorn(c, a, b, 0.5, form=form) for c in (padded, sparse.csr_array(dense)))
        assert_allclose(with_zeros.log_f, without.log_f, rtol=1e-12)
        assert_allclose(with_zeros.log_g, without.log_g, rtol=1e-12)


def test_stopping_early_warns_and_reports_the_error_of_its_marginals() -> None:
    rng = np.random.default_rng(2)
    cost = rng.choice([-1.0, 0.0, 1.0], (20, 10))
    a, b = np.full(20, 1.0), np.full(10, 2.0)
    with pytest.warns(NotConverged, match="2 iterations"):
        result = sinkhorn(sparse.csr_array(cost), a, b, 0.05, max_iterations=2)
    assert not result.converged
    assert result.n_iterations == 2
    missing = np.abs(plan_of(result, cost, 0.05).sum(axis=1) - a).sum() / 20
    assert result.marginal_error == pytest.approx(missing)


def test_the_dense_solver_gives_the_same_plan() -> None:
    rng = np.random.default_rng(4)
    cost = rng.choice([-1.0, 0.0, 1.0], (15, 10))
    a, b = np.full(15, 2.0), np.full(10, 3.0)
    for relaxation in (None, 2.0):
        ours = sinkhorn(sparse.csr_array(cost), a, b, 0.5, relaxation=relaxation)
        theirs = sinkhorn(sparse.csr_array(cost), a, b, 0.5, relaxation=relaxation, solver="pot")
        assert theirs.converged
        assert theirs.form == "pot"
        plan = plan_of(theirs, cost, 0.5)
        assert_allclose(plan_of(ours, cost, 0.5), plan, rtol=0, atol=1e-6 * plan.max())


def test_the_dense_solver_refuses_what_does_not_fit_in_memory() -> None:
    n = 1_000_000
    with pytest.raises(InputError, match="structured"):
        sinkhorn(sparse.csr_array((n, n)), np.ones(n), np.ones(n), solver="pot")


COST = sparse.csr_array(np.array([[1.0, 0.0], [0.0, -1.0]]))
HALVES = np.array([0.5, 0.5])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"cost": np.zeros((2, 2))}, "cost"),
        ({"cost": sparse.csr_array(np.array([[np.nan, 0.0], [0.0, 1.0]]))}, "cost"),
        ({"cost": sparse.csr_array(np.array([[np.inf, 0.0], [0.0, 1.0]]))}, "cost"),
        ({"cost": sparse.csr_array((0, 2))}, "cost"),
        ({"a": np.array([1.0])}, "marginal a"),
        ({"a": np.array([[0.5], [0.5]])}, "marginal a"),
        ({"a": np.array([1.5, -0.5])}, "marginal a"),
        ({"b": np.array([np.nan, 0.5])}, "marginal b"),
        ({"b": np.zeros(2)}, "marginal b"),
        ({"b": np.array([1.0, 1.0])}, "marginals"),
        ({"epsilon": 0.0}, "epsilon"),
        ({"epsilon": -1.0}, "epsilon"),
        ({"epsilon": np.nan}, "epsilon"),
        ({"relaxation": -2.0}, "relaxation"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"max_iterations": 0}, "max_iterations"),
        ({"form": "dense"}, "form"),
        ({"solver": "gpu"}, "solver"),
    ],
)
def test_wrong_input_is_refused_by_name(change: dict[str, object], named: str) -> None:
    arguments: dict[str, object] = {"cost": COST, "a": HALVES, "b": HALVES, **change}
    with pytest.raises(InputError, match=named):
        sinkhorn(**arguments)  # type: ignore[arg-type]
