"""Names in, names and titles out; filters; and users the model never saw."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from recmodels.calibration.calibrate import calibrate
from recmodels.calibration.config import CalibrationConfig
from recmodels.checkpoints.store import Checkpoint
from recmodels.errors import InputError, MissingObject
from recmodels.models.registry import build_model, resolve_config
from recmodels.ranking.calibrated import CalibratedRanker, Evidence
from recmodels.ranking.ranker import EmbeddingScorer, Ranker
from recmodels.serving.recommender import Recommender
from recmodels.training.run import train_checkpoint


def _stored(checkerboard, model: str, ranker: Ranker) -> Checkpoint:
    seen = checkerboard.interactions.filter(pl.col("split") != "test").select("user_id", "item_id", "split")
    nothing = pl.DataFrame()
    named = (checkerboard.users, checkerboard.items)
    return Checkpoint(model, resolve_config(model), 0, {}, ranker, nothing, {}, *named, seen)


@pytest.fixture(scope="module")
def rankers(checkerboard) -> dict[str, Ranker]:
    data = checkerboard.data()
    solved = {name: build_model(name, resolve_config(name), data, 0).solve((50, 0)) for name in ("itemknn", "userknn")}
    solved["ease"] = build_model("ease", resolve_config("ease"), data, 0).solve((10.0,))
    generator = torch.Generator().manual_seed(0)
    items = torch.randn(80, 4, generator=generator)
    items[:, 0] = torch.arange(80) % 2 * 2.0 - 1
    solved["bpr"] = EmbeddingScorer(torch.randn(60, 4, generator=generator), items)
    return solved


@pytest.fixture(scope="module")
def served(checkerboard, rankers) -> Recommender:
    titles = pl.DataFrame({"asin": ["B001", "B003", "B007"], "title": ["A drum", "", "A flute"]})
    return Recommender(_stored(checkerboard, "ease", rankers["ease"]), titles)


def _train_items(checkerboard, user: int) -> list[int]:
    users, items = checkerboard.pairs("train")
    return items[users == user].tolist()


def _asins(ids: list[int]) -> list[str]:
    return [f"B{item:03}" for item in ids]


def test_names_go_in_and_names_and_titles_come_out(served: Recommender) -> None:
    by_id = served.recommend([3, 7], 5)
    by_name = served.recommend_for(["R3", "R7"], 5)
    assert by_name["reviewer_id"].to_list() == ["R3"] * 5 + ["R7"] * 5
    assert by_name["asin"].to_list() == _asins(by_id["item_id"].to_list())
    assert by_name.select("rank", "score", "source").equals(by_id.select("rank", "score", "source"))
    everything = served.recommend_for("R3", 80, exclude_seen=False)
    titles = dict(everything.select("asin", "title").iter_rows())
    assert len(titles) == 80
    assert {asin: title for asin, title in titles.items() if title is not None} == {
        "B001": "A drum",
        "B003": "B003",
        "B007": "A flute",
    }


def test_an_unknown_name_is_answered_by_popularity_and_told(served: Recommender, checkerboard) -> None:
    found = served.recommend_for(["nobody", "R3", "somebody"], 2)
    assert found["reviewer_id"].to_list() == ["nobody"] * 2 + ["R3"] * 2 + ["somebody"] * 2
    assert (
        found["source"].to_list() == ["popularity, unknown user"] * 2 + ["model"] * 2 + ["popularity, unknown user"] * 2
    )
    counts = np.bincount(checkerboard.pairs("train")[1], minlength=80)
    assert found["score"].to_list()[:2] == np.sort(counts)[::-1][:2].tolist()


@pytest.mark.parametrize("model", ["ease", "itemknn", "userknn", "bpr"])
def test_filters_leave_the_ranking_of_what_remains(model: str, checkerboard, rankers) -> None:
    served = Recommender(_stored(checkerboard, model, rankers[model]))
    everything = served.recommend_for(["R3", "nobody"], 80)
    only, without = _asins(list(range(60))), ["B003", "B004"]
    found = served.recommend_for(["R3", "nobody"], 80, only=[*only, "not in the data"], without=without)
    allowed = sorted(set(only) - set(without))
    expected = everything.filter(pl.col("asin").is_in(allowed))
    assert found.height
    # Equal scores may stand in any order.
    keys = ["reviewer_id", "asin", "score", "source"]
    assert found.select(keys).sort(keys).equals(expected.select(keys).sort(keys))
    for _, rows in found.group_by("reviewer_id"):
        assert rows["rank"].to_list() == list(range(1, rows.height + 1))
        assert rows["score"].is_sorted(descending=True)


@pytest.mark.parametrize("model", ["ease", "itemknn"])
def test_the_history_of_a_user_gets_what_the_user_gets_from_a_linear_model(model: str, checkerboard, rankers) -> None:
    served = Recommender(_stored(checkerboard, model, rankers[model]))
    for user in (0, 7, 31):
        had = _train_items(checkerboard, user)
        mine = served.recommend_for([f"R{user}"], 20, exclude_seen=False)
        theirs = served.recommend_for_history(_asins(had + had[:1]), 20, exclude_seen=False)
        assert theirs.equals(mine.drop("reviewer_id"))
        new = served.recommend_for_history(_asins(had), 20)
        assert set(new["asin"]).isdisjoint(_asins(had))


def test_an_inner_product_folds_in_the_mean_of_the_items(checkerboard, rankers) -> None:
    served = Recommender(_stored(checkerboard, "bpr", rankers["bpr"]))
    vectors = rankers["bpr"].item_embeddings.numpy()
    scores = vectors[[5, 9, 11]].mean(axis=0) @ vectors.T
    scores[[5, 9, 11]] = -np.inf
    found = served.recommend_for_history(["B005", "B009", "B011"], 6)
    assert found["asin"].to_list() == _asins(np.argsort(-scores)[:6].tolist())
    np.testing.assert_allclose(found["score"], np.sort(scores)[::-1][:6], rtol=1e-5)
    assert set(found["source"]) == {"model"}


def test_the_mean_of_the_items_finds_what_the_users_own_vector_finds(checkerboard, tmp_path: Path) -> None:
    settings = {"embedding_size": 8, "training": {"epochs": 15, "learning_rate": 0.02}}
    facts = {"users": checkerboard.users, "items": checkerboard.items, "provenance": {}}
    config = resolve_config("lightgcn", settings)
    train_checkpoint(tmp_path / "run", "lightgcn", config, checkerboard.data(), seed=0, **facts)
    served = Recommender.load(str(tmp_path / "run"))
    users, items = checkerboard.pairs("test")

    def recall(answers: dict[int, list[str]]) -> float:
        return float(np.mean([asin in answers[user] for user, asin in zip(users, _asins(items), strict=True)]))

    own = {user: served.recommend_for([f"R{user}"], 20)["asin"].to_list() for user in range(60)}
    folded = {}
    for user in range(60):
        had = _train_items(checkerboard, user)
        seen = served.checkpoint.seen.filter(pl.col("user_id") == user)["item_id"].to_list()
        folded[user] = served.recommend_for_history(_asins(had), 20, without=_asins(seen))["asin"].to_list()
    assert recall(own) > 0.9
    assert recall(folded) > 0.95 * recall(own)


def test_a_calibrated_linear_model_is_folded_in_exactly(checkerboard, rankers) -> None:
    data = checkerboard.data()
    config = CalibrationConfig(shortlists=(20,), strengths=(0.5,))
    weights = calibrate(rankers["ease"], data, config).ranker.evidence[0].weights
    ranker = CalibratedRanker(rankers["ease"], data.train_matrix(), [Evidence("co_users", weights, 0.5)], 20)
    served = Recommender(_stored(checkerboard, "ease", ranker))
    plain = Recommender(_stored(checkerboard, "ease", rankers["ease"]))
    for user in (2, 9):
        asins = _asins(_train_items(checkerboard, user))
        mine = served.recommend_for([f"R{user}"], 10, exclude_seen=False).drop("reviewer_id")
        theirs = served.recommend_for_history(asins, 10, exclude_seen=False)
        assert theirs.drop("score").equals(mine.drop("score"))
        np.testing.assert_allclose(theirs["score"], mine["score"], rtol=1e-5)
        assert not theirs["score"].equals(plain.recommend_for_history(asins, 10, exclude_seen=False)["score"])


def test_who_had_nothing_gets_what_is_popular(served: Recommender) -> None:
    found = served.recommend_for_history([], 4)
    assert found.equals(
        served.recommend_for(["nobody"], 4).drop("reviewer_id").with_columns(source=pl.lit("popularity"))
    )


def test_similar_items_by_name_are_those_by_id(served: Recommender) -> None:
    by_id = served.similar_items([4, 9], 6)
    by_name = served.similar_to(["B004", "B009"], 6)
    assert by_name["asin"].to_list() == ["B004"] * 6 + ["B009"] * 6
    assert by_name["similar_asin"].to_list() == _asins(by_id["similar_item_id"].to_list())
    assert by_name["similarity"].equals(by_id["similarity"])
    assert served.similar_to(["B004"], 500).height == 79


def test_a_single_item_resembles_none() -> None:
    one = pl.DataFrame({"user_id": [0], "item_id": [0], "split": ["train"]})
    users, items = pl.DataFrame({"user_id": [0], "reviewer_id": ["R"]}), pl.DataFrame({"item_id": [0], "asin": ["B"]})
    ranker, nothing = EmbeddingScorer(torch.ones(1, 1), torch.ones(1, 1)), pl.DataFrame()
    served = Recommender(Checkpoint("bpr", resolve_config("bpr"), 0, {}, ranker, nothing, {}, users, items, one))
    assert served.similar_to("B", 5).is_empty()
    assert served.recommend_for("R", 5).is_empty()
    assert served.recommend_for("nobody", 5)["asin"].to_list() == ["B"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda served: served.recommend([0.7], 3), r"user_ids.*whole numbers.*0\.7"),
        (lambda served: served.recommend(["R3"], 3), r"user_ids.*whole numbers.*'R3'.*recommend_for"),
        (lambda served: served.recommend([True], 3), "user_ids.*whole numbers"),
        (lambda served: served.recommend([[0]], 3), "user_ids"),
        (lambda served: served.recommend([0], 2.5), "n: expected whole numbers, 1 or more"),
        (lambda served: served.similar_items([0.7], 3), r"item_ids.*whole numbers.*0\.7"),
        (lambda served: served.recommend_for([7], 3), "reviewer_ids: expected names.*found 7"),
        (lambda served: served.recommend_for(["R3"], 0), "n: expected 1 or more"),
        (lambda served: served.recommend_for(["R3"], only=["nothing"]), "only: expected asins.*'nothing'"),
        (lambda served: served.recommend_for(["R3"], only=[]), "only: expected asins"),
        (lambda served: served.recommend_for_history(["B01", "B002"]), r"history.*'B01'\. Did you mean B0"),
        (lambda served: served.similar_to(["x"]), "asins: expected asins that the model knows, found 'x'"),
    ],
)
def test_what_is_no_name_and_no_id_is_refused(served: Recommender, call, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call(served)


def test_a_model_that_needs_the_user_refuses_a_history(checkerboard, rankers) -> None:
    served = Recommender(_stored(checkerboard, "userknn", rankers["userknn"]))
    with pytest.raises(InputError, match="found one whose scores need the user among its own"):
        served.recommend_for_history(["B001"])


def test_the_folder_of_the_runs_is_enough_where_there_is_one(checkerboard, tmp_path: Path) -> None:
    facts = {"users": checkerboard.users, "items": checkerboard.items, "provenance": {}}
    parent = tmp_path / "ease" / "demo" / "0"
    with pytest.raises(MissingObject, match=r"manifest\.json"):
        Recommender.load(parent)
    for run in ("first", "second"):
        train_checkpoint(parent / run, "ease", resolve_config("ease"), checkerboard.data(), seed=0, **facts)
        if run == "first":
            for folder in (parent, parent.parent, parent.parent.parent):
                assert Recommender.load(str(folder)).recommend_for(["R3"], 4).height == 4
    with pytest.raises(InputError, match="expected the folder of one run, found those of 2: first, second"):
        Recommender.load(parent)
    with pytest.raises(InputError, match="those of 2: demo/0/first, demo/0/second"):
        Recommender.load(parent.parent.parent)
    assert Recommender.load(parent / "second").recommend_for(["R3"], 4).height == 4
