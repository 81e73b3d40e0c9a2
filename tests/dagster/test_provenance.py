"""What a result says of itself is what it was made from."""

from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from graph_runs import Run, failure_texts, stored_table
from markupsafe import escape

from assets.support.io_managers import recorded_path
from assets.support.lineage import latest_materialization
from assets.support.partitions import entry_of
from assets.support.resources import DataRoot
from pipelines.jobs import assets_of_models
from recmodels.checkpoints.store import load_checkpoint
from recmodels.data.split import split_digest
from recmodels.profiles.config import ProfileConfig
from recmodels.profiles.write import item_task
from recmodels.reporting.examples import evidence, example_items

READ = ("items", "item_ids", "users", "reviews", "rejects", "interactions")
SEEDED = {"dataset": "demo", "seed": "0"}

pytestmark = pytest.mark.slow


def _split_seed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, seed: int) -> None:
    path = tmp_path / "split.toml"
    path.write_text(f"demo.sources.amazon2014.split_seed = {seed}\ndemo.models.bpr.training.epochs = 2\n")
    monkeypatch.setenv("RECMODELS_CATALOGUE", str(path))


def _recorded(instance: dg.DagsterInstance, asset: str, partition: str, entry: str) -> str:
    record = latest_materialization(instance, dg.AssetKey(asset.split("/")), partition)
    assert record
    return str(record.metadata[entry].value)


def test_the_digest_of_the_split_is_that_of_the_split_that_was_read(
    prepared_run: Run,
    data_root: DataRoot,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    key = dg.MultiPartitionKey(SEEDED)
    digests: list[str] = []
    for seed in (1, 0, 1):
        _split_seed(monkeypatch, tmp_path, seed)
        assert prepared_run("prepare", assets=[dg.AssetKey(name) for name in READ]).success
        digests.append(split_digest(stored_table(instance, data_root, "interactions", "demo")))
        assert {_recorded(instance, name, "demo", "split_digest") for name in READ} == {digests[-1]}
        trained = prepared_run("train", SEEDED, assets=assets_of_models(["bpr"]))
        assert trained.success, failure_texts(trained)
        checkpoint = load_checkpoint(recorded_path(instance, data_root, dg.AssetKey(["checkpoint", "bpr"]), key))
        assert checkpoint.provenance["split_digest"] == digests[-1]
        for name in ("checkpoint/bpr", "metrics/bpr", "recommendations/bpr"):
            assert _recorded(instance, name, key, "split_digest") == digests[-1]
    assert digests[0] == digests[2] != digests[1]


def test_a_checkpoint_of_another_split_is_not_evaluated(
    prepared_run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert prepared_run("train", SEEDED, assets=[dg.AssetKey(["checkpoint", "bpr"])]).success
    _split_seed(monkeypatch, tmp_path, 1)
    assert prepared_run("prepare", assets=[dg.AssetKey(name) for name in READ]).success
    chosen = [dg.AssetKey([kind, "bpr"]) for kind in ("metrics", "user_metrics")]
    (text,) = failure_texts(prepared_run("train", SEEDED, assets=chosen))
    assert text.startswith("checkpoint of bpr: expected one that was trained on the split ")
    assert text.endswith("Materialise checkpoint/bpr again.")


def test_seeds_of_other_settings_stand_in_rows_of_their_own(
    prepared_run: Run, data_root: DataRoot, instance: dg.DagsterInstance
) -> None:
    for seed, epochs in (("0", 2), ("1", 2), ("2", 1)):
        config = {"checkpoint__bpr": {"config": {"overrides": {"training": {"epochs": epochs}}}}}
        partition = {"dataset": "demo", "seed": seed}
        result = prepared_run("train", partition, assets=assets_of_models(["bpr"]), config=config)
        assert result.success, failure_texts(result)
    assert prepared_run("evaluate", assets=[dg.AssetKey("leaderboard")]).success
    board = stored_table(instance, data_root, "leaderboard", "demo").filter(
        pl.col("model").str.starts_with("bpr") & (pl.col("metric") == "recall") & (pl.col("k") == 20)
    )
    assert sorted(board["n_seeds"]) == [1, 2]
    assert board["model"].str.contains(r"^bpr \([0-9a-f]{6}\)$").all()


def test_the_report_shows_profiles_beside_what_they_were_written_from(
    prepared_run: Run, data_root: DataRoot, instance: dg.DagsterInstance
) -> None:
    settings = {"item_reviews": "always"}
    results = [
        prepared_run(
            "prepare",
            assets=[dg.AssetKey("item_profiles")],
            config={"item_profiles": {"config": {"settings": settings}}},
        ),
        prepared_run("train", SEEDED, assets=assets_of_models(["bpr"])),
        prepared_run("evaluate"),
    ]
    assert all(result.success for result in results), [failure_texts(result) for result in results]
    page = recorded_path(instance, data_root, dg.AssetKey("report"), "demo").read_text()
    items, reviews, interactions = (
        stored_table(instance, data_root, name, "demo") for name in ("items", "reviews", "interactions")
    )

    def lines(config: ProfileConfig, item: int) -> set[str]:
        task = item_task(items, reviews, interactions, domain=entry_of("demo").domain, config=config)
        return {str(escape(line)) for line in evidence(task.explain(item).inputs)}

    shown = {item: lines(ProfileConfig(**settings), item) for item in example_items(interactions)}
    only_so = {line for item, of_it in shown.items() for line in of_it - lines(ProfileConfig(), item)}
    assert only_so
    assert all(line in page for line in only_so)


@pytest.mark.parametrize("asset", ["leaderboard", "report"])
def test_with_nothing_to_show_one_line_says_so_and_nothing_is_tried_again(prepared_run: Run, asset: str) -> None:
    result = prepared_run("evaluate", assets=[dg.AssetKey(asset)])
    (text,) = failure_texts(result)
    assert "\n" not in text
    assert "leaderboard" in text
    assert "aterialise" in text
    assert not [event for event in result.all_events if event.event_type == dg.DagsterEventType.STEP_UP_FOR_RETRY]
