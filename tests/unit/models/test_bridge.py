"""BRIDGE's bands and evidence at their borders; its formulas are in test_formulas."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from recmodels.graphs.matrices import interaction_matrix
from recmodels.models.inputs import TrainingData
from recmodels.models.registry import build_model, resolve_config
from recmodels.models.zoo.bridge import CoUserSupport, Model, spectral_bands
from recmodels.ranking.calibrated import restored_ranker
from recmodels.ranking.ranker import EmbeddingScorer


@pytest.fixture(scope="module")
def data(checkerboard) -> TrainingData:
    return checkerboard.data()


def build(data: TrainingData, **settings: Any) -> Model:
    defaults = {"embedding_size": 8, "neighbours": 4}
    return build_model("bridge", resolve_config("bridge", {**defaults, **settings}), data, 0)


@pytest.mark.parametrize(("width", "n_bands", "sizes"), [(64, 3, [22, 21, 21]), (8, 1, [8]), (7, 7, [1] * 7)])
def test_bands_are_the_runs_of_the_singular_value_decomposition(width: int, n_bands: int, sizes: list[int]) -> None:
    x = torch.randn(200, width, generator=torch.Generator().manual_seed(0)) * torch.linspace(3, 0.1, width)
    bands = spectral_bands(x, n_bands)
    u, s, v = torch.linalg.svd(x, full_matrices=False)
    start = 0
    for band, size in zip(bands, sizes, strict=True):
        run = slice(start, start + size)
        torch.testing.assert_close(band, u[:, run] * s[run] @ v[run], atol=1e-4, rtol=1e-4)
        start += size
    torch.testing.assert_close(torch.stack(bands).sum(dim=0), x, atol=1e-4, rtol=1e-4)


def test_support_without_itself_is_that_of_the_data_without_the_pair() -> None:
    rng = np.random.default_rng(0)
    users, items = rng.integers(0, 12, 60), rng.integers(0, 9, 60)
    history = interaction_matrix(users, items, 12, 9)
    pairs = history.tocoo()
    users, items = (ids.astype(np.int64) for ids in pairs.coords)
    support = CoUserSupport(history, 9)
    without = support.of_pairs(users, items, without_itself=True)
    with_itself = support.of_pairs(users, items, without_itself=False)
    for n, (user, item) in enumerate(zip(users.tolist(), items.tolist(), strict=True)):
        left = (users != user) | (items != item)
        r = interaction_matrix(users[left], items[left], 12, 9).toarray().astype(float)
        sizes = np.maximum(r.sum(axis=0), 1)
        raw = r[user] @ (r.T @ r[:, item] / np.sqrt(sizes[item] * sizes)) / np.sqrt(max(r[user].sum(), 1))
        whole = history.toarray().astype(float)
        counts = np.maximum(whole.sum(axis=0), 1)
        cosines = whole.T @ whole / np.sqrt(np.outer(counts, counts))
        np.fill_diagonal(cosines, 0)
        row = whole[user] @ cosines / np.sqrt(whole[user].sum())
        assert without[n].item() == pytest.approx((raw - row.mean()) / row.std(), abs=1e-4)
        assert with_itself[n].item() == pytest.approx((row[item] - row.mean()) / row.std(), abs=1e-4)
    # A pair's own user shares every item of the user, so that pairs speak for themselves.
    assert without.mean() < with_itself.mean()


def test_pairs_outside_of_training_have_the_same_support_either_way(data: TrainingData) -> None:
    support = build(data).support
    users, items = (ids.ravel() for ids in np.mgrid[: data.n_users, : data.n_items])
    both = [support.of_pairs(users, items, without_itself=without) for without in (True, False)]
    seen = interaction_matrix(*data.train_pairs, data.n_users, data.n_items).toarray().ravel() > 0
    assert torch.equal(both[0][~seen], both[1][~seen])
    assert not torch.equal(both[0][seen], both[1][seen])
    rows = both[1].view(data.n_users, data.n_items)
    torch.testing.assert_close(rows.mean(dim=1), torch.zeros(data.n_users), atol=1e-5, rtol=0)
    torch.testing.assert_close(rows.std(dim=1, correction=0), torch.ones(data.n_users), atol=1e-4, rtol=0)


def test_only_the_items_with_most_users_in_common_speak(data: TrainingData) -> None:
    history = interaction_matrix(*data.train_pairs, data.n_users, data.n_items)
    few, all_of_them = (CoUserSupport(history, co_items).weights for co_items in (3, 1000))
    assert (np.diff(few.tocsc().indptr) == 3).all()
    assert few.nnz < all_of_them.nnz
    assert (all_of_them != all_of_them.T).nnz == 0


def test_without_strength_the_ranking_is_that_of_the_base_scores(data: TrainingData) -> None:
    model = build(data, strength=0.0)
    with torch.no_grad():
        base = EmbeddingScorer(*model.embeddings())
    everyone = torch.arange(data.n_users)
    for found, expected in zip(model.ranker().top_items(everyone, 40), base.top_items(everyone, 40), strict=True):
        assert torch.equal(found, expected)


def test_a_stored_ranking_adds_the_evidence_as_it_is_too(data: TrainingData) -> None:
    ranker = build(data, shortlist=20).ranker()
    stored = restored_ranker(ranker.kind, ranker.tensors(), ranker.settings())
    everyone = torch.arange(data.n_users)
    with_evidence = ranker.top_items(everyone, 40)
    for found, expected in zip(stored.top_items(everyone, 40), with_evidence, strict=True):
        assert torch.equal(found, expected)
    assert not torch.equal(with_evidence[0], ranker.base.top_items(everyone, 40)[0])


def test_held_out_pairs_change_no_evidence(data: TrainingData) -> None:
    others = replace(data, valid_users=data.valid_users[::-1].copy(), valid_items=data.valid_items[::-1].copy())
    first, second = (build(each).support.weights for each in (data, others))
    assert (first != second).nnz == 0
