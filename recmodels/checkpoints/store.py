"""Checkpoints: a directory that serving and further study need nothing beside."""

import contextlib
import json
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from recmodels.errors import MissingObject
from recmodels.io.files import MANIFEST, atomic_directory, file_digest
from recmodels.models.base import ClosedFormModel, Model
from recmodels.models.config import AnyConfig
from recmodels.models.inputs import TrainingData
from recmodels.models.registry import build_model, resolve_config
from recmodels.ranking.calibrated import restored_ranker
from recmodels.ranking.ranker import EmbeddingScorer, Ranker

FORMAT_VERSION = 2
_RANKING = {1: "embeddings.safetensors", 2: "ranking.safetensors"}
"""File of the ranking by format version. In the first format every ranking is by inner products."""
_TABLES = ("history", "users", "items", "seen")
_FILES = (
    *("model.safetensors", _RANKING[FORMAT_VERSION], "config.json", "provenance.json"),
    *(f"{table}.parquet" for table in _TABLES),
)
_CALIBRATION = "calibration.parquet"
_AGAIN = "Restore it, or train the model again."


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A trained model as it is stored."""

    model: str
    """Its name in the registry."""
    config: AnyConfig
    """Its resolved configuration."""
    seed: int
    """Of initialisation and training."""
    parameters: dict[str, Tensor]
    """The trained parameters by name; of a model in closed form, the chosen settings."""
    ranker: Ranker
    """Its final ranking."""
    history: pl.DataFrame
    """One row an epoch, see `recmodels.training.trainer.FitResult`."""
    provenance: dict[str, Any]
    """What the caller recorded about the inputs."""
    users: pl.DataFrame
    items: pl.DataFrame
    """The id maps: user_id, reviewer_id; item_id, asin."""
    seen: pl.DataFrame
    """user_id, item_id, split of the training and validation pairs."""
    calibration: pl.DataFrame | None = None
    """Every try of the search for a calibration of the ranking (`recmodels.calibration`), None without one."""


def write_checkpoint(directory: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint to a new directory, whole or not at all."""
    ranker = checkpoint.ranker
    config = {
        "model": checkpoint.model,
        "seed": checkpoint.seed,
        "config": checkpoint.config.model_dump(mode="json"),
        "ranking": {"kind": ranker.kind, "settings": ranker.settings()},
    }
    files = list(_FILES)
    with atomic_directory(directory) as temporary:
        for file, tensors in ((_FILES[0], checkpoint.parameters), (_FILES[1], ranker.tensors())):
            save_file({key: value.contiguous() for key, value in tensors.items()}, temporary / file)
        (temporary / "config.json").write_text(json.dumps(config, indent=2))
        for file in _FILES[:2]:  # safetensors lets nobody but the owner read them
            (temporary / file).chmod((temporary / "config.json").stat().st_mode)
        (temporary / "provenance.json").write_text(json.dumps(checkpoint.provenance, indent=2))
        for table in _TABLES:
            getattr(checkpoint, table).write_parquet(temporary / f"{table}.parquet")
        if checkpoint.calibration is not None:
            checkpoint.calibration.write_parquet(temporary / _CALIBRATION)
            files.append(_CALIBRATION)
        manifest = {
            "format_version": FORMAT_VERSION,
            "sha256": {file: file_digest(temporary / file) for file in files},
        }
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=2))


def load_checkpoint(directory: Path) -> Checkpoint:
    """
    Read a checkpoint and verify each of its files. Those of the first format are read too.

    Raises
    ------
    MissingObject
        If the directory or one of its files is absent, cut off or altered; the file is named.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from recmodels.models.example import example_tables
    >>> from recmodels.models.zoo.ease import Config
    >>> from recmodels.ranking.ranker import EmbeddingScorer
    >>> import torch
    >>> ranker, nothing = EmbeddingScorer(torch.ones(12, 1), torch.ones(16, 1)), pl.DataFrame()
    >>> tables = example_tables()
    >>> stored = Checkpoint("ease", Config(), 0, {}, ranker, nothing, {}, tables["users"], tables["item_ids"], nothing)
    >>> with TemporaryDirectory() as folder:
    ...     write_checkpoint(Path(folder) / "new", stored)
    ...     load_checkpoint(Path(folder) / "new").config == stored.config
    True
    """
    with _readable(directory):
        manifest = _manifest(directory)
        ranking_file = _RANKING[manifest["format_version"]]
        files = [ranking_file if file == _RANKING[FORMAT_VERSION] else file for file in _FILES]
        calibrated = _CALIBRATION in manifest["sha256"]
        _require_intact(directory, manifest, [*files, _CALIBRATION] if calibrated else files)
        config = json.loads((directory / "config.json").read_text())
        ranking = config.get("ranking", {"kind": EmbeddingScorer.kind, "settings": {}})
        return Checkpoint(
            model=config["model"],
            config=resolve_config(config["model"], config["config"]),
            seed=config["seed"],
            parameters=load_file(directory / "model.safetensors"),
            ranker=restored_ranker(ranking["kind"], load_file(directory / ranking_file), ranking["settings"]),
            provenance=json.loads((directory / "provenance.json").read_text()),
            **{table: pl.read_parquet(directory / f"{table}.parquet") for table in _TABLES},
            calibration=pl.read_parquet(directory / _CALIBRATION) if calibrated else None,
        )


def load_history(directory: Path) -> pl.DataFrame:
    """Read the history of a checkpoint alone, verified; raises as `load_checkpoint`."""
    with _readable(directory):
        _require_intact(directory, _manifest(directory), ["history.parquet"])
        return pl.read_parquet(directory / "history.parquet")


@contextlib.contextmanager
def _readable(directory: Path) -> Generator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, SafetensorError, pl.exceptions.PolarsError) as error:
        raise MissingObject(
            f"checkpoint {directory}: expected the files {', '.join((MANIFEST, *_FILES))}, found {error}. {_AGAIN}"
        ) from error


def _manifest(directory: Path) -> dict[str, Any]:
    manifest = json.loads((directory / MANIFEST).read_text())
    if manifest["format_version"] not in _RANKING:
        raise MissingObject(
            f"checkpoint {directory}: expected format version {' or '.join(map(str, _RANKING))}, found "
            f"{manifest['format_version']}. {_AGAIN}"
        )
    return manifest


def _require_intact(directory: Path, manifest: dict[str, Any], files: Sequence[str]) -> None:
    """Compare files with the digests that the manifest has of them."""
    for file in files:
        expected, found = manifest["sha256"][file], file_digest(directory / file)
        if found != expected:
            raise MissingObject(
                f"checkpoint {directory}: {file} is damaged: expected sha256 {expected}, found {found}. {_AGAIN}"
            )


def restore_model(checkpoint: Checkpoint, data: TrainingData) -> Model | ClosedFormModel:
    """
    Rebuild the trained model from a checkpoint and the data it was trained on.

    Serving needs only the checkpoint's ranker; this is for further study of the model itself.
    """
    model = build_model(checkpoint.model, checkpoint.config, data, checkpoint.seed)
    model.load_state_dict(checkpoint.parameters)
    return model
