"""Metrics against loops over sets, and against scikit-learn."""

import math

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from sklearn.metrics import (
    average_precision_score,
    label_ranking_average_precision_score,
    ndcg_score,
    precision_score,
    recall_score,
    top_k_accuracy_score,
)

from recmodels.errors import InputError
from recmodels.evaluation import evaluator
from recmodels.evaluation.evaluator import ValidationRecall, evaluate, recall_at
from recmodels.evaluation.non_personalised import popularity_embeddings, random_embeddings
from recmodels.graphs.matrices import interaction_matrix
from recmodels.ranking import blocks
from recmodels.ranking.ranker import EmbeddingScorer

N_USERS, N_ITEMS = 9, 14


def pairs_of(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    users, items = np.nonzero(matrix)
    return users.astype(np.int64), items.astype(np.int64)


def problem(seed: int) -> tuple[torch.Tensor, torch.Tensor, np.ndarray, np.ndarray]:
    """Scores of random embeddings; training and held-out pairs; some users with more held-out items than any k."""
    rng = np.random.default_rng(seed)
    users, items = (torch.from_numpy(rng.normal(size=(n, 5)).astype(np.float32)) for n in (N_USERS, N_ITEMS))
    label = rng.choice(3, p=[0.6, 0.2, 0.2], size=(N_USERS, N_ITEMS))
    label[0] = 2
    label[1] = np.where(label[1] == 2, 0, label[1])
    return users, items, label == 1, label == 2


def loop(users: torch.Tensor, items: torch.Tensor, train: np.ndarray, held_out: np.ndarray, k: int) -> dict[str, float]:
    """The metrics by their definitions, one user and one rank at a time."""
    scores = (users @ items.T).numpy()
    values: dict[str, list[float]] = {name: [] for name in ("recall", "ndcg", "mrr", "hit", "precision", "map")}
    shown = set()
    for user in range(N_USERS):
        if not held_out[user].any():
            continue
        candidates = [item for item in range(N_ITEMS) if not train[user, item]]
        top = sorted(candidates, key=lambda item: -scores[user, item])[:k]
        shown.update(top)
        wanted = set(np.flatnonzero(held_out[user]).tolist())
        ranks = [rank for rank, item in enumerate(top, 1) if item in wanted]
        most = min(len(wanted), k)
        values["recall"].append(len(ranks) / len(wanted))
        values["precision"].append(len(ranks) / k)
        values["hit"].append(float(bool(ranks)))
        values["mrr"].append(1 / ranks[0] if ranks else 0.0)
        ideal = sum(1 / math.log2(rank + 1) for rank in range(1, most + 1))
        values["ndcg"].append(sum(1 / math.log2(rank + 1) for rank in ranks) / ideal)
        values["map"].append(sum(n / rank for n, rank in enumerate(ranks, 1)) / most)
    return {name: sum(of_users) / len(of_users) for name, of_users in values.items()} | {
        "coverage": len(shown) / N_ITEMS
    }


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), k=st.integers(1, 6), block=st.sampled_from([1, 200, 10_000]))
def test_every_metric_equals_its_definition_whatever_the_block_size(seed: int, k: int, block: int) -> None:
    users, items, train, held_out = problem(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "_BLOCK_BYTES", block)
        patch.setattr(blocks, "_LEAST_ROWS", 1)
        result = evaluate(EmbeddingScorer(users, items), pairs_of(train), pairs_of(held_out), ks=(k, 3))
    for metric, expected in loop(users, items, train, held_out, k).items():
        assert result.value(metric, k) == pytest.approx(expected), metric


@pytest.mark.parametrize("n_together", [1, 2, 4])
def test_users_in_blocks_are_measured_as_all_of_them_are(n_together: int, monkeypatch: pytest.MonkeyPatch) -> None:
    users, items, train, held_out = problem(6)
    asked = (EmbeddingScorer(users, items), pairs_of(train), pairs_of(held_out))
    expected = evaluate(*asked, ks=(5, 2))
    monkeypatch.setattr(blocks, "_MOST_USERS", n_together)
    monkeypatch.setattr(blocks, "_LEAST_ROWS", 1)
    monkeypatch.setattr(blocks, "_BLOCK_BYTES", 4 * N_ITEMS)
    assert len(blocks.user_blocks(np.flatnonzero(held_out.any(axis=1)), N_ITEMS)) > 1
    found = evaluate(*asked, ks=(5, 2))
    assert_frame_equal(found.per_user, expected.per_user, check_exact=True)
    # Only sums are taken in another order.
    for one, other in ((found.summary, expected.summary), (found.groups, expected.groups)):
        assert_frame_equal(one, other, abs_tol=0, rel_tol=1e-14)


