"""Checkpoints: complete, verified when read, and without anything that could run."""

import hashlib
import json
from pathlib import Path

import polars as pl
import pytest
import torch

from recmodels.checkpoints.store import load_checkpoint, load_history
from recmodels.errors import MissingObject
from recmodels.models.registry import resolve_config
from recmodels.training.run import train_checkpoint

FILES = {
    "model.safetensors",
    "ranking.safetensors",
    "config.json",
    "history.parquet",
    "provenance.json",
    "users.parquet",
    "items.parquet",
    "seen.parquet",
    "manifest.json",
}


def write(directory: Path, checkerboard, seed: int = 0) -> None:
    train_checkpoint(
        directory,
        "lightgcn",
        resolve_config("lightgcn", {"embedding_size": 8, "training": {"epochs": 2, "batch_size": 100}}),
        checkerboard.data(),
        seed=seed,
        users=checkerboard.users,
        items=checkerboard.items,
        provenance={"split": "abc"},
    )


@pytest.fixture
def checkpoint(checkerboard, tmp_path: Path) -> Path:
    write(tmp_path / "checkpoint", checkerboard)
    return tmp_path / "checkpoint"


def test_everything_comes_back(checkpoint: Path, checkerboard) -> None:
    assert {path.name for path in checkpoint.iterdir()} == FILES
    stored = load_checkpoint(checkpoint)
    assert stored.model == "lightgcn"
    assert stored.seed == 0
    assert stored.config.training.epochs == 2
    assert stored.provenance["split"] == "abc"
    assert stored.provenance["training"]["best_epoch"] in (0, 1)
    assert stored.history.height == 2
    assert stored.users.equals(checkerboard.users)
    assert stored.items.equals(checkerboard.items)
    assert set(stored.seen["split"]) == {"train", "valid"}
    expected = checkerboard.interactions.filter(checkerboard.interactions["split"] != "test")
    assert stored.seen.height == expected.height


def test_the_same_seed_writes_the_same_tensors_to_the_byte(checkerboard, tmp_path: Path) -> None:
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        write(tmp_path / name, checkerboard, seed)
    for file in ("model.safetensors", "ranking.safetensors", "config.json", "seen.parquet"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert (tmp_path / "a" / "model.safetensors").read_bytes() != (tmp_path / "c" / "model.safetensors").read_bytes()


@pytest.mark.parametrize("file", sorted(FILES))
def test_a_missing_file_is_named(checkpoint: Path, file: str) -> None:
    (checkpoint / file).unlink()
    with pytest.raises(MissingObject, match=file):
        load_checkpoint(checkpoint)


@pytest.mark.parametrize("file", sorted(FILES - {"manifest.json"}))
def test_a_changed_byte_is_found(checkpoint: Path, file: str) -> None:
    content = bytearray((checkpoint / file).read_bytes())
    content[len(content) // 2] ^= 1
    (checkpoint / file).write_bytes(content)
    with pytest.raises(MissingObject, match=f"{file} is damaged: expected sha256 .*, found .* Restore it, or train"):
        load_checkpoint(checkpoint)


def test_the_history_alone_is_verified_too(checkpoint: Path) -> None:
    assert load_history(checkpoint).equals(load_checkpoint(checkpoint).history)
    (checkpoint / "model.safetensors").unlink()
    assert load_history(checkpoint).height
    pl.DataFrame({"epoch": [0], "valid_recall": [1.0]}).write_parquet(checkpoint / "history.parquet")
    with pytest.raises(MissingObject, match=r"history\.parquet is damaged"):
        load_history(checkpoint)


def test_a_manifest_that_is_cut_off_or_of_another_version_is_refused(checkpoint: Path) -> None:
    manifest = checkpoint / "manifest.json"
    text = manifest.read_text()
    manifest.write_text(text[:20])
    with pytest.raises(MissingObject, match="checkpoint"):
        load_checkpoint(checkpoint)
    manifest.write_text(text.replace('"format_version": 2', '"format_version": 99'))
    with pytest.raises(MissingObject, match="format version 1 or 2, found 99"):
        load_checkpoint(checkpoint)


def test_a_checkpoint_of_the_first_format_is_read(checkpoint: Path) -> None:
    expected = load_checkpoint(checkpoint)
    (checkpoint / "ranking.safetensors").rename(checkpoint / "embeddings.safetensors")
    config = json.loads((checkpoint / "config.json").read_text())
    del config["ranking"]
    (checkpoint / "config.json").write_text(json.dumps(config))
    files = FILES - {"manifest.json", "ranking.safetensors"} | {"embeddings.safetensors"}
    digests = {file: hashlib.sha256((checkpoint / file).read_bytes()).hexdigest() for file in files}
    (checkpoint / "manifest.json").write_text(json.dumps({"format_version": 1, "sha256": digests}))
    found = load_checkpoint(checkpoint)
    assert torch.equal(found.ranker.user_embeddings, expected.ranker.user_embeddings)
    assert torch.equal(found.ranker.item_embeddings, expected.ranker.item_embeddings)
    assert load_history(checkpoint).equals(expected.history)
    (checkpoint / "embeddings.safetensors").unlink()
    with pytest.raises(MissingObject, match=r"embeddings\.safetensors"):
        load_checkpoint(checkpoint)


def test_no_directory_is_a_missing_object(tmp_path: Path) -> None:
    with pytest.raises(MissingObject, match="nowhere"):
        load_checkpoint(tmp_path / "nowhere")


def test_the_state_of_a_training_goes_when_its_checkpoint_stands(checkerboard, tmp_path: Path) -> None:
    states: list[bool] = []
    train_checkpoint(
        tmp_path / "checkpoint",
        "bpr",
        resolve_config("bpr", {"embedding_size": 8, "training": {"epochs": 3, "checkpoint_interval": 1}}),
        checkerboard.data(),
        seed=0,
        users=checkerboard.users,
        items=checkerboard.items,
        provenance={},
        on_epoch=[lambda record: states.append((tmp_path / "state").is_dir())],
        state_directory=tmp_path / "state",
    )
    assert states == [True] * 3
    assert not (tmp_path / "state").exists()


def test_a_training_that_fails_leaves_no_checkpoint(checkerboard, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(torch.Tensor, "backward", lambda self: (_ for _ in ()).throw(RuntimeError("no")))
    with pytest.raises(RuntimeError):
        write(tmp_path / "checkpoint", checkerboard)
    assert not list(tmp_path.iterdir())


def test_all_files_may_be_read_by_those_the_umask_allows(checkpoint: Path) -> None:
    assert len({file.stat().st_mode for file in checkpoint.iterdir()}) == 1
