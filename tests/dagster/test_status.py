"""The status tells what is up to date, what is not, and why."""

import dagster as dg
import polars as pl
import pytest
from graph_runs import Run, failure_texts, stored_table

from assets.support.resources import DataRoot
from pipelines.definitions import build_definitions
from recmodels.raw.demo import write_demo_dump

READ = [dg.AssetKey(name) for name in ("raw_dumps", "items", "item_ids", "users", "reviews", "rejects", "interactions")]


LATER = ("training", "evaluation", "serving", "report", "variants", "tuning", "studies")


def status(data_root: DataRoot, instance: dg.DagsterInstance) -> tuple[pl.DataFrame, str]:
    job = build_definitions({"data_root": data_root}).resolve_job_def("status")
    result = job.execute_in_process(instance=instance, raise_on_error=False)
    assert result.success, failure_texts(result)
    (event,) = result.get_asset_materialization_events()
    table = stored_table(instance, data_root, "pipeline_status", None)
    return table, str(event.materialization.metadata["summary"].value)


def states(table: pl.DataFrame) -> dict[str, str]:
    rows = table.filter((pl.col("dataset") == "demo") & ~pl.col("stage").is_in(LATER))
    return dict(rows.select("asset", "state").iter_rows())


def why(table: pl.DataFrame, asset: str) -> str:
    return table.filter((pl.col("dataset") == "demo") & (pl.col("asset") == asset))["why"].item()


@pytest.mark.slow
def test_a_prepared_data_set_is_up_to_date_and_its_checkpoints_are_missing(
    prepared_run: Run, data_root: DataRoot, instance: dg.DagsterInstance
) -> None:
    table, summary = status(data_root, instance)
    assert set(states(table).values()) == {"up_to_date"}
    assert table.filter(pl.col("stage") == "training")["state"].unique().to_list() == ["missing"]
    assert table.filter(pl.col("dataset") != "demo")["materialized_at"].null_count() == (
        table.filter(pl.col("dataset") != "demo").height
    )
    assert "| baby | nothing was materialised yet |" in summary


@pytest.mark.slow
def test_a_changed_raw_file_is_named_as_the_cause(
    prepared_run: Run, data_root: DataRoot, instance: dg.DagsterInstance
) -> None:
    folder = data_root.raw("demo")
    write_demo_dump(folder, seed=1)
    config = {"raw_dumps": {"config": {"raw_dir": str(folder)}}}
    assert prepared_run("prepare", assets=READ, config=config).success
    table, summary = status(data_root, instance)
    found = states(table)
    assert {key.to_user_string(): found[key.to_user_string()] for key in READ} == {
        key.to_user_string(): "up_to_date" for key in READ
    }
    assert found["item_profiles"] == "stale"
    assert "interactions" in why(table, "item_profiles")
    assert found["item_text_embeddings"] == "stale"
    assert "item_profiles is stale" in why(table, "item_text_embeddings")
    assert "stale: " in summary


@pytest.mark.slow
def test_a_failed_run_is_told_with_its_reason(
    prepared_run: Run, data_root: DataRoot, instance: dg.DagsterInstance
) -> None:
    config = {"item_profiles": {"config": {"backend": "<script>"}}}
    assert not prepared_run("prepare", assets=[dg.AssetKey("item_profiles")], config=config).success
    table, summary = status(data_root, instance)
    assert states(table)["item_profiles"] == "failed"
    assert "expected" in why(table, "item_profiles")
    # What was made before the failure is intact, and so is what was made from it.
    assert states(table)["user_profiles"] == "up_to_date"
    assert "<script>" not in summary
