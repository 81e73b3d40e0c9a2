"""A large table is a folder of parts: whole or absent, read as the one table it is, and its loss is told clearly."""

import json
import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import dataframely as dy
import polars as pl
import pytest
from graph_runs import failure_texts

from assets.support.io_managers import MANIFEST_BYTES, STORED_BYTES, ParquetIOManager, read_table, recorded_path
from assets.support.lineage import latest_materialization
from assets.support.resources import DataRoot
from pipelines.retention import retention
from recmodels.io.digest import frame_digest
from recmodels.io.files import MANIFEST
from recmodels.io.tables import store_table
from recmodels.schemas import tables as schemas

PARTITIONS = dg.StaticPartitionsDefinition(["one"])
KEY = dg.AssetKey("large")
Store = Callable[..., Path]


class Numbers(dy.Schema):
    a = dy.Int64()


@pytest.fixture(autouse=True)
def declared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Declare the stand-in of this module."""
    monkeypatch.setitem(schemas.TABLES, "large", schemas.Table(Numbers))


def _asset(rows: int) -> dg.AssetsDefinition:
    @dg.asset(name="large", partitions_def=PARTITIONS, io_manager_key="parquet_io")
    def large() -> dg.MaterializeResult[pl.DataFrame]:
        return dg.MaterializeResult(value=pl.DataFrame({"a": range(rows)}), data_version=dg.DataVersion(str(rows)))

    return large


@pytest.fixture
def store(data_root: DataRoot, instance: dg.DagsterInstance) -> Store:
    """A function that materialises a table of so many rows, and returns where it is."""

    def run(rows: int, *, parts_above: int = 300) -> Path:
        resources = {"parquet_io": ParquetIOManager(data_root=data_root, parts_above=parts_above)}
        assert dg.materialize([_asset(rows)], partition_key="one", resources=resources, instance=instance).success
        return recorded_path(instance, data_root, KEY, "one")

    return run


def _read(data_root: DataRoot, instance: dg.DagsterInstance) -> tuple[list[pl.DataFrame], list[str]]:
    """Have two assets read the table, whole and lazily; return what they got, and what failed."""
    seen: list[pl.DataFrame] = []
    policy = dg.RetryPolicy(max_retries=3)

    @dg.asset(partitions_def=PARTITIONS, retry_policy=policy)
    def eager(large: pl.DataFrame) -> None:
        seen.append(large)

    @dg.asset(partitions_def=PARTITIONS, retry_policy=policy)
    def lazy(large: pl.LazyFrame) -> None:
        seen.append(large.collect())

    result = dg.materialize(
        [_asset(1), eager, lazy],
        selection=[eager, lazy],
        partition_key="one",
        resources={"parquet_io": ParquetIOManager(data_root=data_root), "io_manager": dg.mem_io_manager},
        instance=instance,
        raise_on_error=False,
    )
    assert not [event for event in result.all_events if event.event_type == dg.DagsterEventType.STEP_UP_FOR_RETRY]
    return seen, failure_texts(result)


def test_it_comes_back_as_it_was_stored_and_its_record_knows_its_size(
    store: Store, data_root: DataRoot, instance: dg.DagsterInstance
) -> None:
    path = store(1000)
    names = [f"{part:05}.parquet" for part in range(4)]
    assert sorted(file.name for file in path.iterdir()) == [*names, MANIFEST]
    assert [pl.read_parquet(path / name).height for name in names] == [300, 300, 300, 100]
    whole = pl.DataFrame({"a": range(1000)})
    seen, failures = _read(data_root, instance)
    assert failures == []
    found = [*seen, read_table(instance, data_root, KEY, "one")]
    assert [frame_digest(frame) for frame in found] == [frame_digest(whole)] * 3
    record = latest_materialization(instance, KEY, "one")
    assert record is not None
    assert record.metadata[STORED_BYTES].value == sum(file.stat().st_size for file in path.iterdir())
    assert record.metadata[MANIFEST_BYTES].value == str((path / MANIFEST).stat().st_size)


def test_only_what_is_above_the_bound_is_cut(store: Store) -> None:
    assert store(300).suffix == ".parquet"
    assert store(301).suffix == ".parts"
    assert store(301, parts_above=301).suffix == ".parquet"


def _another_part(path: Path) -> None:
    pl.DataFrame({"a": range(299)}).write_parquet(path / "00001.parquet")


def _another_bit(path: Path) -> None:
    part = path / "00001.parquet"
    status = part.stat()
    part.write_bytes(part.read_bytes().replace(b"PAR1", b"PAR3", 1))
    os.utime(part, ns=(status.st_atime_ns, status.st_mtime_ns))


def _fewer_parts(path: Path) -> None:
    manifest = json.loads((path / MANIFEST).read_text())
    (path / MANIFEST).write_text(json.dumps(manifest | {"parts": manifest["parts"][:2]}))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "all deleted": shutil.rmtree,
    "a part deleted": lambda path: (path / "00001.parquet").unlink(),
    "a part replaced": _another_part,
    "one bit changed": _another_bit,
    "no manifest": lambda path: (path / MANIFEST).unlink(),
    "a manifest of fewer parts": _fewer_parts,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_told_in_one_line_and_mended_by_materialising_again(
    store: Store, data_root: DataRoot, instance: dg.DagsterInstance, damage: str
) -> None:
    path = store(1000)
    DAMAGE[damage](path)
    seen, failures = _read(data_root, instance)
    assert seen == []
    assert len(failures) == 2
    for text in failures:
        assert "\n" not in text
        assert text.startswith(str(path))
        assert "materialise large of one again" in text
    assert store(1000) == path
    assert len(_read(data_root, instance)[0]) == 2
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_it_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, written = pl.DataFrame.write_parquet, []

    def full_after_two(frame: pl.DataFrame, path: Path, **options: object) -> None:
        if len(written) == 2:
            raise OSError(28, "No space left on device")
        written.append(path)
        whole(frame, path)

    monkeypatch.setattr(pl.DataFrame, "write_parquet", full_after_two)
    with pytest.raises(Exception, match="room on its disk"):
        store_table(tmp_path, pl.DataFrame({"a": range(10)}), parts_above=3)
    assert len(written) == 2
    assert list(tmp_path.iterdir()) == []


def test_retention_collects_those_that_were_replaced_or_never_recorded(
    store: Store, data_root: DataRoot, instance: dg.DagsterInstance
) -> None:
    paths = [store(rows) for rows in (400, 500, 600)]
    orphan = shutil.copytree(paths[0], paths[0].with_name("0123.parts"))
    for path, age_days in zip([*paths, orphan], (100, 90, 1, 100), strict=True):
        written = datetime.now(UTC).timestamp() - age_days * 86400
        os.utime(path, (written, written))
    result = retention.execute_in_process(
        run_config={"ops": {"delete_superseded": {"config": {"keep_days": 30, "dry_run": False}}}},
        resources={"data_root": data_root},
        instance=instance,
    )
    assert result.success
    assert {path.name for path in paths[0].parent.iterdir()} == {paths[1].name, paths[2].name}
    assert read_table(instance, data_root, KEY, "one").height == 600
