"""What a calibrated ranking changes and what it leaves alone, against dense arithmetic over all items."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from scipy import sparse

from recmodels.errors import InputError
from recmodels.evaluation.evaluator import evaluate
from recmodels.graphs.co_occurrence import cosines_of_columns
from recmodels.ranking.calibrated import CalibratedRanker, Evidence, restored_ranker, shortlist_support, standardised
from recmodels.ranking.ranker import EmbeddingScorer, LinearScorer

N_USERS, N_ITEMS, COLD = 40, 60, 5
EVERYONE = torch.arange(N_USERS)


def history(seed: int) -> sparse.csr_array:
    taken = np.random.default_rng(seed).random((N_USERS, N_ITEMS)) < 0.12
    taken[COLD] = False
    return sparse.csr_array(taken.astype(np.float32))


def base(seed: int) -> EmbeddingScorer:
    generator = torch.Generator().manual_seed(seed)
    return EmbeddingScorer(*(torch.randn(n, 8, generator=generator) for n in (N_USERS, N_ITEMS)))


def calibrate(seed: int, *, strength: float = 0.8, shortlist: int = 12, **kinds) -> CalibratedRanker:
    taken = history(seed)
    return CalibratedRanker(
        base(seed), taken, [Evidence("co_users", cosines_of_columns(taken), strength)], shortlist, **kinds
    )


def dense_support(taken: np.ndarray) -> np.ndarray:
    """e_ui by its definition."""
    sizes = taken.sum(axis=0)
    cosines = (taken.T @ taken) / np.sqrt(np.maximum(np.outer(sizes, sizes), 1))
    np.fill_diagonal(cosines, 0)
    return taken @ cosines / np.sqrt(np.maximum(taken.sum(axis=1, keepdims=True), 1))


def standard(values: np.ndarray) -> np.ndarray:
    deviation = values.std()
    return (values - values.mean()) / deviation if deviation > 1e-6 else np.zeros_like(values)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000), k=st.integers(1, N_ITEMS), shortlist=st.integers(1, N_ITEMS))
def test_without_strength_the_ranking_is_the_bases_to_the_bit(seed: int, k: int, shortlist: int) -> None:
    expected = base(seed).top_items(EVERYONE, k, excluded=history(seed))
    found = calibrate(seed, strength=0.0, shortlist=shortlist).top_items(EVERYONE, k, excluded=history(seed))
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


@settings(deadline=None, max_examples=20)
@given(
    seed=st.integers(0, 10_000), shortlist=st.integers(1, N_ITEMS), normalisation=st.sampled_from(["row", "shortlist"])
)
def test_only_the_shortlist_moves_and_by_the_formula(seed: int, shortlist: int, normalisation: str) -> None:
    taken = history(seed).toarray()
    items, scores = calibrate(seed, shortlist=shortlist, normalisation=normalisation).top_items(
        EVERYONE, N_ITEMS, excluded=history(seed)
    )
    before, base_scores = base(seed).top_items(EVERYONE, N_ITEMS, excluded=history(seed))
    # Behind the shortlist, score and order are the base's.
    assert torch.equal(items[:, shortlist:], before[:, shortlist:])
    assert torch.equal(scores[:, shortlist:], base_scores[:, shortlist:])
    support = dense_support(taken)
    for user in range(N_USERS):
        assert set(items[user, :shortlist].tolist()) == set(before[user, :shortlist].tolist())
        candidates = before[user, :shortlist][base_scores[user, :shortlist].isfinite()].numpy()
        of_base = base_scores[user, : len(candidates)].double().numpy()
        if normalisation == "row":
            evidence = standard(support[user])[candidates]
        else:
            evidence = standard(support[user, candidates])
        expected = dict(zip(candidates.tolist(), of_base + 0.8 * of_base.std() * evidence, strict=True))
        found = dict(zip(items[user].tolist(), scores[user].tolist(), strict=True))
        for item, score in expected.items():
            assert found[item] == pytest.approx(score, abs=1e-4)
        placed = scores[user, : len(candidates)]
        assert (placed[:-1] >= placed[1:]).all()
        # What was seen comes last and is no candidate.
        assert not scores[user, len(candidates) : shortlist].isfinite().any()


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 10_000))
def test_a_shortlist_of_all_items_is_the_global_correction(seed: int) -> None:
    scores = (base(seed).user_embeddings @ base(seed).item_embeddings.T).double().numpy()
    support = dense_support(history(seed).toarray())
    moved = np.stack([own + 0.8 * own.std() * standard(of_user) for own, of_user in zip(scores, support, strict=True)])
    items, found = calibrate(seed, shortlist=N_ITEMS).top_items(EVERYONE, 10)
    np.testing.assert_allclose(found.numpy(), -np.sort(-moved, axis=1)[:, :10], atol=1e-4)
    np.testing.assert_allclose(np.take_along_axis(moved, items.numpy(), axis=1), found.numpy(), atol=1e-4)


@pytest.mark.parametrize("layout", ["sparse", "dense"])
def test_standardised_rows_have_mean_0_and_variance_1_over_all_items(layout: str) -> None:
    taken = history(1)
    weights = cosines_of_columns(taken)
    evidence = Evidence("co_users", weights if layout == "sparse" else torch.from_numpy(weights.toarray()), 1.0)
    every_item = torch.arange(N_ITEMS).expand(N_USERS, -1)
    support, moments = shortlist_support(evidence, taken, EVERYONE, every_item, "row")
    expected = dense_support(taken.toarray())
    np.testing.assert_allclose(support.numpy(), expected, atol=1e-6)
    assert moments is not None
    np.testing.assert_allclose(moments[0].squeeze(1), expected.mean(axis=1), atol=1e-7)
    np.testing.assert_allclose(moments[1].squeeze(1), expected.std(axis=1), atol=1e-7)
    rows = standardised(support, moments, torch.zeros(N_USERS, N_ITEMS)).double().numpy()
    known = np.arange(N_USERS) != COLD
    np.testing.assert_allclose(rows.mean(axis=1), 0, atol=1e-6)
    np.testing.assert_allclose(rows[known].var(axis=1), 1, atol=1e-5)
    assert not rows[COLD].any()


def test_recall_at_the_length_of_the_shortlist_stays() -> None:
    rng = np.random.default_rng(2)
    held_out = (np.arange(N_USERS), rng.integers(N_ITEMS, size=N_USERS))
    train = history(2).nonzero()
    before, after = (
        evaluate(ranker, train, held_out, ks=(5, 12), masked=train) for ranker in (base(2), calibrate(2, strength=2.0))
    )
    assert before.value("recall", 12) == after.value("recall", 12)
    assert before.value("ndcg", 12) != after.value("ndcg", 12)


def test_a_user_without_history_keeps_the_base_ranking() -> None:
    for pair in zip(calibrate(3).top_items(EVERYONE[[COLD]], 9), base(3).top_items(EVERYONE[[COLD]], 9), strict=True):
        assert torch.equal(*pair)


def test_equal_supports_move_nothing() -> None:
    everything_alike = Evidence("alike", torch.full((N_ITEMS, N_ITEMS), 0.3), 2.0)
    found = CalibratedRanker(base(4), history(4), [everything_alike], 20).top_items(EVERYONE, 10)
    assert all(torch.equal(*pair) for pair in zip(found, base(4).top_items(EVERYONE, 10), strict=True))


def test_evidence_adds_up() -> None:
    taken, rng = history(5), np.random.default_rng(5)
    weights = [rng.random((N_ITEMS, N_ITEMS)).astype(np.float32) for _ in range(2)]
    ranker = CalibratedRanker(
        base(5),
        taken,
        [Evidence("a", torch.from_numpy(weights[0]), 0.5), Evidence("b", sparse.csr_array(weights[1]), 1.5)],
        N_ITEMS,
    )
    scores = (base(5).user_embeddings @ base(5).item_embeddings.T).double().numpy()
    supports = [taken.toarray() @ matrix for matrix in weights]
    for user in (0, 1, 2):
        moved = standard(supports[0][user]) * 0.5 + standard(supports[1][user]) * 1.5
        expected = np.argsort(-(scores[user] + scores[user].std() * moved))[:8]
        assert ranker.top_items(torch.tensor([user]), 8)[0].tolist() == [expected.tolist()]


@pytest.mark.parametrize("layout", ["sparse", "dense"])
def test_reasons_add_up_to_the_support_and_name_the_users_own_items(layout: str) -> None:
    ranker = calibrate(6)
    if layout == "dense":
        (one,) = ranker.evidence
        ranker = CalibratedRanker(
            base(6), history(6), [Evidence("co_users", torch.from_numpy(one.weights.toarray()), 1.0)], 12
        )
    taken = history(6).toarray()
    support = dense_support(taken)
    user = int(np.argmax(taken.sum(axis=1)))
    asked = ranker.top_items(torch.tensor([user]), 6)[0][0].tolist()
    reasons = ranker.reasons(user, asked)
    assert list(reasons["item_id"].unique(maintain_order=True)) == [item for item in asked if support[user, item]]
    assert set(reasons["because_item_id"].to_list()) <= set(np.flatnonzero(taken[user]).tolist())
    for item in asked:
        of_item = reasons.filter(reasons["item_id"] == item)
        assert of_item["support"].sum() == pytest.approx(support[user, item], rel=1e-5)
        assert of_item["support"].is_sorted(descending=True)
    without = taken.copy()
    strongest = reasons.row(0, named=True)
    # Taking away the item that speaks loudest takes away what it is said to give.
    without[user, strongest["because_item_id"]] = 0
    cosines = cosines_of_columns(sparse.csr_array(taken)).toarray()
    left = without[user] @ cosines[:, strongest["item_id"]] / np.sqrt(taken[user].sum())
    assert support[user, strongest["item_id"]] - left == pytest.approx(strongest["support"], rel=1e-5)


def test_a_user_without_history_has_no_reasons_and_unknown_ids_are_refused() -> None:
    assert calibrate(7).reasons(COLD, [1, 2]).is_empty()
    with pytest.raises(InputError, match="item ids: expected ids from 0 to 59"):
        calibrate(7).reasons(0, [N_ITEMS])
    with pytest.raises(InputError, match="user ids"):
        calibrate(7).reasons(N_USERS, [0])


@pytest.mark.parametrize(
    "of_base",
    [lambda: base(8), lambda: LinearScorer(history(8), torch.from_numpy(cosines_of_columns(history(8)).toarray()))],
    ids=["embeddings", "linear"],
)
def test_it_comes_back_from_tensors_and_settings(of_base: Callable, tmp_path) -> None:
    sparse_one = Evidence("co_users", cosines_of_columns(history(8)), 0.7)
    dense_one = Evidence("dense", torch.rand(N_ITEMS, N_ITEMS, generator=torch.Generator().manual_seed(0)), 0.2)
    ranker = CalibratedRanker(of_base(), history(8), [sparse_one, dense_one], 10, "row")
    save_file(ranker.tensors(), tmp_path / "ranking.safetensors")
    restored = restored_ranker(ranker.kind, load_file(tmp_path / "ranking.safetensors"), ranker.settings())
    assert restored.settings() == ranker.settings()
    for pair in zip(restored.top_items(EVERYONE, 15), ranker.top_items(EVERYONE, 15), strict=True):
        assert torch.equal(*pair)
    assert restored.is_finite()
    assert ranker.reasons(0, [1, 2]).equals(restored.reasons(0, [1, 2]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shortlist": 0}, "shortlist: expected at least 1 item, found 0"),
        ({"strength": -0.1}, "strength of co_users"),
        ({"history": history(0)[:-1]}, "history: expected shape"),
    ],
)
def test_what_makes_no_sense_is_refused(change: dict, message: str) -> None:
    settings = {"shortlist": 10, "strength": 1.0, "history": history(0)} | change
    evidence = [Evidence("co_users", cosines_of_columns(history(0)), settings["strength"])]
    with pytest.raises(InputError, match=message):
        CalibratedRanker(base(0), settings["history"], evidence, settings["shortlist"])


def test_an_unknown_kind_of_ranking_is_refused() -> None:
    with pytest.raises(InputError, match="expected one of inner_product, linear, calibrated, found 'magic'"):
        restored_ranker("magic", {}, {})


def test_weights_that_are_not_finite_are_found() -> None:
    weights = cosines_of_columns(history(0))
    weights.data[0] = np.nan
    assert not CalibratedRanker(base(0), history(0), [Evidence("co_users", weights, 1.0)], 5).is_finite()
