"""What is stored is whole, stays where the record says, and its loss is told clearly."""

from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from assets.io_managers import DirectoryIOManager, ParquetIOManager, staging_directory, stored_path
from assets.resources import DataRoot
from recmodels.errors import InputError

PARTITIONS = dg.StaticPartitionsDefinition(["one", "two"])
SEEDED = dg.MultiPartitionsDefinition({"dataset": PARTITIONS, "seed": dg.StaticPartitionsDefinition(["0", "1"])})


def _resources(root: DataRoot) -> dict[str, object]:
    return {"parquet_io": ParquetIOManager(data_root=root), "directory_io": DirectoryIOManager(data_root=root)}


def test_tables_come_back_eager_or_lazy_as_they_were_stored(data_root: DataRoot, instance: dg.DagsterInstance) -> None:
    table = pl.DataFrame(
        {"a": [1, 2], "embedding": [[0.5, 1.0], [1.5, 2.0]]}, schema_overrides={"embedding": pl.Array(pl.Float32, 2)}
    )
    seen: list[object] = []

    @dg.asset(partitions_def=PARTITIONS, io_manager_key="parquet_io")
    def source() -> pl.DataFrame:
        return table

    @dg.asset(partitions_def=PARTITIONS, io_manager_key="parquet_io")
    def eager(source: pl.DataFrame) -> pl.DataFrame:
        seen.append(source)
        return source

    @dg.asset(partitions_def=PARTITIONS, io_manager_key="parquet_io")
    def lazy(source: pl.LazyFrame) -> pl.LazyFrame:
        seen.append(source.collect())
        return source

    result = dg.materialize(
        [source, eager, lazy], partition_key="one", resources=_resources(data_root), instance=instance
    )
    assert result.success
    assert all(isinstance(frame, pl.DataFrame) and frame.equals(table) for frame in seen)
    assert len(seen) == 2
    path = stored_path(data_root.root, "tables", dg.AssetKey("lazy"), "one", ".parquet")
    assert pl.read_parquet(path).equals(table)
    assert [file.name for file in path.parent.iterdir()] == ["one.parquet"]


@pytest.mark.parametrize("damage", ["deleted", "truncated", "never made"])
def test_a_missing_or_damaged_table_fails_once_and_says_which(
    data_root: DataRoot, instance: dg.DagsterInstance, damage: str
) -> None:
    runs: list[int] = []

    @dg.asset(partitions_def=PARTITIONS, io_manager_key="parquet_io")
    def source() -> pl.DataFrame:
        return pl.DataFrame({"a": range(1000)})

    @dg.asset(partitions_def=PARTITIONS, io_manager_key="parquet_io", retry_policy=dg.RetryPolicy(max_retries=3))
    def reader(source: pl.DataFrame) -> pl.DataFrame:
        runs.append(1)
        return source

    resources = _resources(data_root)
    path = stored_path(data_root.root, "tables", dg.AssetKey("source"), "one", ".parquet")
    if damage != "never made":
        dg.materialize([source], partition_key="one", resources=resources, instance=instance)
    if damage == "deleted":
        path.unlink()
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:200])
    result = dg.materialize(
        [source, reader],
        selection=[reader],
        partition_key="one",
        resources=resources,
        instance=instance,
        raise_on_error=False,
    )
    failures = [event for event in result.all_events if event.is_step_failure]
    assert not result.success
    assert not runs
    assert len(failures) == 1
    assert not [event for event in result.all_events if event.event_type == dg.DagsterEventType.STEP_UP_FOR_RETRY]
    text = (failures[0].step_failure_data.user_failure_data or failures[0].step_failure_data.error).description  # type: ignore[union-attr]
    assert str(path) in text


def _checkpoint_asset(root: DataRoot, content: str) -> dg.AssetsDefinition:
    @dg.asset(partitions_def=SEEDED, io_manager_key="directory_io")
    def checkpoint(context: dg.AssetExecutionContext) -> Path:
        directory = staging_directory(root, context.run.run_id)
        directory.mkdir(parents=True)
        (directory / "weights").write_text(content)
        return directory

    return checkpoint


def test_a_checkpoint_is_read_from_the_record_and_an_older_one_is_kept(
    data_root: DataRoot, instance: dg.DagsterInstance
) -> None:
    read: list[str] = []

    @dg.asset(partitions_def=SEEDED)
    def reader(checkpoint: Path) -> None:
        read.append((checkpoint / "weights").read_text())

    key = dg.MultiPartitionKey({"dataset": "one", "seed": "1"})
    for content in ("first", "second"):
        made = _checkpoint_asset(data_root, content)
        assert dg.materialize(
            [made, reader], partition_key=key, resources=_resources(data_root), instance=instance
        ).success
    assert read == ["first", "second"]
    folder = stored_path(data_root.root, "checkpoints", dg.AssetKey("checkpoint"), key, "")
    assert sorted((run / "weights").read_text() for run in folder.iterdir()) == ["first", "second"]


@pytest.mark.parametrize("key", ["../escape", "a/b", ".hidden", "a;rm -rf", "", "$(id)"])
def test_no_partition_key_reaches_outside_the_data_root(tmp_path: Path, key: str) -> None:
    with pytest.raises(InputError, match="plain name"):
        stored_path(tmp_path, "tables", dg.AssetKey("items"), key, "")
