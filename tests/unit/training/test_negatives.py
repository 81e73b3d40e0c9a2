"""The negative sampler: what it may draw, how evenly, and how often the same."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse, stats

from recmodels.errors import InputError
from recmodels.graphs.matrices import interaction_matrix
from recmodels.training.negatives import NegativeSampler


def draw(sampler: NegativeSampler, users: np.ndarray, seed: int = 0) -> np.ndarray:
    return sampler.sample(torch.from_numpy(users), torch.Generator().manual_seed(seed)).numpy()


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_draws_every_allowed_item_and_no_other(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    n_users, n_items = int(rng.integers(1, 8)), int(rng.integers(3, 10))
    seen = rng.random((n_users, n_items)) < 0.4
    seen[:, rng.integers(0, n_items)] = False
    barred = rng.random((n_users, n_items)) < share
    in_train = seen.any(axis=0)
    if not in_train.any():
        with pytest.raises(InputError):
            NegativeSampler(sparse.csr_array(seen), sparse.csr_array(barred))
        return
    sampler = NegativeSampler(sparse.csr_array(seen), sparse.csr_array(barred))
    allowed = in_train & ~seen & ~barred
    nothing_left = ~allowed.any(axis=1)
    allowed[nothing_left] = (in_train & ~seen)[nothing_left]
    assert sampler.n_negatives.tolist() == allowed.sum(axis=1).tolist()
    users = np.repeat(np.flatnonzero(allowed.any(axis=1)), 300)
    drawn = np.zeros((n_users, n_items), dtype=bool)
    drawn[users, draw(sampler, users, seed % 1000)] = True
    assert (drawn == allowed).all()


def test_allowed_items_are_equally_likely() -> None:
    rng = np.random.default_rng(0)
    seen = interaction_matrix(rng.integers(0, 50, 600), rng.integers(0, 120, 600), 50, 120)
    barred = interaction_matrix(rng.integers(0, 50, 2500), rng.integers(0, 120, 2500), 50, 120)
    sampler = NegativeSampler(seen, barred)
    users = rng.permutation(np.repeat(np.arange(50), 20_000))
    items = draw(sampler, users)
    counts = np.zeros((50, 120))
    np.add.at(counts, (users, items), 1)
    p_values = [stats.chisquare(row[row > 0]).pvalue for row in counts]
    assert [(row > 0).sum() for row in counts] == sampler.n_negatives.tolist()
    # Fifty tests of a true hypothesis: their p-values are uniform.
    assert stats.kstest(p_values, "uniform").pvalue > 1e-3


def test_shared_items_are_drawn_evenly_and_barred_from_the_users_they_are_no_negatives_of() -> None:
    rng = np.random.default_rng(4)
    seen = interaction_matrix(rng.integers(0, 40, 500), rng.integers(0, 90, 500), 40, 100)
    likely = interaction_matrix(rng.integers(0, 40, 900), rng.integers(0, 100, 900), 40, 100)
    likely = sparse.csr_array(likely - likely.multiply(seen))
    users = np.concatenate([np.arange(40), rng.integers(0, 40, 30)])
    for barred in (None, likely):
        items, mask = NegativeSampler(seen, barred).sample_shared(
            torch.from_numpy(users), 20_000, torch.Generator().manual_seed(0)
        )
        forbidden = (seen if barred is None else seen + barred).toarray()
        assert (mask.numpy() == (forbidden[users][:, items.numpy()] > 0)).all()
        in_train = np.unique(seen.indices)
        counts = np.bincount(items.numpy(), minlength=100)
        assert set(np.flatnonzero(counts)) == set(in_train)
        assert stats.chisquare(counts[in_train]).pvalue > 1e-3


def test_never_draws_a_forbidden_pair_nor_an_item_without_training_row() -> None:
    rng = np.random.default_rng(1)
    seen = interaction_matrix(rng.integers(0, 200, 3000), rng.integers(0, 900, 3000), 200, 1000)
    barred = interaction_matrix(rng.integers(0, 200, 40_000), rng.integers(0, 1000, 40_000), 200, 1000)
    users = rng.integers(0, 200, 1_000_000)
    items = draw(NegativeSampler(seen, barred), users)
    drawn = interaction_matrix(users, items, 200, 1000)
    assert drawn.multiply(seen).nnz == 0
    assert drawn.multiply(barred).nnz == 0
    assert set(items.tolist()) <= set(seen.indices.tolist())


def test_a_user_whose_false_negatives_leave_nothing_gets_unseen_items() -> None:
    seen = sparse.csr_array(np.array([[1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1]]))
    barred = sparse.csr_array(np.array([[0, 1, 1, 1], [1, 0, 0, 0], [0, 0, 0, 0]]))
    sampler = NegativeSampler(seen, barred)
    assert set(draw(sampler, np.zeros(500, np.int64)).tolist()) == {1, 2, 3}
    assert set(draw(sampler, np.ones(500, np.int64)).tolist()) == {3}


def test_a_user_who_has_everything_has_no_negatives() -> None:
    sampler = NegativeSampler(sparse.csr_array(np.array([[1, 0], [1, 1]])))
    assert sampler.n_negatives.tolist() == [1, 0]
    assert set(draw(sampler, np.zeros(9, np.int64)).tolist()) == {1}
    with pytest.raises(InputError, match="user 1 with all"):
        draw(sampler, np.array([0, 1]))


def test_the_same_seed_draws_the_same_in_any_shape() -> None:
    rng = np.random.default_rng(2)
    sampler = NegativeSampler(interaction_matrix(rng.integers(0, 9, 30), rng.integers(0, 9, 30), 9, 9))
    users = rng.integers(0, 9, (6, 5))
    assert (draw(sampler, users, 4) == draw(sampler, users.ravel(), 4).reshape(6, 5)).all()
    assert (draw(sampler, users, 4) != draw(sampler, users, 5)).any()


def test_shapes_that_differ_and_empty_training_sets_are_refused() -> None:
    seen = interaction_matrix([0, 1], [0, 1], 2, 3)
    with pytest.raises(InputError, match="false negatives"):
        NegativeSampler(seen, sparse.csr_array((3, 2)))
    with pytest.raises(InputError, match="at least one item"):
        NegativeSampler(sparse.csr_array((2, 3)))


@pytest.mark.gpu
def test_cuda_draws_what_the_cpu_draws() -> None:
    rng = np.random.default_rng(3)
    seen = interaction_matrix(rng.integers(0, 50, 300), rng.integers(0, 60, 300), 50, 60)
    users = torch.from_numpy(rng.integers(0, 50, 1000))
    on_cpu = NegativeSampler(seen).sample(users, torch.Generator().manual_seed(0))
    on_cuda = NegativeSampler(seen, device="cuda").sample(users.cuda(), torch.Generator().manual_seed(0))
    assert torch.equal(on_cpu, on_cuda.cpu())
