"""The search for a model's settings in the graph: only where somebody asked for it, resumed, and blind to test rows."""

import json

import dagster as dg
import polars as pl
import pytest
from graph_runs import Run, data_versions, failure_texts, stored_table

from assets.support.lineage import latest_materialization, recorded_json
from assets.support.resources import DataRoot
from assets.support.staleness import survey
from assets.training import tuning_key
from pipelines.definitions import build_definitions
from recmodels.models.inputs import TrainingData
from recmodels.models.registry import resolve_config
from recmodels.tuning import tune as tune_module
from recmodels.tuning.result import tuned_settings
from recmodels.tuning.tune import tune

KEY = tuning_key("bpr")

pytestmark = pytest.mark.slow


def _searched(run: Run, **overrides: object) -> dg.ExecuteInProcessResult:
    result = run("tune", assets=[KEY], config={"tuning__bpr": {"config": {"overrides": overrides}}})
    assert result.success, failure_texts(result)
    return result


def test_a_search_is_stored_shown_and_goes_on_with_a_larger_budget(
    prepared_run: Run, data_root: DataRoot, instance: dg.DagsterInstance
) -> None:
    first = data_versions(_searched(prepared_run, trials=2, epochs=2))
    before = stored_table(instance, data_root, "tuning/bpr", "demo")
    assert data_versions(_searched(prepared_run, trials=2, epochs=2)) == first
    _searched(prepared_run, trials=4, epochs=2)
    after = stored_table(instance, data_root, "tuning/bpr", "demo")
    assert after.height == 4
    # The seconds too: nothing was trained a second time.
    assert after.head(2).drop("chosen").equals(before.drop("chosen"))
    record = latest_materialization(instance, KEY, "demo")
    assert record is not None
    assert "data:image/png" in str(record.metadata["history"].value)
    best = recorded_json(record, "best")
    assert best == tuned_settings(after)
    assert resolve_config("bpr", best).training.epochs == 2
    assert record.metadata["valid_recall@20"].value == after.filter("chosen")["valid_recall"].item()
    kept = list((data_root.root / "tuning").rglob("tries.jsonl"))
    assert [path.parts[-4:-2] for path in kept] == [("demo", "bpr")]


def test_nobody_makes_it_who_was_not_asked_and_what_decides_makes_it_stale(
    prepared_run: Run,
    data_root: DataRoot,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    graph = build_definitions({"data_root": data_root}).resolve_asset_graph()
    assert survey(instance, graph).ready(KEY) == {}
    assert KEY not in build_definitions().resolve_job_def("prepare").asset_layer.executable_asset_keys
    _searched(prepared_run, trials=2, epochs=1)
    assert survey(instance, graph).statuses[KEY]["demo"].state == "up_to_date"
    path = data_root.root / "catalogue.toml"
    path.write_text("demo.tuning.seed = 7\ndemo.models.bpr.embedding_size = 32\n")
    monkeypatch.setenv("RECMODELS_CATALOGUE", str(path))
    found = survey(instance, graph).statuses[KEY]["demo"].changes
    assert {"embedding_size 64 -> 32", "seed 0 -> 7"} <= set(found)


def test_no_test_row_reaches_the_search(
    prepared_run: Run, data_root: DataRoot, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[TrainingData] = []

    def spied(model: str, configure: tune_module.Configure, data: TrainingData, *rest: object, **options: object):
        seen.append(data)
        return tune(model, configure, data, *rest, **options)

    monkeypatch.setattr(tune_module, "tune", spied)
    _searched(prepared_run, trials=1, epochs=1)
    rows = stored_table(instance, data_root, "interactions", "demo")
    (data,) = seen
    given = pl.DataFrame(
        {
            "user_id": [*data.train_users, *data.valid_users],
            "item_id": [*data.train_items, *data.valid_items],
        },
        schema={"user_id": pl.Int32, "item_id": pl.Int32},
    )
    assert given.height == rows.filter(pl.col("split") != "test").height
    assert given.join(rows.filter(pl.col("split") == "test"), on=["user_id", "item_id"]).is_empty()


def test_a_setting_that_is_none_is_refused_in_one_line(prepared_run: Run) -> None:
    config = {"tuning__bpr": {"config": {"overrides": {"trails": 3}}}}
    (text,) = failure_texts(prepared_run("tune", assets=[KEY], config=config))
    assert text.startswith("tuning settings of demo: expected")
    assert "Did you mean trials?" in text
    assert json.dumps(text).count("\\n") == 0
