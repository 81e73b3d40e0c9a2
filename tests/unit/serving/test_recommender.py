"""Answers from a checkpoint: ranked, unseen, and for everybody."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.metrics.pairwise import cosine_similarity

from recmodels.errors import InputError
from recmodels.models.inputs import training_data
from recmodels.models.registry import MODELS, resolve_config
from recmodels.serving.recommender import UNKNOWN_USER, Recommender
from recmodels.training.run import train_checkpoint

COLD = 60


@pytest.fixture(scope="module")
def recommender(checkerboard, tmp_path_factory) -> Recommender:
    directory: Path = tmp_path_factory.mktemp("serving") / "checkpoint"
    # One user more than anybody has seen.
    users = pl.concat(
        [
            checkerboard.users,
            checkerboard.users.head(1).select(
                pl.lit(COLD, pl.Int32).alias("user_id"), pl.lit("cold").alias("reviewer_id")
            ),
        ]
    )
    train_checkpoint(
        directory,
        "lightgcn",
        resolve_config("lightgcn", {"embedding_size": 8, "training": {"epochs": 15, "learning_rate": 0.02}}),
        training_data(checkerboard.interactions, n_users=61, n_items=80),
        seed=0,
        users=users,
        items=checkerboard.items,
        provenance={},
    )
    return Recommender.load(directory)


def test_the_best_unseen_items_by_score(recommender: Recommender) -> None:
    stored = recommender.checkpoint
    scores = (stored.ranker.user_embeddings @ stored.ranker.item_embeddings.T).numpy()
    seen = stored.seen.filter(pl.col("user_id") == 7)["item_id"].to_numpy()
    scores[7, seen] = -np.inf
    found = recommender.recommend([7], 10)
    assert found["item_id"].to_list() == np.argsort(-scores[7], kind="stable")[:10].tolist()
    assert found["rank"].to_list() == list(range(1, 11))
    np.testing.assert_allclose(found["score"], np.sort(scores[7])[::-1][:10], rtol=1e-5)
    assert set(found["source"]) == {"model"}
    assert set(found["item_id"].to_list()).isdisjoint(seen.tolist())
    # The parity of the likes is what there was to learn.
    assert (found["item_id"] % 2 == 1).all()


def test_seen_items_come_back_on_request(recommender: Recommender) -> None:
    stored = recommender.checkpoint
    scores = (stored.ranker.user_embeddings @ stored.ranker.item_embeddings.T)[7]
    found = recommender.recommend([7], 5, exclude_seen=False)
    assert found["item_id"].to_list() == scores.topk(5).indices.tolist()


def test_a_batch_answers_like_single_calls_in_the_order_asked(recommender: Recommender) -> None:
    asked = [5, UNKNOWN_USER, 3, COLD, 5]
    together = recommender.recommend(asked, 4)
    alone = pl.concat([recommender.recommend([user], 4) for user in asked])
    assert together.drop("score").equals(alone.drop("score"))
    np.testing.assert_allclose(together["score"], alone["score"], rtol=1e-5)


def test_users_without_training_rows_are_answered_by_popularity(recommender: Recommender) -> None:
    counts = recommender.checkpoint.seen.filter(pl.col("split") == "train")["item_id"].value_counts()
    most = counts.sort("count", descending=True)["count"][:3].to_list()
    for user in (COLD, UNKNOWN_USER):
        found = recommender.recommend([user], 3)
        assert set(found["source"]) == {"popularity"}
        assert found["score"].to_list() == most


def test_names_of_the_raw_data_lead_to_ids(recommender: Recommender) -> None:
    assert recommender.user_ids(["R3", "nobody", "cold", "R3"]).tolist() == [3, UNKNOWN_USER, COLD, 3]


def test_whoever_has_seen_nearly_everything_gets_what_is_left(recommender: Recommender) -> None:
    n_seen = recommender.checkpoint.seen.filter(pl.col("user_id") == 0).height
    assert recommender.recommend([0], 80).height == 80 - n_seen


def test_a_list_ends_with_the_items(recommender: Recommender) -> None:
    everything = recommender.recommend([7], 80, exclude_seen=False)
    assert everything.height == 80
    assert recommender.recommend([7], 1_000, exclude_seen=False).equals(everything)
    others = recommender.similar_items([4], 1_000)
    assert sorted(others["similar_item_id"]) == [item for item in range(80) if item != 4]


def test_similar_items_are_ranked_by_cosine_without_the_item_itself(recommender: Recommender) -> None:
    vectors = recommender.checkpoint.ranker.item_embeddings.numpy()
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    found = recommender.similar_items([4, 9], 6)
    for item in (4, 9):
        cosines = unit @ unit[item]
        cosines[item] = -np.inf
        rows = found.filter(pl.col("item_id") == item)
        assert rows["similar_item_id"].to_list() == np.argsort(-cosines)[:6].tolist()
        np.testing.assert_allclose(rows["similarity"], np.sort(cosines)[::-1][:6], rtol=1e-4)


@pytest.mark.parametrize("name", [name for name, spec in MODELS.items() if spec.closed_form])
def test_a_model_without_embeddings_recommends_and_compares_items_by_their_users(
    name: str, checkerboard, tmp_path: Path
) -> None:
    data = checkerboard.data()
    result = train_checkpoint(
        tmp_path / "checkpoint",
        name,
        resolve_config(name),
        data,
        seed=0,
        users=checkerboard.users,
        items=checkerboard.items,
        provenance={},
    )
    served = Recommender.load(tmp_path / "checkpoint")
    found = served.recommend([3, 7], 5)
    scores = result.ranker.scores(torch.tensor([3, 7])).numpy()
    seen = served.checkpoint.seen
    for row, user in enumerate((3, 7)):
        scores[row, seen.filter(pl.col("user_id") == user)["item_id"].to_numpy()] = -np.inf
    np.testing.assert_allclose(found["score"].to_numpy().reshape(2, 5), -np.sort(-scores, axis=1)[:, :5], rtol=1e-6)
    taken = np.zeros((60, 80))
    taken[data.train_pairs] = 1
    cosines = cosine_similarity(taken.T)
    cosines[4, 4] = -np.inf
    similar = served.similar_items([4], 6)
    np.testing.assert_allclose(similar["similarity"], np.sort(cosines[4])[::-1][:6], rtol=1e-5)
    np.testing.assert_allclose(cosines[4, similar["similar_item_id"]], similar["similarity"], rtol=1e-5)


def test_nobody_asked_nothing_answered(recommender: Recommender) -> None:
    assert recommender.recommend([], 3).is_empty()
    assert recommender.similar_items([], 3).is_empty()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda served: served.recommend([61], 3), "user_ids"),
        (lambda served: served.recommend([-2], 3), "user_ids"),
        (lambda served: served.recommend([0], 0), "n: expected"),
        (lambda served: served.similar_items([80], 3), "item_ids"),
        (lambda served: served.similar_items([0], 0), "n: expected 1 or more"),
    ],
)
def test_what_is_out_of_range_is_refused(recommender: Recommender, call, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call(recommender)
