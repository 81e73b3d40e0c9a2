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
from recmodels.models.base import Model
from recmodels.models.config import ModelConfig
from recmodels.models.registry import build_model, resolve_config
from recmodels.storage import MANIFEST, atomic_directory, file_digest
from recmodels.training.data import TrainingData
from recmodels.training.trainer import FitResult

FORMAT_VERSION = 1
_FILES = (
    "model.safetensors",
    "embeddings.safetensors",
    "config.json",
    "history.parquet",
    "provenance.json",
    "users.parquet",
    "items.parquet",
    "seen.parquet",
)
_AGAIN = "Restore it, or train the model again."


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """
    A trained model as it is stored.

    Attributes
    ----------
    model
        Its name in the registry.
    config
        Its resolved configuration.
    seed
        Of initialisation and training.
    parameters
        The trained parameters by name.
    user_embeddings, item_embeddings
        (n_users, d) and (n_items, d) float32; the score is their inner product.
    history
        One row an epoch, see `FitResult`.
    provenance
        What the caller recorded about the inputs.
    users, items
        The id maps: user_id, reviewer_id; item_id, asin.
    seen
        user_id, item_id, split of the training and validation pairs.
    """

    model: str
    config: ModelConfig
    seed: int
    parameters: dict[str, Tensor]
    user_embeddings: Tensor
    item_embeddings: Tensor
    history: pl.DataFrame
    provenance: dict[str, Any]
    users: pl.DataFrame
    items: pl.DataFrame
    seen: pl.DataFrame


def save_checkpoint(
    directory: Path,
    *,
    name: str,
    model: Model,
    result: FitResult,
    data: TrainingData,
    seed: int,
    users: pl.DataFrame,
    items: pl.DataFrame,
    provenance: dict[str, Any],
) -> None:
    """
    Write a trained model to a new directory, whole or not at all.

    Parameters
    ----------
    directory
        Must not exist yet.
    name
        The model's name in the registry.
    model, result, data, seed
        As they came out of, and went into, `fit`.
    users
        Columns user_id, reviewer_id (schema `USERS`), in id order.
    items
        Columns item_id, asin at least (schema `ITEMS` has them), in id order.
    provenance
        JSON-ready facts about the inputs: data versions, split digest, code version.
    """
    seen = pl.concat(
        pl.DataFrame(
            {"user_id": pair[0], "item_id": pair[1]}, schema={"user_id": pl.Int32, "item_id": pl.Int32}
        ).with_columns(split=pl.lit(split))
        for split, pair in (("train", data.train_pairs), ("valid", (data.valid_users, data.valid_items)))
    )
    config = {"model": name, "seed": seed, "config": model.config.model_dump(mode="json")}
    with atomic_directory(directory) as temporary:
        save_file({key: value.contiguous() for key, value in model.state_dict().items()}, temporary / _FILES[0])
        save_file({"users": result.user_embeddings, "items": result.item_embeddings}, temporary / _FILES[1])
        (temporary / "config.json").write_text(json.dumps(config, indent=2))
        result.history.write_parquet(temporary / "history.parquet")
        summary = {
            "best_epoch": result.best_epoch,
            "best_valid_recall@20": result.best_valid_recall,
            "stopped_early": result.stopped_early,
        }
        (temporary / "provenance.json").write_text(json.dumps(provenance | {"training": summary}, indent=2))
        users.select("user_id", "reviewer_id").write_parquet(temporary / "users.parquet")
        items.select("item_id", "asin").write_parquet(temporary / "items.parquet")
        seen.write_parquet(temporary / "seen.parquet")
        manifest = {
            "format_version": FORMAT_VERSION,
            "sha256": {file: file_digest(temporary / file) for file in _FILES},
        }
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=2))


def load_checkpoint(directory: Path) -> Checkpoint:
    """
    Read a checkpoint and verify each of its files.

    Raises
    ------
    MissingObject
        If the directory or one of its files is absent, cut off or altered; the file is named.
    """
    with _readable(directory):
        _require_intact(directory, _FILES)
        config = json.loads((directory / "config.json").read_text())
        embeddings = load_file(directory / "embeddings.safetensors")
        return Checkpoint(
            model=config["model"],
            config=resolve_config(config["model"], config["config"]),
            seed=config["seed"],
            parameters=load_file(directory / "model.safetensors"),
            user_embeddings=embeddings["users"],
            item_embeddings=embeddings["items"],
            history=pl.read_parquet(directory / "history.parquet"),
            provenance=json.loads((directory / "provenance.json").read_text()),
            users=pl.read_parquet(directory / "users.parquet"),
            items=pl.read_parquet(directory / "items.parquet"),
            seen=pl.read_parquet(directory / "seen.parquet"),
        )


def load_history(directory: Path) -> pl.DataFrame:
    """
    Read the history of a checkpoint alone, verified.

    Raises
    ------
    MissingObject
        As `load_checkpoint`.
    """
    with _readable(directory):
        _require_intact(directory, ["history.parquet"])
        return pl.read_parquet(directory / "history.parquet")


@contextlib.contextmanager
def _readable(directory: Path) -> Generator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, SafetensorError, pl.exceptions.PolarsError) as error:
        raise MissingObject(
            f"checkpoint {directory}: expected the files {', '.join((MANIFEST, *_FILES))}, found {error}. {_AGAIN}"
        ) from error


def _require_intact(directory: Path, files: Sequence[str]) -> None:
    """Compare files with the digests that the manifest has of them."""
    manifest = json.loads((directory / MANIFEST).read_text())
    if manifest["format_version"] != FORMAT_VERSION:
        raise MissingObject(
            f"checkpoint {directory}: expected format version {FORMAT_VERSION}, found "
            f"{manifest['format_version']}. {_AGAIN}"
        )
    for file in files:
        expected, found = manifest["sha256"][file], file_digest(directory / file)
        if found != expected:
            raise MissingObject(
                f"checkpoint {directory}: {file} is damaged: expected sha256 {expected}, found {found}. {_AGAIN}"
            )


def restore_model(checkpoint: Checkpoint, data: TrainingData) -> Model:
    """
    Rebuild the trained model from a checkpoint and the data it was trained on.

    Serving needs only the checkpoint's embeddings; this is for further study of the model itself.
    """
    model = build_model(checkpoint.model, checkpoint.config, data, checkpoint.seed)
    model.load_state_dict(checkpoint.parameters)
    return model
