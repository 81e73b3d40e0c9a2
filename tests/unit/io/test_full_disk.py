"""On a full disk every write fails in one clear line, leaves nothing half-written and loses nothing."""

import contextlib
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import dataframely as dy
import numpy as np
import polars as pl
import pytest
from small_disk import small_disk

from assets.support.io_managers import ParquetIOManager
from assets.support.resources import DataRoot
from recmodels.checkpoints.store import Checkpoint, load_checkpoint
from recmodels.embeddings.store import VectorStore
from recmodels.errors import InputError
from recmodels.llm.base import Reply
from recmodels.llm.cache import CallCache, ModelIdentity
from recmodels.models.registry import resolve_config
from recmodels.schemas import tables as schemas
from recmodels.training.run import train_checkpoint
from recmodels.training.trainer import EpochRecord

SIZE = 512 * 1024
ROOM_WANTED = r": expected room on its disk to write it, found [\d,]+ bytes free\. Make room \(docs/operating\.md"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    with small_disk(tmp_path / "disk", SIZE) as folder:
        yield folder


def _files(disk: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in disk.rglob("*") if path.is_file()}


def _fill(disk: Path) -> None:
    """Fill what is left of the disk with one file."""
    filler = disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    assert shutil.disk_usage(disk).free == 0


class Noise(dy.Schema):
    noise = dy.Float64()


def test_a_table_that_does_not_fit_leaves_the_old_one(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(schemas.TABLES, "table", schemas.Table(Noise))
    rows = 1000
    instance = dg.DagsterInstance.ephemeral()

    @dg.asset(io_manager_key="parquet_io", retry_policy=dg.RetryPolicy(max_retries=3))
    def table() -> pl.DataFrame:
        return pl.DataFrame({"noise": np.random.default_rng(0).random(rows)})

    def materialize() -> dg.ExecuteInProcessResult:
        resources = {"parquet_io": ParquetIOManager(data_root=DataRoot(path=str(disk)))}
        return dg.materialize([table], resources=resources, instance=instance, raise_on_error=False)

    assert materialize().success
    before = _files(disk)
    rows = 1_000_000
    result = materialize()
    (failure,) = [event.step_failure_data for event in result.all_events if event.is_step_failure]
    assert failure.user_failure_data
    assert re.match(rf"{disk}/tables/table{ROOM_WANTED}", failure.user_failure_data.description or "")
    assert not [event for event in result.all_events if event.event_type == dg.DagsterEventType.STEP_UP_FOR_RETRY]
    assert _files(disk) == before
    rows = 1000
    assert materialize().success


def _train(checkerboard, directory: Path, state: Path, at_epoch: Callable[[EpochRecord], None]) -> Checkpoint:
    settings = {"embedding_size": 8, "training": {"epochs": 4, "batch_size": 100, "checkpoint_interval": 1}}
    train_checkpoint(
        directory,
        "lightgcn",
        resolve_config("lightgcn", settings),
        checkerboard.data(),
        seed=0,
        users=checkerboard.users,
        items=checkerboard.items,
        provenance={},
        on_epoch=[at_epoch],
        state_directory=state,
    )
    return load_checkpoint(directory)


@pytest.mark.parametrize("full", ["state", "checkpoint"])
def test_a_training_that_finds_no_room_goes_on_from_its_last_state(
    checkerboard, disk: Path, tmp_path: Path, full: str
) -> None:
    undisturbed = _train(checkerboard, tmp_path / "undisturbed", tmp_path / "state", lambda record: None)
    roomy = tmp_path / "roomy"
    folders = {name: (disk if name == full else roomy) / name for name in ("checkpoint", "state")}

    def fill(record: EpochRecord) -> None:
        if record.epoch == 2:
            _fill(disk)

    with pytest.raises(InputError, match=rf"{folders[full]}.*{ROOM_WANTED}"):
        _train(checkerboard, folders["checkpoint"], folders["state"], fill)
    assert not folders["checkpoint"].exists()
    assert not list(tmp_path.rglob("*.tmp"))
    (saved,) = folders["state"].iterdir()
    assert int(saved.name.removeprefix("epoch-")) >= 2

    (disk / "filler").unlink()
    epochs: list[int] = []
    resumed = _train(checkerboard, folders["checkpoint"], folders["state"], lambda record: epochs.append(record.epoch))
    assert len(epochs) < 4
    assert resumed.ranker.user_embeddings.equal(undisturbed.ranker.user_embeddings)
    figures = ["epoch", "loss", "valid_recall"]
    assert resumed.history.select(figures).equals(undisturbed.history.select(figures))


def test_answers_that_were_paid_for_survive_a_full_disk(disk: Path) -> None:
    path = disk / "cache" / "profiles.sqlite"
    model = ModelIdentity("ollama", "llama", "http://a", "digest")
    with CallCache(path) as cache, cache.run(model):
        cache.store([(b"paid", Reply("an answer", 1, 1))])

    def store_on_a_full_disk() -> None:
        with CallCache(path) as cache:
            _fill(disk)
            cache.store([(b"new", Reply("another answer " * 10_000, 1, 1))])

    with pytest.raises(InputError, match=rf"{path}{ROOM_WANTED}"):
        store_on_a_full_disk()
    (disk / "filler").unlink()
    with CallCache(path) as cache:
        assert cache.load([b"paid", b"new"]) == {b"paid": "an answer"}
        cache.store([(b"new", Reply("another answer", 1, 1))])
        assert cache.load([b"new"]) == {b"new": "another answer"}


def test_vectors_survive_a_full_disk(disk: Path) -> None:
    path = disk / "cache" / "vectors.sqlite"
    vectors = np.ones((1, 4), dtype=np.float32)
    with VectorStore(path, "encoder", 4) as store:
        store.save([b"kept"], vectors)
    keys = [key.to_bytes(32, "big") for key in range(5000)]

    def save_on_a_full_disk() -> None:
        with VectorStore(path, "encoder", 4) as store:
            _fill(disk)
            store.save(keys, np.ones((len(keys), 4), dtype=np.float32))

    with pytest.raises(InputError, match=rf"{path}{ROOM_WANTED}"):
        save_on_a_full_disk()
    (disk / "filler").unlink()
    with VectorStore(path, "encoder", 4) as store:
        assert store.load([b"kept", keys[0]], np.empty((2, 4), dtype=np.float32)) == [1]
