"""What is stored is whole, stays where the record says, and its loss is told clearly."""

import os
import re
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import dagster as dg
import dataframely as dy
import polars as pl
import pytest
from graph_runs import failure_texts

from assets.support.io_managers import (
    DirectoryIOManager,
    DocumentIOManager,
    ParquetIOManager,
    recorded_path,
    staging_directory,
    stored_folder,
)
from assets.support.resources import DataRoot
from recmodels.errors import InputError
from recmodels.io.files import MANIFEST, file_digest
from recmodels.schemas import tables as schemas
from recmodels.schemas.columns import Vector

PARTITIONS = dg.StaticPartitionsDefinition(["one", "two"])
SEEDED = dg.MultiPartitionsDefinition({"dataset": PARTITIONS, "seed": dg.StaticPartitionsDefinition(["0", "1"])})


class Numbers(dy.Schema):
    a = dy.Int64(min=0)


class Vectors(dy.Schema):
    a = dy.Int64()
    embedding = Vector()


@pytest.fixture(autouse=True)
def declared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Declare the stand-ins of this module."""
    for name, schema in {
        "source": Numbers,
        "seeded": Numbers,
        "reader": Numbers,
        "eager": Vectors,
        "lazy": Vectors,
    }.items():
        monkeypatch.setitem(schemas.TABLES, name, schemas.Table(schema))


def _resources(root: DataRoot) -> dict[str, object]:
    return {"parquet_io": ParquetIOManager(data_root=root), "directory_io": DirectoryIOManager(data_root=root)}


def test_tables_come_back_eager_or_lazy_as_they_were_stored(
    data_root: DataRoot, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(schemas.TABLES, "source", schemas.Table(Vectors))
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
    path = recorded_path(instance, data_root, dg.AssetKey("lazy"), "one")
    assert pl.read_parquet(path).equals(table)
    assert path.parent == stored_folder(data_root.root, "tables", dg.AssetKey("lazy"), "one")
    assert [file.name for file in path.parent.iterdir()] == [f"{file_digest(path)[:32]}.parquet"]


@dg.asset(partitions_def=PARTITIONS, io_manager_key="parquet_io")
def source() -> pl.DataFrame:
    return pl.DataFrame({"a": range(1000)})


Run = Callable[..., dg.ExecuteInProcessResult]


@pytest.fixture
def materialize(data_root: DataRoot, instance: dg.DagsterInstance) -> Run:
    """A function that materialises partition `one` of assets, whatever comes of it."""

    def run(*assets: dg.AssetsDefinition, of: Sequence[dg.AssetsDefinition] = ()) -> dg.ExecuteInProcessResult:
        return dg.materialize(
            [*of, *assets],
            selection=list(assets),
            partition_key="one",
            resources=_resources(data_root),
            instance=instance,
            raise_on_error=False,
        )

    return run


def _in_place(path: Path, content: bytes) -> None:
    """Overwrite a file, and set back its date, as nobody does who wants to be noticed."""
    status = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "never made": lambda path: None,
    "deleted": lambda path: path.unlink(),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:200]),
    "replaced by another table": lambda path: pl.DataFrame({"a": range(999)}).write_parquet(path),
    "one bit changed": lambda path: _in_place(path, path.read_bytes().replace(b"PAR1", b"PAR3", 1)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_table_that_is_not_what_was_stored_fails_once_and_says_what_to_do(
    materialize: Run, data_root: DataRoot, instance: dg.DagsterInstance, damage: str
) -> None:
    runs: list[int] = []
    policy = dg.RetryPolicy(max_retries=3)

    @dg.asset(partitions_def=PARTITIONS, retry_policy=policy)
    def eager(source: pl.DataFrame) -> None:
        runs.append(source.height)

    @dg.asset(partitions_def=PARTITIONS, retry_policy=policy)
    def lazy(source: pl.LazyFrame) -> None:
        runs.append(source.collect().height)

    path = data_root.root
    if damage != "never made":
        assert materialize(source).success
        path = recorded_path(instance, data_root, source.key, "one")
    DAMAGE[damage](path)
    result = materialize(eager, lazy, of=[source])
    assert not result.success
    assert not runs
    assert not [event for event in result.all_events if event.event_type == dg.DagsterEventType.STEP_UP_FOR_RETRY]
    assert len(failure_texts(result)) == 2
    for text in failure_texts(result):
        assert "\n" not in text
        if damage == "never made":
            told = "source of one was never materialised: materialise it first"
            assert text == f"{told}, as `recmodels run --dataset one` does."
        else:
            assert str(path) in text
            assert re.search("expected .* found .* materialise source of one again", text)

    assert materialize(source, eager, lazy).success
    assert runs == [1000, 1000]


def test_what_an_earlier_version_stored_is_refused_with_one_line(
    instance: dg.DagsterInstance, materialize: Run
) -> None:
    @dg.asset(partitions_def=PARTITIONS, io_manager_key="parquet_io")
    def reader(source: pl.DataFrame) -> pl.DataFrame:
        return source

    instance.report_runless_asset_event(dg.AssetMaterialization("source", partition="one"))
    (text,) = failure_texts(materialize(reader, of=[source]))
    assert text.startswith("source of one was stored by an earlier version of recmodels")
    assert text.endswith("materialise it again.")
    assert "\n" not in text


def test_a_reader_gets_the_table_it_was_told_of_while_another_run_stores_the_next(
    data_root: DataRoot, instance: dg.DagsterInstance, materialize: Run
) -> None:
    seen: list[int] = []
    assert materialize(source).success
    first = recorded_path(instance, data_root, source.key, "one")

    @dg.asset(partitions_def=PARTITIONS)
    def reader(source: pl.LazyFrame) -> None:
        another = dg.asset(name="source", partitions_def=PARTITIONS, io_manager_key="parquet_io")(_other_table)
        run = dg.materialize([another], partition_key="one", resources=_resources(data_root), instance=instance)
        assert run.success
        seen.append(source.collect().height)

    assert materialize(reader, of=[source]).success
    assert seen == [1000]
    second = recorded_path(instance, data_root, source.key, "one")
    assert [pl.read_parquet(path).height for path in (first, second)] == [1000, 999]


def _other_table() -> pl.DataFrame:
    return pl.DataFrame({"a": range(999)})


def test_equal_tables_are_stored_once(data_root: DataRoot, instance: dg.DagsterInstance, materialize: Run) -> None:
    assert materialize(source).success
    assert materialize(source).success
    path = recorded_path(instance, data_root, source.key, "one")
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_document_that_was_edited_is_refused(data_root: DataRoot, instance: dg.DagsterInstance) -> None:
    @dg.asset(partitions_def=PARTITIONS, io_manager_key="document_io", metadata={"suffix": ".txt"})
    def document() -> str:
        return "as it was"

    @dg.asset(partitions_def=PARTITIONS)
    def reader(document: str) -> None: ...

    run = partial(
        dg.materialize,
        [document, reader],
        partition_key="one",
        resources={"document_io": DocumentIOManager(data_root=data_root), "io_manager": dg.mem_io_manager},
        instance=instance,
        raise_on_error=False,
    )
    assert run().success
    path = recorded_path(instance, data_root, document.key, "one")
    path.write_text("as it is now")
    (text,) = failure_texts(run(selection=[reader]))
    assert f"{path}: expected the 9 bytes" in text
    assert "materialise document of one again" in text


def test_a_recorded_seed_whose_table_is_gone_is_missed(data_root: DataRoot, instance: dg.DagsterInstance) -> None:
    seen: list[int] = []

    @dg.asset(partitions_def=SEEDED, io_manager_key="parquet_io")
    def seeded() -> pl.DataFrame:
        return pl.DataFrame({"a": [1]})

    @dg.asset(
        partitions_def=PARTITIONS,
        ins={"seeded": dg.AssetIn(partition_mapping=dg.MultiToSingleDimensionPartitionMapping("dataset"))},
    )
    def reader(seeded: dict[str, pl.DataFrame]) -> None:
        seen.append(len(seeded))

    resources = {**_resources(data_root), "io_manager": dg.mem_io_manager}
    run = partial(dg.materialize, [seeded, reader], resources=resources, instance=instance, raise_on_error=False)
    key = dg.MultiPartitionKey({"dataset": "one", "seed": "1"})
    assert run(selection=[seeded], partition_key=key).success
    assert run(selection=[reader], partition_key="one").success
    path = recorded_path(instance, data_root, seeded.key, key)
    path.unlink()
    (text,) = failure_texts(run(selection=[reader], partition_key="one"))
    assert str(path) in text
    assert seen == [1]


def _checkpoint_asset(root: DataRoot, content: str) -> dg.AssetsDefinition:
    @dg.asset(partitions_def=SEEDED, io_manager_key="directory_io")
    def checkpoint(context: dg.AssetExecutionContext) -> Path:
        directory = staging_directory(root, context.run.run_id)
        directory.mkdir(parents=True)
        (directory / "weights").write_text(content)
        (directory / MANIFEST).write_text(f"digest of {content}")
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
    folder = stored_folder(data_root.root, "checkpoints", dg.AssetKey("checkpoint"), key)
    assert sorted((run / "weights").read_text() for run in folder.iterdir()) == ["first", "second"]


@pytest.mark.parametrize("damage", ["deleted", "another manifest", "no manifest"])
def test_a_checkpoint_that_is_not_the_recorded_one_is_refused(
    data_root: DataRoot, instance: dg.DagsterInstance, damage: str
) -> None:
    @dg.asset(partitions_def=SEEDED)
    def reader(checkpoint: Path) -> None: ...

    made = _checkpoint_asset(data_root, "first")
    key = dg.MultiPartitionKey({"dataset": "one", "seed": "1"})
    run = partial(dg.materialize, [made, reader], partition_key=key, resources=_resources(data_root), instance=instance)
    assert run().success
    path = recorded_path(instance, data_root, made.key, key)
    if damage == "deleted":
        shutil.rmtree(path)
    elif damage == "no manifest":
        (path / MANIFEST).unlink()
    else:
        (path / MANIFEST).write_text("digest of fraud")
    (text,) = failure_texts(run(selection=[reader], raise_on_error=False))
    assert str(path) in text
    assert "materialise checkpoint of one/1 again" in text


@pytest.mark.parametrize("name", ["source", "undeclared"])
def test_a_table_that_is_not_as_declared_leaves_the_old_one(
    data_root: DataRoot, instance: dg.DagsterInstance, materialize: Run, name: str
) -> None:
    assert materialize(source).success
    stored = {path: path.read_bytes() for path in data_root.root.rglob("*") if path.is_file()}

    @dg.asset(
        name=name, partitions_def=PARTITIONS, io_manager_key="parquet_io", retry_policy=dg.RetryPolicy(max_retries=3)
    )
    def wrong() -> pl.DataFrame:
        return pl.DataFrame({"a": [3, -1, -2]})

    result = materialize(wrong)
    (text,) = failure_texts(result)
    assert text.startswith(f"table {name}: expected ")
    assert "\n" not in text
    if name == "source":
        assert "a at least 0, found 2 that differ among 3 rows, the first with a -1" in text
    assert not [event for event in result.all_events if event.event_type == dg.DagsterEventType.STEP_UP_FOR_RETRY]
    assert not result.get_asset_materialization_events()
    assert {path: path.read_bytes() for path in data_root.root.rglob("*") if path.is_file()} == stored


@pytest.mark.parametrize("key", ["../escape", "a/b", ".hidden", "a;rm -rf", "", "$(id)"])
def test_no_partition_key_reaches_outside_the_data_root(tmp_path: Path, key: str) -> None:
    with pytest.raises(InputError, match="plain name"):
        stored_folder(tmp_path, "tables", dg.AssetKey("items"), key)
