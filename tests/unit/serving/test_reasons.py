"""Why an item may have been recommended, held against what the tables say."""

import polars as pl
import pytest
from explored import COLD, co_users, rankers, tables

from recmodels.checkpoints.store import Checkpoint
from recmodels.models.registry import resolve_config
from recmodels.serving.data_set import DataSet
from recmodels.serving.reasons import reasons_for
from recmodels.serving.recommender import Recommender

TABLES = tables()
RANKERS = rankers()
KNOWN = DataSet(
    *(TABLES[name] for name in ("interactions", "users", "items", "reviews")),
    graphs={"text": TABLES["item_text_knn"], "image": TABLES["item_image_knn"]},
)
MANY = 100


def _served(model: str) -> Recommender:
    seen = TABLES["interactions"].filter(pl.col("split") != "test").select("user_id", "item_id", "split")
    named = (TABLES["users"], TABLES["item_ids"])
    config = resolve_config(model.rpartition("/")[2])
    return Recommender(Checkpoint(model, config, 0, {}, RANKERS[model], pl.DataFrame(), {}, *named, seen))


def _had() -> dict[str, set[str]]:
    train = TABLES["interactions"].filter(pl.col("split") == "train")
    had: dict[str, set[str]] = {}
    for user, item in train.select("user_id", "item_id").iter_rows():
        had.setdefault(TABLES["users"]["reviewer_id"][user], set()).add(f"B{item}")
    return had


def test_the_summands_of_a_score_add_up_to_it() -> None:
    served = _served("ease")
    best = served.recommend_for("R2", 5)
    found = reasons_for(served, KNOWN, "R2", best["asin"].to_list(), most=MANY).filter(kind="model")
    assert set(found["because_asin"]) <= _had()["R2"]
    for asin, score in best.select("asin", "score").iter_rows():
        assert found.filter(asin=asin)["weight"].sum() == pytest.approx(score, rel=1e-5)


def test_embeddings_claim_no_summands_and_a_calibrated_form_tells_its_own_evidence() -> None:
    assert not set(reasons_for(_served("bpr"), KNOWN, "R2", ["B8"])["kind"]) & {"model"}
    found = reasons_for(_served("calibrated/bpr"), KNOWN, "R2", ["B8"], most=MANY)
    told = found.filter(kind="calibration: co_users")
    own = sorted(_had()["R2"])
    matrix = co_users(RANKERS["calibrated/bpr"].history).toarray()
    expected = {because: matrix[int(because[1:]), 8] / len(own) ** 0.5 for because in own}
    assert dict(told.select("because_asin", "weight").iter_rows()) == pytest.approx(
        {because: weight for because, weight in expected.items() if weight}, rel=1e-5
    )
    assert "model" not in found["kind"]


def test_co_buyers_are_counted_without_the_user_and_in_training_alone() -> None:
    had = _had()
    asins = ["B0", "B8", "B1"]
    found = reasons_for(_served("bpr"), KNOWN, "R2", asins, most=MANY).filter(kind="co-buyers")
    expected = {
        (asin, because): users
        for asin in asins
        for because in had["R2"] - {asin}
        if (users := sum({asin, because} <= of for user, of in had.items() if user != "R2"))
    }
    assert {(row["asin"], row["because_asin"]): row["users"] for row in found.iter_rows(named=True)} == expected
    assert expected


def test_the_strongest_of_each_kind_come_first_and_items_in_the_order_asked() -> None:
    asins = ["B8", "B0"]
    everything = reasons_for(_served("ease"), KNOWN, "R2", asins, most=MANY)
    few = reasons_for(_served("ease"), KNOWN, "R2", asins, most=2)
    assert few["asin"].unique(maintain_order=True).to_list() == asins
    for asin in asins:
        for kind in few.filter(asin=asin)["kind"].unique():
            of_kind = everything.filter(asin=asin, kind=kind)
            strengths = of_kind.select(pl.coalesce("weight", "users").abs()).to_series().sort(descending=True)
            kept = few.filter(asin=asin, kind=kind).select(pl.coalesce("weight", "users").abs()).to_series()
            assert kept.to_list() == strengths[:2].to_list()
    assert {"model", "graph: text", "co-buyers"} <= set(few["kind"])


@pytest.mark.parametrize("user", [COLD, "a stranger"])
def test_nothing_speaks_for_what_somebody_without_rows_is_shown(user: str) -> None:
    assert reasons_for(_served("ease"), KNOWN, user, ["B8"]).is_empty()


def test_items_that_the_model_does_not_know_have_no_reasons() -> None:
    assert set(reasons_for(_served("ease"), KNOWN, "R2", ["gone", "B8"])["asin"]) == {"B8"}
    assert reasons_for(_served("ease"), KNOWN, "R2", ["gone"]).is_empty()
