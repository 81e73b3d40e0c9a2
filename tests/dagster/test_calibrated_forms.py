"""The calibrated form of a model goes through the graph as a model does, and only where somebody asked for it."""

from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from graph_runs import Run, failure_texts, stored_table

from assets.serving import open_recommender
from assets.support.io_managers import recorded_path
from assets.support.resources import DataRoot
from assets.support.staleness import Survey, survey
from pipelines.definitions import build_definitions
from pipelines.jobs import assets_of_models
from recmodels.checkpoints.store import load_checkpoint
from recmodels.ranking.calibrated import CalibratedRanker
from recmodels.serving.recommender import Recommender

SEEDED = {"dataset": "demo", "seed": "0"}
KEY = dg.MultiPartitionKey(SEEDED)
FORM = "calibrated/bpr"
MADE_OF_IT = [FORM, f"metrics/{FORM}", f"user_metrics/{FORM}", f"recommendations/{FORM}"]

pytestmark = pytest.mark.slow


def _survey(instance: dg.DagsterInstance, data_root: DataRoot) -> Survey:
    return survey(instance, build_definitions({"data_root": data_root}).resolve_asset_graph())


def _ready(found: Survey) -> set[str]:
    return {key.to_user_string() for key in found.statuses if KEY in found.ready(key)}


def test_it_is_ranked_reported_and_served(prepared_run: Run, data_root: DataRoot, instance: dg.DagsterInstance) -> None:
    trained = prepared_run("train", SEEDED, assets=assets_of_models(["bpr", FORM]))
    assert trained.success, failure_texts(trained)
    assert prepared_run("evaluate").success
    board = stored_table(instance, data_root, "leaderboard", "demo")
    recall = dict(
        board.filter((pl.col("metric") == "recall") & (pl.col("k") == 20)).select("model", "mean").iter_rows()
    )
    assert {"bpr", FORM} <= recall.keys()
    assert FORM in recorded_path(instance, data_root, dg.AssetKey("report"), "demo").read_text()
    path = recorded_path(instance, data_root, dg.AssetKey(FORM.split("/")), KEY)
    stored = load_checkpoint(path)
    assert isinstance(stored.ranker, CalibratedRanker)
    assert stored.calibration is not None
    assert (stored.calibration.select(pl.col("^strength_.*$")).sum_horizontal() == 0).any()
    table = stored_table(instance, data_root, f"recommendations/{FORM}", KEY)
    users = table["user_id"].unique().sort().to_numpy()
    assert Recommender.load(path).recommend(users, 20).equals(table)
    opened = open_recommender("demo", FORM, 0, instance=instance, data_root=data_root)
    name = str(stored.users["reviewer_id"][int(users[0])])
    expected = table.filter(pl.col("user_id") == users[0])["score"].to_list()
    assert opened.recommend_for(name, 20)["score"].to_list() == pytest.approx(expected, rel=1e-5)
    assert opened.items["title"].count() > 0


def test_nobody_makes_it_who_was_not_asked_and_its_settings_make_it_alone_stale(
    prepared_run: Run,
    data_root: DataRoot,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    assert prepared_run("train", SEEDED, assets=assets_of_models(["bpr"])).success
    assert _ready(_survey(instance, data_root)) == set()
    assert prepared_run("train", SEEDED, assets=[dg.AssetKey(FORM.split("/"))]).success
    assert _ready(_survey(instance, data_root)) == set(MADE_OF_IT[1:])
    path = tmp_path / "calibration.toml"
    path.write_text("demo.calibration.shrinkage = 3.0\ndemo.models.bpr.training.epochs = 3\n")
    monkeypatch.setenv("RECMODELS_CATALOGUE", str(path))
    found = _survey(instance, data_root)
    status = found.statuses[dg.AssetKey(FORM.split("/"))][KEY]
    assert status.changes == ["shrinkage 0.0 -> 3.0"]
    assert FORM in _ready(found)
    assert not found.statuses[dg.AssetKey(["checkpoint", "bpr"])][KEY].is_stale


def test_a_setting_that_is_none_is_refused_in_one_line(prepared_run: Run) -> None:
    assert prepared_run("train", SEEDED, assets=[dg.AssetKey(["checkpoint", "bpr"])]).success
    config = {"calibrated__bpr": {"config": {"overrides": {"strenghts": [1.0]}}}}
    (text,) = failure_texts(prepared_run("train", SEEDED, assets=[dg.AssetKey(FORM.split("/"))], config=config))
    assert text.startswith("calibration settings of demo: expected")
    assert "strenghts" in text
