"""Ranking in blocks and threads: the same as sorting all scores at once."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from scipy import sparse

from recmodels.errors import InputError
from recmodels.ranking.ranker import EmbeddingScorer, LinearScorer

N_USERS, N_ITEMS, WIDTH, K = 500, 5_000, 8, 7


@pytest.fixture
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 2, 5], indirect=True)
def test_blocks_and_threads_rank_as_a_full_sort_does(threads: int) -> None:
    rng = np.random.default_rng(0)
    users, items = (rng.integers(-9, 9, size=(n, WIDTH)).astype(np.float32) for n in (N_USERS, N_ITEMS))
    # Integer scores have ties; distinct fractions decide them.
    users[:, 0], items[:, 0] = 1, rng.permutation(N_ITEMS) / 2**13
    excluded = sparse.random_array((N_USERS, N_ITEMS), density=0.3, rng=rng, format="csr")
    asked = rng.permutation(N_USERS)[:400]

    scorer = EmbeddingScorer(torch.from_numpy(users), torch.from_numpy(items))
    found, scores = scorer.top_items(torch.from_numpy(asked), K, excluded=excluded)

    expected = users @ items.T
    expected[excluded.toarray() != 0] = -np.inf
    order = np.argsort(-expected[asked], axis=1)[:, :K]
    np.testing.assert_array_equal(found.numpy(), order)
    np.testing.assert_array_equal(scores.numpy(), np.take_along_axis(expected[asked], order, axis=1))
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("threads", [2], indirect=True)
def test_no_gradient_flows_through_a_ranking(threads: int) -> None:
    table = torch.randn(N_ITEMS, WIDTH, requires_grad=True)

    _, scores = EmbeddingScorer(table, table).top_items(torch.arange(N_USERS), K)

    assert not scores.requires_grad


@pytest.mark.parametrize("threads", [2], indirect=True)
def test_an_error_in_a_thread_is_raised(threads: int) -> None:
    table = torch.randn(N_ITEMS, WIDTH)

    with pytest.raises(RuntimeError, match="out of range"):
        EmbeddingScorer(table, table).top_items(torch.arange(N_USERS), N_ITEMS + 1)


def test_nobody_is_ranked_for_nobody() -> None:
    table = torch.randn(N_ITEMS, WIDTH)

    found, scores = EmbeddingScorer(table, table).top_items(torch.empty(0, dtype=torch.int64), K)

    assert found.shape == scores.shape == (0, K)


@pytest.mark.parametrize("threads", [1, 2], indirect=True)
@pytest.mark.parametrize("layout", ["sparse", "dense"])
def test_a_product_of_sparse_matrices_is_ranked_as_a_dense_one(threads: int, layout: str) -> None:
    rng = np.random.default_rng(1)
    # Positive entries: a score of 0 is one without any.
    left = sparse.random_array((N_USERS, 300), density=0.05, rng=rng, format="csr", dtype=np.float32)
    right = sparse.random_array((300, N_ITEMS), density=0.02, rng=rng, format="csr", dtype=np.float32)
    excluded = sparse.random_array((N_USERS, N_ITEMS), density=0.3, rng=rng, format="csr")
    asked = torch.from_numpy(rng.permutation(N_USERS)[:400])
    scorer = LinearScorer(left, right if layout == "sparse" else torch.from_numpy(right.toarray()))
    expected = (left.toarray() @ right.toarray())[asked]
    np.testing.assert_allclose(scorer.scores(asked), expected, rtol=1e-5, atol=1e-7)
    found, scores = scorer.top_items(asked, K, excluded=excluded)
    expected[excluded.toarray()[asked] != 0] = -np.inf
    np.testing.assert_allclose(scores, -np.sort(-expected, axis=1)[:, :K], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(np.take_along_axis(expected, found.numpy(), axis=1), scores, rtol=1e-5, atol=1e-7)


def test_matrices_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="right matrix: expected 3 rows, found 4"):
        LinearScorer(sparse.csr_array((2, 3), dtype=np.float32), torch.zeros(4, 5))
