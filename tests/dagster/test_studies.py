"""A study is made by the command line or by a backfill, ends the same, and what was finished is never made twice."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from dagster._core.definitions.selector import PartitionRangeSelector, PartitionsByAssetSelector, PartitionsSelector
from dagster._core.execution.backfill import PartitionBackfill
from dagster._core.test_utils import create_test_daemon_workspace_context
from dagster._core.workspace.load_target import ModuleTarget
from dagster._daemon.backfill import execute_backfill_iteration
from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import QueuedRunCoordinatorDaemon

from assets.studies import STUDIES, row_keys, study_key, table_of
from assets.support.io_managers import read_table
from assets.support.resources import DataRoot
from assets.support.stage import JOB
from assets.training import TRAINED, VARIANTS, checkpoint_asset
from pipelines.definitions import build_definitions
from recmodels.models.spec import ModelSpec
from recmodels.tuning.result import tuned_settings

STUDY = "table1"
ROWS = ["freedom", "freedom-random-doubled", "freedom-random-ten", "freedom-transport"]
GRAPH = build_definitions().resolve_asset_graph()
SECONDS = 900.0


@pytest.fixture
def root(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data root with the prepared demo and its instance, where this process and those it starts look for them."""
    shutil.copytree(prepared, tmp_path / "root")
    monkeypatch.setenv("RECMODELS_DATA", str(tmp_path / "root" / "data"))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "root" / "home"))
    return tmp_path / "root"


def command(*arguments: str) -> subprocess.Popen[str]:
    """Start `recmodels study` on the demo with one seed."""
    line = [sys.executable, "-m", "pipelines.cli", "study", STUDY, "--seeds", "0", *arguments]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ))


def ended(process: subprocess.Popen[str]) -> str:
    """Return what a command printed, once it has ended well."""
    output, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, output + errors
    return output


def exported(into: Path, **env: str) -> dict[str, dict[str, float]]:
    """Return the test figures by row that `recmodels results` takes out of the graph."""
    line = [sys.executable, "-m", "pipelines.cli", "results", "--into", str(into)]
    subprocess.run(line, check=True, capture_output=True, env={**os.environ, **env})
    return {row["variant"]: row["test"] for row in json.loads(into.read_text())["rows"]}


def made(instance: dg.DagsterInstance) -> dict[str, int]:
    """Return how often each asset of a row, and the study, was made."""
    keys = [*row_keys(STUDIES[STUDY]), study_key(STUDY)]
    found = {key.to_user_string(): instance.fetch_materializations(key, limit=10).records for key in keys}
    return {name: len(records) for name, records in found.items() if records}


def table(instance: dg.DagsterInstance) -> pl.DataFrame:
    """Return the stored table of the study; how long trainings took differs from run to run."""
    return read_table(instance, DataRoot(), study_key(STUDY), "demo").drop("seconds")


def backfill(instance: dg.DagsterInstance) -> None:
    """Launch a backfill of the study with all that is above it, as the user interface does, and wait for its end."""
    above = sorted(GRAPH.get_ancestor_asset_keys(study_key(STUDY)))
    partitions = {"train": "demo|0", "study": "demo"}
    selected: list[PartitionsByAssetSelector] = []
    for key in [*above, study_key(STUDY)]:
        if partition := partitions.get(GRAPH.get(key).tags[JOB]):
            only = PartitionsSelector(ranges=[PartitionRangeSelector(start=partition, end=partition)])
            selected.append(PartitionsByAssetSelector(asset_key=key, partitions=only))
    target = ModuleTarget(
        module_name="pipelines.definitions", attribute="defs", working_directory=None, location_name="here"
    )
    with create_test_daemon_workspace_context(target, instance) as workspace:
        remote = workspace.create_request_context().asset_graph
        instance.add_backfill(
            PartitionBackfill.from_partitions_by_assets(
                "one", remote, time.time(), {}, instance, selected, None, None, None
            )
        )
        coordinator = QueuedRunCoordinatorDaemon(interval_seconds=1)
        deadline = time.monotonic() + SECONDS
        while not (found := instance.get_backfill("one")) or not found.status.value.startswith(("COMPLETED", "FAILED")):
            assert time.monotonic() < deadline, instance.get_runs()
            list(execute_backfill_iteration(workspace, logging.getLogger("backfill")))
            list(coordinator.run_iteration(workspace))
            time.sleep(1)
        assert found.status.value == "COMPLETED_SUCCESS", found.error


