"""Retention deletes what newer checkpoints replaced long ago, and never what a current result rests on."""

import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import dataframely as dy
import polars as pl
import pytest
from graph_runs import Run
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from assets.support.io_managers import (
    DirectoryIOManager,
    ParquetIOManager,
    recorded_path,
    staging_directory,
    stored_folder,
)
from assets.support.resources import DataRoot
from pipelines.definitions import build_definitions
from pipelines.retention import retention
from recmodels.errors import InputError
from recmodels.io.retention import (
    StoredVersion,
    finish_removals,
    stored_versions,
    superseded_versions,
)
from recmodels.schemas import tables as schemas

DATASETS = dg.StaticPartitionsDefinition(["one", "two"])
SEEDED = dg.MultiPartitionsDefinition({"dataset": DATASETS, "seed": dg.StaticPartitionsDefinition(["0", "1"])})
KEY = dg.AssetKey(["checkpoint", "small"])
PARTITION = dg.MultiPartitionKey({"dataset": "one", "seed": "1"})
NOW = datetime(2026, 5, 1, tzinfo=UTC)


def _train(root: DataRoot, instance: dg.DagsterInstance, version: str, *, age_days: float) -> Path:
    """Materialise a checkpoint, and set back the clock of its directory."""

    @dg.asset(key=KEY, partitions_def=SEEDED, io_manager_key="directory_io")
    def checkpoint(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Path]:
        directory = staging_directory(root, context.run.run_id)
        directory.mkdir(parents=True)
        (directory / "model.safetensors").write_bytes(b"x" * 1000)
        (directory / "provenance.json").write_text(f'{{"data_version": "{version}"}}')
        return dg.MaterializeResult(value=directory, data_version=dg.DataVersion(version))

    resources = {"directory_io": DirectoryIOManager(data_root=root)}
    assert dg.materialize([checkpoint], partition_key=PARTITION, resources=resources, instance=instance).success
    path = recorded_path(instance, root, KEY, PARTITION)
    written = datetime.now(UTC).timestamp() - age_days * 86400
    os.utime(path, (written, written))
    return path


def _evaluate(instance: dg.DagsterInstance, version: str) -> None:
    """Materialise metrics that say which checkpoint they were made from."""

    @dg.asset(key=dg.AssetKey(["metrics", "small"]), partitions_def=SEEDED)
    def metrics() -> dg.MaterializeResult[None]:
        return dg.MaterializeResult(metadata={"read": dg.MetadataValue.json({KEY.to_user_string(): version})})

    assert dg.materialize([metrics], partition_key=PARTITION, instance=instance).success


def _clean(root: DataRoot, instance: dg.DagsterInstance, *, keep_days: float = 30, dry_run: bool = False) -> list[str]:
    """Run the job and return the names of the directories that it reports."""
    result = retention.execute_in_process(
        run_config={"ops": {"delete_superseded": {"config": {"keep_days": keep_days, "dry_run": dry_run}}}},
        resources={"data_root": root},
        instance=instance,
    )
    assert result.success
    (output,) = [event for event in result.all_events if event.event_type == dg.DagsterEventType.STEP_OUTPUT]
    table = output.step_output_data.metadata["deleted"]
    assert isinstance(table, dg.TableMetadataValue)
    return [Path(str(record.data["stored"])).name for record in table.records]


def test_only_what_was_replaced_long_ago_is_deleted_and_reported(
    data_root: DataRoot, instance: dg.DagsterInstance
) -> None:
    oldest = _train(data_root, instance, "a", age_days=100)
    old = _train(data_root, instance, "b", age_days=90)
    replaced_lately = _train(data_root, instance, "c", age_days=60)
    current = _train(data_root, instance, "d", age_days=2)
    _evaluate(instance, "d")

    assert _clean(data_root, instance, dry_run=True) == [oldest.name, old.name]
    assert oldest.is_dir()
    assert old.is_dir()

    assert _clean(data_root, instance) == [oldest.name, old.name]
    assert {path.name for path in current.parent.iterdir()} == {replaced_lately.name, current.name}
    assert recorded_path(instance, data_root, KEY, PARTITION) == current
    assert _clean(data_root, instance) == []


def test_what_current_metrics_were_made_from_stays_until_they_are_made_again(
    data_root: DataRoot, instance: dg.DagsterInstance
) -> None:
    scored = _train(data_root, instance, "a", age_days=100)
    _evaluate(instance, "a")
    _train(data_root, instance, "b", age_days=90)
    assert _clean(data_root, instance) == []
    assert scored.is_dir()
    _evaluate(instance, "b")
    assert _clean(data_root, instance) == [scored.name]
    assert not scored.exists()


