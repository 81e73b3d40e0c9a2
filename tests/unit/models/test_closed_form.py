"""ItemKNN and UserKNN against loops over sets, EASE against one ridge regression an item."""

import math
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.linear_model import Ridge

from recmodels.errors import InputError
from recmodels.models.base import ClosedFormModel
from recmodels.models.inputs import TrainingData
from recmodels.models.registry import build_model, resolve_config
from recmodels.models.zoo import ease
from recmodels.models.zoo.ease import ease_weights

N_USERS, N_ITEMS = 14, 10


def training_pairs(seed: int) -> np.ndarray:
    taken = np.random.default_rng(seed).random((N_USERS, N_ITEMS)) < 0.35
    taken[2], taken[0, 0] = False, True
    return taken


def data(taken: np.ndarray) -> TrainingData:
    users, items = (ids.astype(np.int64) for ids in np.nonzero(taken))
    return TrainingData(*taken.shape, users, items, np.array([0]), np.array([1]))


def scores(name: str, taken: np.ndarray, *values: float) -> np.ndarray:
    model = build_model(name, resolve_config(name), data(taken), 0)
    assert isinstance(model, ClosedFormModel)
    return model.solve(values).scores(torch.arange(len(taken))).numpy()


def likeness(sets: list[set[int]], first: int, second: int, shrinkage: float) -> float:
    common = len(sets[first] & sets[second])
    return common / (math.sqrt(len(sets[first]) * len(sets[second])) + shrinkage) if common and first != second else 0.0


def nearest(sets: list[set[int]], of: int, k: int, shrinkage: float) -> dict[int, float]:
    every = {other: likeness(sets, of, other, shrinkage) for other in range(len(sets))}
    # The same rounding as in the matrix, so that equal cosines are equal here too.
    best = sorted(every, key=lambda other: (-np.float32(every[other]), other))[:k]
    return {other: every[other] for other in best}


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000), k=st.integers(1, N_USERS), shrinkage=st.sampled_from([0.0, 3.0]))
def test_neighbourhood_models_add_up_the_cosines_of_the_nearest(seed: int, k: int, shrinkage: float) -> None:
    taken = training_pairs(seed)
    users_of, items_of = ([set(np.flatnonzero(row)) for row in matrix] for matrix in (taken.T, taken))
    by_items, by_users = np.zeros(taken.shape), np.zeros(taken.shape)
    for user in range(N_USERS):
        for own in items_of[user]:
            for item, cosine in nearest(users_of, own, k, shrinkage).items():
                by_items[user, item] += cosine
        for other, cosine in nearest(items_of, user, k, shrinkage).items():
            for item in items_of[other]:
                by_users[user, item] += cosine
    np.testing.assert_allclose(scores("itemknn", taken, k, shrinkage), by_items, atol=1e-6)
    np.testing.assert_allclose(scores("userknn", taken, k, shrinkage), by_users, atol=1e-6)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000), penalty=st.sampled_from([0.5, 10.0, 300.0]), rows=st.sampled_from([1, 3, 512]))
def test_ease_is_a_ridge_regression_of_each_item_on_the_others(seed: int, penalty: float, rows: int) -> None:
    taken = training_pairs(seed).astype(np.float64)
    expected = np.zeros((N_ITEMS, N_ITEMS))
    for item in range(N_ITEMS):
        others = np.arange(N_ITEMS) != item
        ridge = Ridge(alpha=penalty, fit_intercept=False, solver="cholesky")
        expected[others, item] = ridge.fit(taken[:, others], taken[:, item]).coef_
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ease, "_ROWS", rows)
        weights = ease_weights(sparse.csr_array(taken), penalty).numpy()
    np.testing.assert_allclose(weights, expected, atol=1e-6)
    np.testing.assert_allclose(scores("ease", taken > 0, penalty), taken @ expected, atol=1e-5)


def test_ease_says_how_much_memory_it_would_need() -> None:
    nobody = np.array([0])
    large = TrainingData(1, 10_000_000, nobody, nobody, nobody, nobody)
    with pytest.raises(InputError, match=r"EASE of 10,000,000 items: expected 1,600,000\.0 GB of memory.*itemknn"):
        build_model("ease", resolve_config("ease"), large, 0)


def test_a_penalty_of_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="penalty of EASE: expected a number above 0, found 0"):
        ease_weights(sparse.csr_array(np.eye(3)), 0)


def test_a_penalty_too_small_to_tell_equal_items_apart_is_refused() -> None:
    with pytest.raises(InputError, match="large enough to invert"):
        ease_weights(sparse.csr_array(np.ones((4, 2))), 1e-30)


def test_ease_needs_the_memory_that_it_announces(monkeypatch) -> None:
    monkeypatch.setattr(ease, "_ROWS", 32)
    train = sparse.random_array((3000, 1500), density=0.003, rng=np.random.default_rng(0), format="csr")
    train.data[:] = 1
    tracemalloc.start()
    ease_weights(train, 100.0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # The float32 result is torch's and not traced.
    assert peak < 1.2 * 8 * 1500**2


@pytest.mark.parametrize("settings", [{"neighbour_counts": (0,)}, {"shrinkages": (-1.0,)}, {"neighbour_counts": ()}])
@pytest.mark.parametrize("name", ["itemknn", "userknn"])
def test_settings_out_of_range_are_refused(name: str, settings: dict) -> None:
    with pytest.raises(InputError, match=next(iter(settings))):
        resolve_config(name, settings)
