"""Items in blocks rank as one stable sort of all scores does, and a ranking is the same in another process."""

import itertools
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import sparse

from benchmarks.harness import PUBLISHED_SIZES
from recmodels.graphs.co_occurrence import cosines_of_columns
from recmodels.ranking import ranker as ranking
from recmodels.ranking.best import RunningBest
from recmodels.ranking.blocks import user_blocks
from recmodels.ranking.calibrated import CalibratedRanker, Evidence
from recmodels.ranking.ranker import EmbeddingScorer, LinearScorer, Ranker

N_USERS, N_ITEMS, WIDTH = 30, 90, 3
KINDS = ("embeddings", "sparse", "dense")


def sorted_lists(scores: NDArray[np.float32], k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Of equal scores the lower id first."""
    items = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return items, np.take_along_axis(scores, items, axis=1)


def integers(seed: int, *shape: int) -> NDArray[np.float32]:
    """Few values, so that products are exact and many are equal."""
    return np.random.default_rng(seed).integers(-2, 3, size=shape).astype(np.float32)


def scorer(kind: str, seed: int) -> tuple[Ranker, NDArray[np.float32]]:
    """Return a ranker and all its scores."""
    left, right = integers(seed, N_USERS, WIDTH), integers(seed + 1, WIDTH, N_ITEMS)
    if kind == "embeddings":
        return EmbeddingScorer(torch.from_numpy(left), torch.from_numpy(right.T.copy())), left @ right
    of_items = torch.from_numpy(right) if kind == "dense" else sparse.csr_array(right)
    return LinearScorer(sparse.csr_array(left), of_items), left @ right


def excluded_pairs(seed: int) -> sparse.csr_array:
    """User 0 has every item but two, user 1 all of them."""
    taken = np.random.default_rng(seed).random((N_USERS, N_ITEMS)) < 0.3
    taken[0], taken[1] = np.arange(N_ITEMS) % 60 != 7, True
    return sparse.csr_array(taken.astype(np.float32))


@st.composite
def cuts(draw: st.DrawFn) -> tuple[NDArray[np.float32], list[int], int]:
    values = st.sampled_from([-np.inf, -1.5, -0.0, 0.0, 1e-40, 2.0, np.inf])
    n_items = draw(st.integers(1, 24))
    rows = draw(st.lists(st.lists(values, min_size=n_items, max_size=n_items), min_size=1, max_size=4))
    borders = draw(st.sets(st.integers(1, n_items), max_size=6))
    return np.array(rows, dtype=np.float32), sorted({0, n_items, *borders}), draw(st.integers(1, n_items))


@settings(deadline=None, max_examples=200)
@given(cut=cuts())
def test_any_cut_of_items_gives_the_lists_of_one_stable_sort(
    cut: tuple[NDArray[np.float32], list[int], int],
) -> None:
    scores, borders, k = cut
    running = RunningBest(len(scores), k)
    for first, last in itertools.pairwise(borders):
        running.add(torch.from_numpy(scores[:, first:last].copy()), first)
    for found, expected in zip(running.lists(), sorted_lists(scores, k), strict=True):
        np.testing.assert_array_equal(found.numpy(), expected)


def test_scores_that_rise_from_block_to_block_and_scores_that_fall_are_ranked_alike() -> None:
    # Rising ones replace whole lists in every block; a few rise in one row only.
    scores = np.random.default_rng(0).random((8, 4_000), dtype=np.float32)
    scores[0], scores[1], scores[2] = np.sort(scores[0]), -np.sort(-scores[1]), np.arange(4_000) // 500
    running = RunningBest(8, 50)
    for first in range(0, 4_000, 500):
        running.add(torch.from_numpy(scores[:, first : first + 500].copy()), first)
    for found, expected in zip(running.lists(), sorted_lists(scores, 50), strict=True):
        np.testing.assert_array_equal(found.numpy(), expected)


@settings(deadline=None, max_examples=40)
@given(
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 10_000),
    width=st.integers(1, N_ITEMS + 1),
    wider=st.integers(1, 3),
    together=st.integers(1, N_USERS),
    k=st.integers(1, N_ITEMS),
)
def test_items_in_blocks_are_ranked_as_all_scores_are(
    kind: str, seed: int, width: int, wider: int, together: int, k: int
) -> None:
    excluded, asked = excluded_pairs(seed), np.random.default_rng(seed).permutation(N_USERS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "WHOLE_ITEMS", 1)
        patch.setattr(ranking, "ITEMS", width)
        patch.setattr(ranking, "_WIDER", wider)
        model, scores = scorer(kind, seed)
        patch.setattr(model, "_together", together)
        found = model.top_items(torch.from_numpy(asked), k, excluded=excluded)
        without = model.top_items(torch.from_numpy(asked), k)
    for one, expected in zip(without, sorted_lists(scores[asked], k), strict=True):
        np.testing.assert_array_equal(one.numpy(), expected)
    scores[excluded.toarray() != 0] = -np.inf
    for one, expected in zip(found, sorted_lists(scores[asked], k), strict=True):
        np.testing.assert_array_equal(one.numpy(), expected)


@pytest.mark.parametrize("normalisation", ["shortlist", "row"])
def test_a_calibrated_ranking_is_the_same_where_items_are_cut(
    normalisation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = excluded_pairs(3)
    generator = torch.Generator().manual_seed(3)
    base = EmbeddingScorer(*(torch.randn(n, 8, generator=generator) for n in (N_USERS, N_ITEMS)))
    model = CalibratedRanker(base, taken, [Evidence("co_users", cosines_of_columns(taken), 0.7)], 40, normalisation)
    whole = model.top_items(torch.arange(2, N_USERS), 25, excluded=taken)
    monkeypatch.setattr(ranking, "WHOLE_ITEMS", 1)
    monkeypatch.setattr(ranking, "ITEMS", 16)
    items, scores = model.top_items(torch.arange(2, N_USERS), 25, excluded=taken)
    assert torch.equal(items, whole[0])
    torch.testing.assert_close(scores, whole[1])


def test_more_items_than_there_are_cannot_be_asked_for_in_blocks_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "WHOLE_ITEMS", 1)
    with pytest.raises(ranking.InputError, match=f"at most the {N_ITEMS} there are, found {N_ITEMS + 1}"):
        scorer("embeddings", 0)[0].top_items(torch.arange(2), N_ITEMS + 1)


@pytest.mark.parametrize("kind", [*KINDS, "calibrated"])
def test_a_ranking_answers_in_another_process_as_here_from_memory_that_is_shared(kind: str) -> None:
    taken = excluded_pairs(5)
    model, _ = scorer("embeddings" if kind == "calibrated" else kind, 5)
    if kind == "calibrated":
        model = CalibratedRanker(model, taken, [Evidence("co_users", cosines_of_columns(taken), 0.7)], 40)
    buffers: list[pickle.PickleBuffer] = []
    message = pickle.dumps(model, protocol=5, buffer_callback=buffers.append)
    sent = sum(tensor.nbytes for tensor in model.tensors().values())
    assert sum(buffer.raw().nbytes for buffer in buffers) == sent
    # What processes of a machine share cannot be written to.
    there = pickle.loads(message, buffers=[memoryview(bytes(buffer.raw())) for buffer in buffers])  # noqa: S301
    for found, expected in zip(
        there.top_items(torch.arange(N_USERS), 20, excluded=taken),
        model.top_items(torch.arange(N_USERS), 20, excluded=taken),
        strict=True,
    ):
        assert torch.equal(found, expected)


def test_published_data_sets_are_one_block_and_large_ones_are_cut_where_a_core_cuts_them() -> None:
    for n_users, n_items, _ in PUBLISHED_SIZES.values():
        assert len(user_blocks(np.arange(n_users), n_items)) == 1
    everyone = np.arange(1_000_000)
    for n_items, together in ((1_000, 1_048), (20_000, 64), (1_000_000, 256)):
        blocks = user_blocks(everyone, n_items)
        assert np.array_equal(np.concatenate(blocks), everyone)
        assert all(block.size % together == 0 for block in blocks[:-1])
        assert all(block.size * n_items <= 2**34 and block.size <= 2**18 for block in blocks)