def test_the_metrics_agree_with_scikit_learn() -> None:
    users, items, train, held_out = problem(1)
    train[:] = False
    scores = (users @ items.T).numpy()
    result = evaluate(EmbeddingScorer(users, items), pairs_of(train), pairs_of(held_out), ks=(4, N_ITEMS))
    judged = held_out.any(axis=1)
    relevance = held_out[judged].astype(int)
    assert result.value("ndcg", 4) == pytest.approx(ndcg_score(relevance, scores[judged], k=4))
    assert result.value("ndcg", N_ITEMS) == pytest.approx(ndcg_score(relevance, scores[judged]))
    shown = np.zeros_like(relevance)
    np.put_along_axis(shown, np.argsort(-scores[judged], axis=1)[:, :4], 1, axis=1)
    assert result.value("recall", 4) == pytest.approx(recall_score(relevance, shown, average="samples"))
    assert result.value("precision", 4) == pytest.approx(precision_score(relevance, shown, average="samples"))
    precisions = [average_precision_score(of_user, s) for of_user, s in zip(relevance, scores[judged], strict=True)]
    assert result.value("map", N_ITEMS) == pytest.approx(np.mean(precisions))
    single = np.zeros_like(relevance)
    single[np.arange(len(single)), np.random.default_rng(0).integers(N_ITEMS, size=len(single))] = 1
    one_each = np.zeros_like(held_out)
    one_each[judged] = single
    of_one = evaluate(EmbeddingScorer(users, items), pairs_of(train), pairs_of(one_each), ks=(4, N_ITEMS))
    assert of_one.value("mrr", N_ITEMS) == pytest.approx(label_ranking_average_precision_score(single, scores[judged]))
    accuracy = top_k_accuracy_score(single.argmax(axis=1), scores[judged], k=4, labels=np.arange(N_ITEMS))
    assert of_one.value("hit", 4) == pytest.approx(accuracy)


def test_users_without_held_out_items_are_left_out() -> None:
    users, items, train, held_out = problem(2)
    result = evaluate(EmbeddingScorer(users, items), pairs_of(train), pairs_of(held_out), ks=(3,))
    assert result.per_user["user_id"].to_list() == np.flatnonzero(held_out.any(axis=1)).tolist()
    assert 1 not in result.per_user["user_id"]
    assert result.per_user["n_held_out"].to_list() == held_out.sum(axis=1)[held_out.any(axis=1)].tolist()


def test_training_items_are_never_candidates_and_validation_items_only_if_masked() -> None:
    users, items = torch.ones(1, 1), torch.arange(6.0)[:, None]
    train, valid, test = (np.array([0]), np.array([5])), (np.array([0]), np.array([4])), (np.array([0]), np.array([3]))
    assert evaluate(EmbeddingScorer(users, items), train, test, ks=(1, 2)).value("recall", 1) == 0
    assert evaluate(EmbeddingScorer(users, items), train, test, ks=(1, 2)).value("recall", 2) == 1
    assert evaluate(EmbeddingScorer(users, items), train, test, ks=(1,), masked=valid).value("recall", 1) == 1


def test_a_masked_item_is_no_hit_even_where_nothing_else_is_left() -> None:
    users, items = torch.ones(1, 1), torch.ones(3, 1)
    train = (np.array([0, 0]), np.array([0, 1]))
    result = evaluate(EmbeddingScorer(users, items), train, (np.array([0, 0]), np.array([1, 2])), ks=(3,))
    assert result.value("recall", 3) == 0.5


def test_per_user_values_average_to_the_summary() -> None:
    users, items, train, held_out = problem(3)
    result = evaluate(EmbeddingScorer(users, items), pairs_of(train), pairs_of(held_out), ks=(2, 5))
    for metric in ("recall", "ndcg", "mrr", "hit", "precision", "map"):
        for k in (2, 5):
            assert result.per_user[f"{metric}@{k}"].mean() == pytest.approx(result.value(metric, k))


def test_groups_partition_the_users_and_the_held_out_items() -> None:
    users, items, train, held_out = problem(4)
    result = evaluate(EmbeddingScorer(users, items), pairs_of(train), pairs_of(held_out), ks=(3,))
    recalls = result.groups.filter((pl.col("metric") == "recall") & (pl.col("k") == 3))
    activity = recalls.filter(pl.col("grouping") == "user_activity")
    assert activity["n_users"].sum() == result.per_user.height
    weighted = (activity["value"] * activity["n_users"]).sum() / activity["n_users"].sum()
    assert weighted == pytest.approx(result.value("recall", 3))
    # By hand for the head: the fifth of the items with the most training users, three of fourteen.
    head = np.argsort(-train.sum(axis=0), kind="stable")[:3]
    scores = np.where(train, -np.inf, (users @ items.T).numpy())
    of_users = []
    for user in range(N_USERS):
        wanted = set(head.tolist()) & set(np.flatnonzero(held_out[user]).tolist())
        if wanted:
            of_users.append(len(wanted & set(np.argsort(-scores[user])[:3].tolist())) / len(wanted))
    found = recalls.filter((pl.col("grouping") == "item_popularity") & (pl.col("group") == "head"))
    assert found["value"].item() == pytest.approx(np.mean(of_users))
    assert found["n_users"].item() == len(of_users)


