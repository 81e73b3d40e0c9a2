"""From a configuration and data to a stored checkpoint, in one call."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import polars as pl

from recmodels.models.config import AnyConfig
from recmodels.models.registry import build_model
from recmodels.training.checkpoint import save_checkpoint
from recmodels.training.data import TrainingData
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
