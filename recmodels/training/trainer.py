"""How every model is trained: in epochs, by this process or by several, or solved in closed form."""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import polars as pl

from recmodels.compute.base import Compute
from recmodels.compute.local import LOCAL
from recmodels.errors import InputError
from recmodels.evaluation.evaluator import recall_at, validation_k
from recmodels.models.base import ClosedFormModel, Model
from recmodels.models.inputs import TrainingData
from recmodels.ranking.ranker import Ranker
from recmodels.training.launch import Start, started_here, train_in_shards
from recmodels.training.loop import EpochRecord, train


@dataclass(frozen=True, eq=False)
class FitResult:
    """
    A finished training.

    Attributes
    ----------
    history
        One row an epoch: epoch, loss, ``loss_<part>`` columns, valid_recall, learning_rate, training_seconds, seconds.
        Of a model in closed form, one row a choice that was tried: its settings in place of loss and learning rate.
    best_epoch, best_valid_recall
        The epoch whose parameters were kept, and its Recall@20 on the validation pairs.
    stopped_early
        Whether the patience ended before the epochs did.
    ranker
        The final ranking of the best epoch, on the CPU.
    n_left_out
        Training pairs that entered no loss, since their user has every item (`recmodels.training.pairs`).
    n_steps
        Optimiser steps in all; 0 of a model in closed form.
    """

    history: pl.DataFrame
    best_epoch: int
    best_valid_recall: float
    stopped_early: bool
    ranker: Ranker
    n_left_out: int = 0
    n_steps: int = 0


def fit(
    model: Model | ClosedFormModel,
    data: TrainingData,
    *,
    seed: int,
    on_epoch: Iterable[Callable[[EpochRecord], None]] = (),
    state_directory: Path | None = None,
    compute: Compute = LOCAL,
) -> FitResult:
    """
    Train a model until its validation Recall@20 stops rising; it is left with the parameters of its best epoch.

    With fewer than 40 items it is the Recall of half of them (`recmodels.evaluation.evaluator.validation_k`).

    A model in closed form is solved with each choice of its settings, and left with that of the best Recall@20.

    Parameters
    ----------
    model
        Freshly built. Its configuration holds the loop's settings.
    data
        The data the model was built from.
    seed
        Source of shuffling, negatives, edge dropping and noise. On a CPU the same seed gives identical parameters.
    on_epoch
        Called in turn after each epoch, for logs and stopping.
    state_directory
        Where to keep what is needed to go on after a crash. If it holds a state of the same training, that training
        continues as if it had never stopped. The last state stays there; `recmodels.training.state.discard` removes it.
        A model in closed form keeps none.
    compute
        Where the processes of a training in several shards run; all others are trained in this one.

    Raises
    ------
    InputError
        If there are no validation pairs, or the state belongs to another training.
    PermanentFailure
        If the loss stops being finite, or the device runs out of memory.

    Examples
    --------
    >>> import torch
    >>> from recmodels.models.config import TrainingConfig
    >>> from recmodels.models.example import example_data
    >>> from recmodels.models.zoo import lightgcn
    >>> config = lightgcn.Config(training=TrainingConfig(epochs=3, device="cpu"))
    >>> data = example_data()
    >>> model = lightgcn.Model(config, data, torch.Generator().manual_seed(0))
    >>> result = fit(model, data, seed=0, on_epoch=[lambda record: print("epoch", record.epoch)])
    epoch 0
    epoch 1
    epoch 2
    >>> result.ranker.user_embeddings.shape
    torch.Size([12, 64])
    """
    if data.valid_users.size == 0:
        raise InputError("validation pairs", expected="at least one, to stop training by", found="none")
    if isinstance(model, ClosedFormModel):
        return _solve(model, data, on_epoch)
    if model.config.training.shards == 1:
        trained = train(model, data, seed, on_epoch, state_directory)
    else:
        start = _start_on(compute)
        trained = train_in_shards(model, data, seed, on_epoch, state_directory, start)
    stopping = trained.stopping
    model.load_state_dict(stopping.best_parameters)
    return FitResult(
        history=pl.DataFrame(stopping.history),
        best_epoch=stopping.best_epoch,
        best_valid_recall=stopping.best_value,
        stopped_early=stopping.stale > model.config.training.patience,
        ranker=model.ranker().cpu(),
        n_left_out=trained.n_left_out,
        n_steps=trained.n_steps,
    )


def _start_on(compute: Compute) -> Start:
    if compute.engine == LOCAL.engine:
        return started_here
    from recmodels.compute.on_ray import OnRay
    from recmodels.training.on_ray import started

    if not isinstance(compute, OnRay):
        raise InputError("training.shards", expected="an engine that starts processes", found=compute.engine)
    return partial(started, compute)


def _solve(model: ClosedFormModel, data: TrainingData, on_epoch: Iterable[Callable[[EpochRecord], None]]) -> FitResult:
    """Try each choice of the settings in turn; of equally good ones the first is kept."""
    train_matrix, valid_matrix = data.train_matrix(), data.valid_matrix()
    callbacks = list(on_epoch)
    history: list[dict[str, float | int]] = []
    best_epoch, best_recall = 0, -math.inf
    for epoch, values in enumerate(model.choices):
        started = time.perf_counter()
        model.choose(values)
        ranker = model.ranker()
        training_seconds = time.perf_counter() - started
        valid_recall = recall_at(ranker, train_matrix, valid_matrix, validation_k(data.n_items))
        # The next solution is made when this one is gone: it may be most of the memory.
        del ranker
        if valid_recall > best_recall:
            best_epoch, best_recall = epoch, valid_recall
        seconds = time.perf_counter() - started
        history.append(
            {
                "epoch": epoch,
                **dict(zip(model.settings, values, strict=True)),
                "valid_recall": valid_recall,
                "training_seconds": training_seconds,
                "seconds": seconds,
            }
        )
        record = EpochRecord(epoch, math.nan, {}, valid_recall, best_epoch, math.nan, training_seconds, seconds)
        for callback in callbacks:
            callback(record)
    model.choose(model.choices[best_epoch])
    return FitResult(
        history=pl.DataFrame(history),
        best_epoch=best_epoch,
        best_valid_recall=best_recall,
        stopped_early=False,
        ranker=model.ranker(),
    )