def test_novelty_is_the_mean_self_information_of_what_is_shown() -> None:
    users, items = torch.ones(3, 1), torch.tensor([[3.0], [2.0], [1.0]])
    train = (np.array([0, 1, 2]), np.array([2, 2, 1]))
    result = evaluate(EmbeddingScorer(users, items), train, (np.array([0]), np.array([0])), ks=(2,))
    # User 0 is shown items 0 and 1, which 0 and 1 of 3 users have in training; one fictive user has all.
    assert result.value("novelty", 2) == pytest.approx((math.log2(4 / 1) + math.log2(4 / 2)) / 2)


def test_the_recall_that_training_watches_is_the_evaluators() -> None:
    users, items, train, held_out = problem(5)
    matrices = (interaction_matrix(*pairs_of(mask), N_USERS, N_ITEMS) for mask in (train, held_out))
    expected = evaluate(EmbeddingScorer(users, items), pairs_of(train), pairs_of(held_out), ks=(4,)).value("recall", 4)
    assert recall_at(EmbeddingScorer(users, items), *matrices, 4) == pytest.approx(expected)


def test_the_recall_counted_on_a_device_is_the_same_in_blocks_of_any_size(monkeypatch) -> None:
    users, items, train, held_out = problem(5)
    train_matrix, wanted = (interaction_matrix(*pairs_of(mask), N_USERS, N_ITEMS) for mask in (train, held_out))
    ranker = EmbeddingScorer(users, items)
    # The block of a device is not that of a CPU, but the arithmetic is: here it runs on the CPU.
    for n_rows in (1, 3, N_USERS):
        monkeypatch.setattr(evaluator, "DEVICE_BLOCK_BYTES", 4 * N_ITEMS * n_rows)
        found = ValidationRecall(train_matrix, wanted, 4, torch.device("cpu")).on_device(ranker)
        assert found == pytest.approx(recall_at(ranker, train_matrix, wanted, 4), rel=1e-12)


def test_popularity_ranks_by_training_counts_and_random_finds_what_chance_finds() -> None:
    counts = np.array([0, 1, 1, 2, 2, 2])
    users, items = popularity_embeddings(counts, 2, 4)
    assert (users @ items.T).tolist() == [[1, 2, 3, 0]] * 2
    n_users, n_items = 3000, 50
    users, items = random_embeddings(n_users, n_items, seed=0)
    everyone = np.arange(n_users)
    nobody = np.zeros(0, dtype=np.int64)
    held_out = (everyone, np.random.default_rng(0).integers(n_items, size=n_users))
    result = evaluate(EmbeddingScorer(users, items), (nobody, nobody), held_out, ks=(10,))
    assert result.value("recall", 10) == pytest.approx(10 / n_items, abs=4 * math.sqrt(0.16 / n_users))
    assert torch.equal(random_embeddings(3, 3, seed=1)[0], random_embeddings(3, 3, seed=1)[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [({"ks": (0,)}, "ks"), ({"ks": ()}, "ks"), ({"held_out": None}, "held-out pairs")],
)
def test_what_cannot_be_evaluated_is_refused(change: dict, message: str) -> None:
    users, items, train, held_out = problem(6)
    nothing = np.zeros(0, dtype=np.int64)
    pairs = pairs_of(held_out) if "held_out" not in change else (nothing, nothing)
    with pytest.raises(InputError, match=message):
        evaluate(EmbeddingScorer(users, items), pairs_of(train), pairs, ks=change.get("ks", (2,)))


def test_a_list_ends_with_the_items() -> None:
    users, items, train, held_out = problem(8)
    asked = (N_ITEMS, N_ITEMS + 1, 20 * N_ITEMS)
    result = evaluate(EmbeddingScorer(users, items), pairs_of(train), pairs_of(held_out), ks=asked)
    for metric, expected in loop(users, items, train, held_out, N_ITEMS).items():
        for k in asked:
            assert result.value(metric, k) == pytest.approx(expected), (metric, k)
    assert result.value("recall", N_ITEMS) == 1


def test_what_is_no_candidate_is_neither_covered_nor_novel() -> None:
    users, items = torch.ones(2, 1), torch.tensor([[3.0], [2.0], [1.0]])
    train = (np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]))
    result = evaluate(EmbeddingScorer(users, items), train, (np.array([0]), np.array([2])), ks=(3,))
    assert result.value("coverage", 3) == pytest.approx(1 / 3)
    assert result.value("novelty", 3) == pytest.approx(math.log2(3 / 1))


def test_embeddings_that_are_not_finite_are_refused() -> None:
    users, items, train, held_out = problem(7)
    users[0, 0] = torch.nan
    with pytest.raises(InputError, match="finite"):
        evaluate(EmbeddingScorer(users, items), pairs_of(train), pairs_of(held_out), ks=(3,))
