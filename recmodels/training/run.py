"""From a configuration and data to a stored checkpoint, in one call."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import polars as pl

from recmodels.checkpoints.store import Checkpoint, write_checkpoint
from recmodels.compute.base import Compute
from recmodels.compute.local import LOCAL
from recmodels.models.base import AnyModel, Model
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
    compute: Compute = LOCAL,
) -> FitResult:
    """
    Build a model, train it and write its checkpoint; see `build_model`, `fit` and `save_checkpoint`.

    `directory` must not exist yet; it appears when it is complete, and only then the training's state is removed.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from recmodels.models.example import example_data, example_tables
    >>> from recmodels.models.registry import resolve_config
    >>> tables = example_tables()
    >>> facts = {"users": tables["users"], "items": tables["item_ids"], "provenance": {"note": "made up"}}
    >>> with TemporaryDirectory() as folder:
    ...     result = train_checkpoint(
    ...         Path(folder) / "ease", "ease", resolve_config("ease"), example_data(), seed=0, **facts
    ...     )
    >>> result.history.columns
    ['epoch', 'penalty', 'valid_recall', 'training_seconds', 'seconds']
    """
    model = build_model(name, config, data, seed)
    result = fit(model, data, seed=seed, on_epoch=on_epoch, state_directory=state_directory, compute=compute)
    tables = {"users": users, "items": items}
    save_checkpoint(
        directory, name=name, model=model, result=result, data=data, seed=seed, provenance=provenance, **tables
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
    pairs = (("train", data.train_users, data.train_items), ("valid", data.valid_users, data.valid_items))
    seen = pl.concat(
        pl.DataFrame({"user_id": ids[0], "item_id": ids[1]}, {"user_id": pl.Int32, "item_id": pl.Int32}).with_columns(
            split=pl.lit(split)
        )
        for split, *ids in pairs
    )
    summary = {
        "best_epoch": result.best_epoch,
        "best_valid_recall@20": result.best_valid_recall,
        "stopped_early": result.stopped_early,
        "pairs_left_out": result.n_left_out,
        **({"batch_size": model.batch_size, "steps": result.n_steps} if isinstance(model, Model) else {}),
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
