"""What the report is given: records of trainings and of the raw tables, and results where there are any."""

import re
import statistics
from datetime import UTC, datetime
from html import unescape

import dagster as dg
import pytest
from graph_runs import Run, failure_texts, stored_table

from assets.support.io_managers import recorded_path
from assets.support.lineage import latest_materialization
from assets.support.resources import DataRoot
from pipelines.jobs import assets_of_models
from recmodels.io.commit import current_commit
from recmodels.io.devices import device_name

pytestmark = pytest.mark.slow

FUNNEL = [{"step": "lines read", "rows": 1000}, {"step": "kept & split", "rows": 419}]


def test_it_tells_trainings_differences_groups_and_the_funnel_and_made_again_it_is_the_same(
    prepared_run: Run, data_root: DataRoot, instance: dg.DagsterInstance
) -> None:
    record = latest_materialization(instance, dg.AssetKey("interactions"), "demo")
    assert record
    metadata = {**record.metadata, "funnel": dg.MetadataValue.json(FUNNEL)}
    again = dg.AssetMaterialization("interactions", partition="demo", metadata=metadata, tags=record.tags)
    instance.report_runless_asset_event(again)
    config = {"checkpoint__bpr": {"config": {"overrides": {"embedding_size": 8, "training": {"epochs": 2}}}}}
    results = [
        prepared_run("train", {"dataset": "demo", "seed": seed}, assets=assets_of_models(["bpr"]), config=config)
        for seed in ("0", "1")
    ]
    results.append(prepared_run("evaluate"))
    assert all(result.success for result in results), [failure_texts(result) for result in results]
    page = recorded_path(instance, data_root, dg.AssetKey("report"), "demo").read_text()

    def cells(section: str, first: str) -> list[str]:
        part = page[page.index(f'<h2 id="{section}"') :]
        rows = [re.findall(r"(?s)<t[dh].*?</t[dh]>", row) for row in re.findall(r"(?s)<tr>.*?</tr>", part)]
        texts = [[unescape(re.sub("<[^>]+>", "", cell)) for cell in row] for row in rows]
        return next(row for row in texts if row[0] == first)

    told = cells("training", "bpr")
    checkpoints = [
        latest_materialization(instance, dg.AssetKey(["checkpoint", "bpr"]), f"demo|{seed}") for seed in (0, 1)
    ]
    kept = ", ".join(f"{record.metadata['best_epoch'].value} of 2" for record in checkpoints if record)
    assert told[:3] == ["bpr", "0, 1", kept]
    assert {"embedding_size = 8", "training.epochs = 2"} <= set(told[4].split(", "))
    assert "loss" not in told[4]
    assert f"trained on {device_name('auto')}" in page
    assert current_commit()[:12] in page  # empty without a checkout

    assert cells("data", "kept & split") == ["kept & split", "419", "41.9%"]
    users = {seed: stored_table(instance, data_root, "user_metrics/bpr", f"demo|{seed}") for seed in (0, 1)}
    low = [statistics.fmean(frame.filter(frame["n_train"] < 5)["recall@20"]) for frame in users.values()]
    assert cells("groups", "bpr")[1] == f"{statistics.fmean(low):.4f}"
    board = stored_table(instance, data_root, "leaderboard", "demo")["model"].unique(maintain_order=True).to_list()
    assert [cells("differences", name)[1] for name in board[:-1]] == board[1:]
    inputs = ("leaderboard", "interactions", "metrics/bpr")
    newest = max(
        instance.fetch_materializations(dg.AssetKey(name.split("/")), limit=1).records[0].timestamp for name in inputs
    )
    assert f"{datetime.fromtimestamp(newest, UTC):%Y-%m-%d %H:%M} UTC" in page

    before = latest_materialization(instance, dg.AssetKey("report"), "demo")
    assert prepared_run("evaluate", assets=[dg.AssetKey("report")]).success
    after = latest_materialization(instance, dg.AssetKey("report"), "demo")
    assert before
    assert after
    assert after.tags == before.tags
    assert recorded_path(instance, data_root, dg.AssetKey("report"), "demo").read_text() == page