def test_an_old_checkpoint_of_the_current_version_is_a_copy_and_goes(
    data_root: DataRoot, instance: dg.DagsterInstance
) -> None:
    copy = _train(data_root, instance, "a", age_days=100)
    _train(data_root, instance, "a", age_days=90)
    _evaluate(instance, "a")
    assert _clean(data_root, instance) == [copy.name]


def test_nothing_is_deleted_where_the_current_checkpoint_is_gone_or_unknown(
    data_root: DataRoot, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    old = _train(data_root, instance, "a", age_days=100)
    current = _train(data_root, instance, "b", age_days=90)
    with dg.DagsterInstance.ephemeral() as other:
        assert _clean(data_root, other) == []
    current.rename(tmp_path / "elsewhere")
    assert _clean(data_root, instance) == []
    assert old.is_dir()


def test_what_a_killed_run_left_beside_the_current_checkpoint_goes_when_it_is_old(
    data_root: DataRoot, instance: dg.DagsterInstance
) -> None:
    current = _train(data_root, instance, "a", age_days=100)
    for name, age_days in (("unrecorded", 60), ("just_written", 0.1)):
        orphan = current.with_name(name)
        orphan.mkdir()
        (orphan / "provenance.json").write_text('{"data_version": "z"}')
        written = datetime.now(UTC).timestamp() - age_days * 86400
        os.utime(orphan, (written, written))
    assert _clean(data_root, instance, keep_days=30) == []  # replaced less than a day ago
    (current.parent / "just_written" / "provenance.json").unlink()
    (current.parent / "just_written").rmdir()
    assert _clean(data_root, instance, keep_days=30) == ["unrecorded"]
    assert current.is_dir()


def test_less_than_a_day_is_refused(data_root: DataRoot, instance: dg.DagsterInstance) -> None:
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        _clean(data_root, instance, keep_days=0.5)


def test_a_trained_model_survives_and_its_results_can_be_made_again(
    prepared_run: Run, data_root: DataRoot, instance: dg.DagsterInstance
) -> None:
    key, seed = dg.AssetKey(["checkpoint", "bpr"]), {"dataset": "demo", "seed": "0"}
    chosen = [key, dg.AssetKey(["metrics", "bpr"]), dg.AssetKey(["user_metrics", "bpr"])]
    paths: list[Path] = []
    for age_days, epochs in ((100, 1), (90, 2)):
        config = {"checkpoint__bpr": {"config": {"overrides": {"training": {"epochs": epochs}}}}}
        assert prepared_run("train", seed, assets=chosen, config=config).success
        paths.append(recorded_path(instance, data_root, key, dg.MultiPartitionKey(seed)))
        written = datetime.now(UTC).timestamp() - age_days * 86400
        os.utime(paths[-1], (written, written))
    assert _clean(data_root, instance) == [paths[0].name]
    assert prepared_run("train", seed, assets=chosen[1:]).success


def test_an_interrupted_removal_is_finished(data_root: DataRoot, tmp_path: Path) -> None:
    left = tmp_path / ".run.removed"
    left.mkdir()
    (left / "model.safetensors").write_text("x")
    (tmp_path / "run").mkdir()
    assert [checkpoint.path.name for checkpoint in stored_versions(tmp_path, {})] == ["run"]
    finish_removals(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("clock_days", [-20_000, 20_000], ids=["set back", "set ahead"])
def test_neither_the_current_nor_a_needed_checkpoint_goes_whatever_the_clock_says(
    data_root: DataRoot, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, clock_days: int
) -> None:
    scored = _train(data_root, instance, "a", age_days=100)
    _evaluate(instance, "a")
    replaced_just_now = _train(data_root, instance, "b", age_days=90)
    current = _train(data_root, instance, "c", age_days=100 - clock_days)
    for now in (datetime.now(UTC), datetime.now(UTC) + timedelta(days=clock_days)):
        with monkeypatch.context() as patch:
            patch.setattr("pipelines.retention.datetime", SimpleNamespace(now=lambda _, now=now: now))
            gone = _clean(data_root, instance)
        assert current.is_dir()
        assert scored.is_dir()
        if clock_days < 0:  # `current` is dated long before what it replaced
            assert gone == []
            assert replaced_just_now.is_dir()
    assert recorded_path(instance, data_root, KEY, PARTITION) == current


def test_what_was_replaced_while_the_clock_was_wrong_goes_when_a_later_checkpoint_is_old() -> None:
    dates = {"first": -10, "clock_back": -9000, "second": -5, "clock_ahead": 9000, "third": -2}
    stored = [StoredVersion(Path(name), NOW + timedelta(days=days), name) for name, days in dates.items()]

    def gone(days_later: float) -> set[str]:
        return {
            checkpoint.path.name
            for checkpoint in superseded_versions(
                stored,
                recorded=[Path(name) for name in dates],
                versions_in_use=(),
                now=NOW + timedelta(days=days_later),
                keep_days=30,
            )
        }

    assert gone(0) == set()
    assert gone(24) == set()
    assert gone(26) == {"first", "clock_back"}
    assert gone(400) == {"first", "clock_back"}  # when "second" was replaced, nobody knows
    assert gone(9100) == {"first", "clock_back", "second"}


AGES = st.lists(st.tuples(st.floats(-5, 200), st.sampled_from(["a", "b", "c", None])), min_size=1, max_size=8)


@given(AGES, st.integers(0, 7), st.sets(st.sampled_from(["a", "b", "c"])), st.floats(0, 100))
def test_whatever_is_stored_nothing_needed_goes(
    ages: Sequence[tuple[float, str | None]], chosen: int, in_use: set[str], keep_days: float
) -> None:
    stored = [
        StoredVersion(Path(f"run{index}"), NOW - timedelta(days=age), version)
        for index, (age, version) in enumerate(ages)
    ]
    # Records in any order of the dates, and directories that no record names.
    current = stored[chosen % len(stored)]
    recorded = [*(each.path for each in stored[: chosen // 2] if each != current), current.path]
    gone = superseded_versions(stored, recorded=recorded, versions_in_use=in_use, now=NOW, keep_days=keep_days)
    left = [checkpoint for checkpoint in stored if checkpoint not in gone]
    assert current in left
    assert {checkpoint.data_version for checkpoint in left} >= in_use & {each.data_version for each in stored}
    assert all(checkpoint.data_version is not None for checkpoint in gone)
    assert all(NOW - checkpoint.written >= timedelta(days=keep_days) for checkpoint in gone)


@pytest.mark.parametrize("keep_days", [-1.0, float("nan")])
def test_a_senseless_number_of_days_is_refused(keep_days: float) -> None:
    with pytest.raises(InputError, match="keep_days"):
        superseded_versions([], recorded=[Path("a")], versions_in_use=(), now=NOW, keep_days=keep_days)


class Numbers(dy.Schema):
    a = dy.Int64()


def test_tables_that_no_record_names_any_more_are_collected(
    data_root: DataRoot, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(schemas.TABLES, "table", schemas.Table(Numbers))

    def store(rows: int, *, age_days: float) -> Path:
        @dg.asset(partitions_def=DATASETS, io_manager_key="parquet_io")
        def table() -> dg.MaterializeResult[pl.DataFrame]:
            return dg.MaterializeResult(value=pl.DataFrame({"a": range(rows)}), data_version=dg.DataVersion(str(rows)))

        resources = {"parquet_io": ParquetIOManager(data_root=data_root)}
        assert dg.materialize([table], partition_key="one", resources=resources, instance=instance).success
        path = recorded_path(instance, data_root, table.key, "one")
        written = datetime.now(UTC).timestamp() - age_days * 86400
        os.utime(path, (written, written))
        return path

    replaced, lately_replaced = store(1, age_days=100), store(2, age_days=90)
    current = store(3, age_days=1)
    unrecorded = current.with_name("unrecorded.parquet")
    unrecorded.write_bytes(b"left by a killed run")
    os.utime(unrecorded, (0, 0))
    assert set(_clean(data_root, instance)) == {replaced.name, unrecorded.name}
    assert {path.name for path in current.parent.iterdir()} == {lately_replaced.name, current.name}


def test_the_schedule_waits_for_somebody_to_start_it(data_root: DataRoot) -> None:
    schedule = build_definitions({"data_root": data_root}).resolve_schedule_def("weekly_retention")
    assert schedule.default_status == dg.DefaultScheduleStatus.STOPPED
    assert schedule.job_name == "retention"


def test_checkpoints_lie_where_retention_looks(data_root: DataRoot, instance: dg.DagsterInstance) -> None:
    path = _train(data_root, instance, "a", age_days=1)
    assert path.parent == stored_folder(data_root.root, "checkpoints", KEY, PARTITION)
