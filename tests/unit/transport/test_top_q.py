"""The selection of the largest plan entries against sorting the dense plan."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import sparse

from recmodels.errors import InputError
from recmodels.transport import candidates
from recmodels.transport import top_q as module
from recmodels.transport.sinkhorn import sinkhorn
from recmodels.transport.top_q import top_q


def dense_top_q(logs: np.ndarray, excluded: np.ndarray, q: int) -> list[tuple[int, int]]:
    candidates = [
        (-logs[u, i], u, i)
        for u in range(logs.shape[0])
        for i in range(logs.shape[1])
        if not excluded[u, i] and logs[u, i] > -np.inf
    ]
    return sorted((u, i) for _, u, i in sorted(candidates)[:q])


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.1, 0.5, 1.0]), st.integers(0, 70))
def check_against_dense(seed: int, share: float, q: int) -> None:
    rng = np.random.default_rng(seed)
    n_users, n_items = int(rng.integers(1, 9)), int(rng.integers(1, 9))
    # Quarters are exact in binary, so that sums tie exactly and often.
    log_f, log_g = rng.integers(-4, 4, n_users) / 4, rng.integers(-4, 4, n_items) / 4
    log_f[rng.random(n_users) < 0.1] = -np.inf
    log_g[rng.random(n_items) < 0.1] = -np.inf
    cost = np.where(rng.random((n_users, n_items)) < share, rng.choice([-1.0, -0.5, 1.0], (n_users, n_items)), 0.0)
    excluded = rng.random((n_users, n_items)) < rng.choice([0.0, 0.3, 1.0])
    best = top_q(log_f, log_g, sparse.csr_array(cost), 0.5, q, excluded=sparse.csr_array(excluded))
    logs = log_f[:, None] + log_g - cost / 0.5
    assert list(zip(best.user_ids.tolist(), best.item_ids.tolist(), strict=True)) == dense_top_q(logs, excluded, q)
    assert_allclose(best.mass, np.exp(logs[best.user_ids, best.item_ids]), rtol=1e-12)
    assert (best.stored == (cost[best.user_ids, best.item_ids] != 0)).all()


@pytest.mark.parametrize("sharpened", [False, True])
@pytest.mark.parametrize("block_entries", [3, 1 << 22])
def test_equals_the_top_of_the_dense_plan_ties_included(
    sharpened: bool, block_entries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The ways through the search that only large problems take are taken by small ones too.
    monkeypatch.setattr(candidates, "_BLOCK_ENTRIES", block_entries)
    monkeypatch.setattr(module, "_CHEAP_PAIRS", 0 if sharpened else 1 << 22)
    check_against_dense()


def test_equals_the_top_of_the_plan_of_a_real_solve() -> None:
    rng = np.random.default_rng(0)
    cost = rng.choice([-1.0, 0.0, 1.0], (40, 30), p=[0.1, 0.85, 0.05])
    a, b = rng.uniform(1, 2, 40), rng.uniform(1, 2, 30)
    b *= a.sum() / b.sum()
    result = sinkhorn(sparse.csr_array(cost), a, b, 2.0)
    logs = result.log_f[:, None] + result.log_g - cost / 2.0
    for q in (1, 50, 200, 1000):
        best = top_q(result.log_f, result.log_g, sparse.csr_array(cost), 2.0, q, excluded=sparse.csr_array(cost > 0))
        assert list(zip(best.user_ids, best.item_ids, strict=True)) == dense_top_q(logs, cost > 0, q)
        assert best.user_ids.size == min(q, int((cost <= 0).sum()))
    assert not best.stored.all()


def test_rounding_noise_does_not_break_a_tie() -> None:
    log_f = np.array([0.3, 0.1 + 0.2])
    assert log_f[0] != log_f[1]
    best = top_q(log_f, np.zeros(3), sparse.csr_array((2, 3)), 1.0, 2)
    assert list(zip(best.user_ids, best.item_ids, strict=True)) == [(0, 0), (0, 1)]


def test_a_flat_plan_is_not_listed_as_a_whole() -> None:
    # 4e10 equal pairs: only those that come first may ever be looked at.
    n = 200_000
    best = top_q(np.zeros(n), np.zeros(n), sparse.csr_array((n, n)), 1.0, 5)
    assert best.user_ids.tolist() == [0] * 5
    assert best.item_ids.tolist() == [0, 1, 2, 3, 4]


def test_excluded_pairs_do_not_take_the_place_of_ties_further_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHEAP_PAIRS", 0)
    excluded = np.zeros((6, 20), dtype=bool)
    excluded[:2, 1:] = True
    best = top_q(np.zeros(6), np.zeros(20), sparse.csr_array((6, 20)), 1.0, 4, excluded=sparse.csr_array(excluded))
    assert list(zip(best.user_ids, best.item_ids, strict=True)) == [(0, 0), (1, 0), (2, 0), (2, 1)]


@pytest.mark.parametrize(
    "change",
    [
        {"q": -1},
        {"q": 1.5},
        {"epsilon": -1.0},
        {"epsilon": 0.0},
        {"log_f": np.zeros(3)},
        {"log_g": np.array([0.0, np.nan])},
        {"log_g": np.array([0.0, np.inf])},
        {"cost": np.zeros((2, 2))},
        {"cost": sparse.csr_array(np.array([[np.nan, 0.0], [0.0, 1.0]]))},
        {"excluded": sparse.csr_array((3, 2))},
    ],
)
def test_wrong_input_is_refused(change: dict[str, object]) -> None:
    arguments: dict[str, object] = {
        "log_f": np.zeros(2),
        "log_g": np.zeros(2),
        "cost": sparse.csr_array((2, 2)),
        "epsilon": 1.0,
        "q": 1,
        **change,
    }
    with pytest.raises(InputError):
        top_q(**arguments)  # type: ignore[arg-type]
