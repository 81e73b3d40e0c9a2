"""From a configuration and data to a stored checkpoint, in one call."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import polars as pl

from recmodels.checkpoints.store import Checkpoint, write_checkpoint
from recmodels.models.base import AnyModel
from recmodels.models.config import AnyConfig
from recmodels.models.inputs import TrainingData
from recmodels.models.registry import build_model
from recmodels.training.state import discard
from recmodels.training.trainer import EpochRecord, FitResult, fit


def train_checkpoint(
    directory: Path,
    name: str,
    config: AnyConfig,
    data: TrainingData,
    *,
    seed: int,
    users: pl.DataFrame,
    items: pl.DataFrame,
    provenance: dict[str, Any],
    on_epoch: Iterable[Callable[[EpochRecord], None]] = (),
    state_directory: Path | None = None,
) -> FitResult:
    """
    Build a model, train it and write its checkpoint; see `build_model`, `fit` and `save_checkpoint`.

    `directory` must not exist yet; it appears when it is complete, and only then the training's state is removed.
    """
    model = build_model(name, config, data, seed)
    result = fit(model, data, seed=seed, on_epoch=on_epoch, state_directory=state_directory)
    save_checkpoint(
        directory,
        name=name,
        model=model,
        result=result,
        data=data,
        seed=seed,
        users=users,
        items=items,
        provenance=provenance,
    )
    if state_directory is not None:
        discard(state_directory)
    return result


def save_checkpoint(
    directory: Path,
    *,
    name: str,
    model: AnyModel,
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
    summary = {
        "best_epoch": result.best_epoch,
        "best_valid_recall@20": result.best_valid_recall,
        "stopped_early": result.stopped_early,
        "pairs_left_out": result.n_left_out,
    }
    checkpoint = Checkpoint(
        model=name,
        config=model.config,
        seed=seed,
        parameters=model.state_dict(),
        ranker=result.ranker,
        history=result.history,
        provenance=provenance | {"training": summary},
        users=users.select("user_id", "reviewer_id"),
        items=items.select("item_id", "asin"),
        seen=seen,
    )
    write_checkpoint(directory, checkpoint)