@pytest.mark.slow
def test_the_command_and_a_backfill_give_the_same_table_and_make_nothing_twice(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(root, tmp_path / "other")
    told: dict[str, Any] = json.loads(ended(command("--json")))
    missing = json.loads(ended(command("--dry-run", "--json")))
    ended(command())
    with dg.DagsterInstance.get() as instance:
        assert set(made(instance).values()) == {1}
        by_command = table(instance)
        honest = STUDIES["figure3"].model_copy(update={"name": STUDY, "rows": ROWS, "panels": []})
        of_valid = table_of(instance, DataRoot(), honest, "demo")
    assert missing == []
    # A study on validation rows has what the trainings recorded, and nothing of the test rows.
    of_training = {row["variant"]: row["valid"]["recall@20"] for row in told["rows"]}
    assert dict(of_valid.figures.select("variant", "mean").iter_rows()) == of_training
    assert all(not run.test for runs in of_valid.runs.values() for run in runs.values())
    assert [row["variant"] for row in told["figures"]] == [row for row in ROWS for _ in range(2)]
    assert {test["first"] for test in told["tests"]} == set(ROWS[1:])
    assert all(row["split_digest"] and row["data_versions"] and row["commit"] != "None" for row in told["rows"])
    # Results are those of the data sets that a study is about.
    mine = tmp_path / "mine.toml"
    mine.write_text(f"[studies.mine]\ntitle = 'Mine'\nabout = ''\ndata_sets = ['demo']\nseeds = [0]\nrows = {ROWS}\n")
    assert exported(tmp_path / "docs" / "packaged.json") == {}
    figures = exported(tmp_path / "docs" / "mine.json", RECMODELS_STUDIES=str(mine))
    assert figures == {row["variant"]: row["test"] for row in told["rows"]}

    monkeypatch.setenv("RECMODELS_DATA", str(tmp_path / "other" / "data"))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "other" / "home"))
    with dg.DagsterInstance.get() as instance:
        backfill(instance)
        assert set(made(instance).values()) == {1}
        assert table(instance).equals(by_command)


@pytest.mark.slow
def test_killed_in_the_middle_it_goes_on_and_nothing_finished_runs_twice(root: Path) -> None:
    missing = json.loads(ended(command("--dry-run", "--json")))
    assert {f"checkpoint/{row}" for row in ROWS} <= {name for row in missing for name in row["assets"]}
    with dg.DagsterInstance.get() as instance:
        for wanted in (1, 3):
            process = command()
            deadline = time.monotonic() + SECONDS
            while process.poll() is None and sum(name.startswith("checkpoint") for name in made(instance)) < wanted:
                assert time.monotonic() < deadline
                time.sleep(0.1)
            process.send_signal(signal.SIGKILL)
            process.communicate()
            assert process.returncode == -signal.SIGKILL, "it ended before it could be killed"
        finished = made(instance)
        assert finished
        assert f"study/{STUDY}" not in finished
        left = {name for row in json.loads(ended(command("--dry-run", "--json"))) for name in row["assets"]}
        assert not left & finished.keys()
        ended(command())
        assert set(made(instance).values()) == {1}
        assert len(made(instance)) == len([*row_keys(STUDIES[STUDY])]) + 1


def test_figure_3_is_made_of_checkpoints_alone() -> None:
    parents = GRAPH.get(study_key("figure3")).parent_keys
    assert {key.path[0] for key in parents} == {"checkpoint"}
    assert not GRAPH.get_ancestor_asset_keys(study_key("figure3")) & {
        key for key in GRAPH.get_all_asset_keys() if key.path[0] in ("metrics", "user_metrics")
    }


def test_every_variant_of_a_study_is_one_of_the_graph() -> None:
    for study in STUDIES.values():
        assert set(row_keys(study)) <= GRAPH.get_all_asset_keys()
        assert set(row_keys(study)) == GRAPH.get(study_key(study.name)).parent_keys


def test_nothing_of_variants_and_studies_is_made_unasked(
    prepared_run: Callable[..., dg.ExecuteInProcessResult], data_root: DataRoot, instance: dg.DagsterInstance
) -> None:
    from assets.support.staleness import survey

    found = survey(instance, build_definitions({"data_root": data_root}).resolve_asset_graph())
    unasked = {key for key in found.statuses if GRAPH.get(key).group_name in ("variants", "studies")}
    assert len(unasked) > len(VARIANTS)
    assert not [key for key in unasked if found.due(key)]


def test_tuned_settings_come_from_the_search_of_the_model() -> None:
    tries = pl.DataFrame({"settings": ["{}", '{"n_layers": 4, "training": {"epochs": 7}}'], "chosen": [False, True]})
    assert tuned_settings(tries) == {"n_layers": 4, "training": {"epochs": 7}}
    base = TRAINED["lightgcn"]
    spec = ModelSpec("best", "Best", base.reference, base.module, variant_of="lightgcn", tuned=True)
    keys = checkpoint_asset(spec).keys_by_input_name
    assert keys["tuning"] == dg.AssetKey(["tuning", "lightgcn"])
