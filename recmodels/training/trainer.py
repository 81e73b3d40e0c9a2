"""How every model is trained: sampled epochs with early stopping and exact resumption, or solved in closed form."""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor

from recmodels.errors import InputError, PermanentFailure
from recmodels.evaluation.evaluator import ValidationRecall, recall_at, validation_k
from recmodels.models.base import Batch, ClosedFormModel, Model
from recmodels.models.inputs import TrainingData
from recmodels.ranking.ranker import Ranker
from recmodels.training import state as training_state
from recmodels.training.pairs import TrainingPairs, training_pairs
from recmodels.training.recorded import StepRecorder, records_steps

STEPS_BETWEEN_CHECKS = 64
"""Steps after which losses are read from the device and checked to be finite."""


@dataclass(frozen=True)
class EpochRecord:
    """
    What happened in one epoch; for a model in closed form, with one choice of its settings.

    Attributes
    ----------
    epoch
        Counted from 0.
    loss
        Mean over the batches; `parts` holds the weighted parts whose sum it is. NaN for a model in closed form.
    valid_recall
        Recall@20 on the validation pairs, after the epoch.
    best_epoch
        Epoch with the best `valid_recall` so far.
    learning_rate
        Of the epoch.
    seconds
        Wall time of training, and of training and validation together.
    """

    epoch: int
    loss: float
    parts: dict[str, float]
    valid_recall: float
    best_epoch: int
    learning_rate: float
    training_seconds: float
    seconds: float


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
    return _train(model, data, seed, on_epoch, state_directory)


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


def _train(
    model: Model,
    data: TrainingData,
    seed: int,
    on_epoch: Iterable[Callable[[EpochRecord], None]],
    state_directory: Path | None,
) -> FitResult:
    """Train in gradient steps."""
    config = model.config.training
    pairs = training_pairs(model, data)
    validation = ValidationRecall(data.train_matrix(), data.valid_matrix(), validation_k(data.n_items), model.device)
    optimiser = torch.optim.Adam(
        model.parameters(),
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        fused=True,
        capturable=model.device.type == "cuda",
    )
    generator = torch.Generator(model.device).manual_seed(_loop_seed(seed))
    loop = _Loop(model, optimiser, generator)

    stopping = training_state.EarlyStopping()
    fingerprint = training_state.fingerprint(model, data, seed)
    if state_directory is not None:
        stopping = training_state.restore(state_directory, fingerprint, model, optimiser, generator) or stopping
    while stopping.next_epoch < config.epochs and stopping.stale <= config.patience:
        epoch = stopping.next_epoch
        started = time.perf_counter()
        learning_rate, parts = loop.run_epoch(epoch, pairs)
        training_seconds = time.perf_counter() - started
        valid_recall = validation(model.ranker())
        stopping.observe(valid_recall, model)
        record = EpochRecord(
            epoch=epoch,
            loss=sum(parts.values()),
            parts=parts,
            valid_recall=valid_recall,
            best_epoch=stopping.best_epoch,
            learning_rate=learning_rate,
            training_seconds=training_seconds,
            seconds=time.perf_counter() - started,
        )
        stopping.history.append(_history_row(record))
        if state_directory is not None and stopping.next_epoch % config.checkpoint_interval == 0:
            training_state.save(state_directory, fingerprint, stopping, model, optimiser, generator)
        for callback in on_epoch:
            callback(record)

    model.load_state_dict(stopping.best_parameters)
    return FitResult(
        history=pl.DataFrame(stopping.history),
        best_epoch=stopping.best_epoch,
        best_valid_recall=stopping.best_value,
        stopped_early=stopping.stale > config.patience,
        ranker=model.ranker().cpu(),
        n_left_out=pairs.n_left_out,
        n_steps=stopping.next_epoch * math.ceil(len(pairs.users) / model.batch_size),
    )


class _Loop:
    """One epoch after another over sampled batches."""

    def __init__(self, model: Model, optimiser: torch.optim.Optimizer, generator: torch.Generator) -> None:
        self.model, self.optimiser, self.generator = model, optimiser, generator
        self.config = model.config.training
        self.loss = torch.compile(model.loss) if self.config.compile else model.loss
        self.names: list[str] = []
        self.recorder = StepRecorder(self._step, model.device) if records_steps(model) else None

    def run_epoch(self, epoch: int, pairs: TrainingPairs) -> tuple[float, dict[str, float]]:
        """Train one epoch; return its step size and the mean over the batches of each part of the loss."""
        config, users, positives, sampler = self.config, pairs.users, pairs.positives, pairs.sampler
        learning_rate = config.learning_rate * config.learning_rate_factor ** (epoch / config.learning_rate_interval)
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate
        self.model.train()
        self.model.on_epoch_start(epoch, self.generator)
        shared = config.loss == "sampled_softmax"
        negatives = sampler.sample(users, self.generator) if sampler is not None and not shared else users[:0]
        order = torch.randperm(len(users), generator=self.generator, device=users.device)
        users, positives = users[order], positives[order]
        negatives = negatives[order] if len(negatives) else negatives

        batch_size = self.model.batch_size
        n_batches = math.ceil(len(users) / batch_size)
        totals: dict[str, float] = {}
        values: list[Tensor] = []
        step = self._step if self.recorder is None else self.recorder.new_epoch(self.generator)
        for batch in range(n_batches):
            part = slice(batch * batch_size, (batch + 1) * batch_size)
            try:
                drawn: tuple[Tensor, Tensor | None] = negatives[part], None
                if sampler is not None and shared:
                    drawn = sampler.sample_shared(users[part], config.n_shared_negatives, self.generator)
                values.append(step(Batch(users[part], positives[part], *drawn)))
            except torch.OutOfMemoryError as error:
                raise PermanentFailure(
                    f"training, epoch {epoch}, batch {batch} of {n_batches}: the device ran out of memory. Lower "
                    f"training.batch_size (now {batch_size}) or embedding_size, or set training.device to cpu."
                ) from error
            if len(values) == STEPS_BETWEEN_CHECKS or batch == n_batches - 1:
                self._add(values, totals, f"epoch {epoch}", batch - len(values) + 1, n_batches)
                values = []
        return learning_rate, {name: total / n_batches for name, total in totals.items()}

    def _step(self, batch: Batch) -> Tensor:
        """Take a step; return the parts of the loss, on the device, in the order of `names`."""
        self.optimiser.zero_grad(set_to_none=True)
        with torch.autocast(batch.users.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16"):
            parts = self.loss(batch)
            total = torch.stack(list(parts.values())).sum()
        total.backward()
        for parameter in self.model.parameters():
            # What a batch does not read has a gradient of zero, not none: Adam's momentum goes on moving it, as in the
            # published programs. Else what LATTICE reads once an epoch would hardly move.
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self.optimiser.step()
        self.names = list(parts)
        return torch.stack([part.detach() for part in parts.values()])

    def _add(self, values: list[Tensor], totals: dict[str, float], epoch: str, first: int, n_batches: int) -> None:
        """Add the losses of several steps to the totals: the one place where a training waits for the device."""
        for batch, row in enumerate(torch.stack(values).tolist(), first):
            parts = dict(zip(self.names, row, strict=True))
            if not all(math.isfinite(value) for value in row):
                raise PermanentFailure(
                    f"training, {epoch}, batch {batch} of {n_batches}: the loss is not finite ({parts}). Lower "
                    f"training.learning_rate (now {self.optimiser.param_groups[0]['lr']:g})"
                    + (", or train in float32." if self.config.precision != "float32" else ".")
                )
            for name, value in parts.items():
                totals[name] = totals.get(name, 0.0) + value


def _loop_seed(seed: int) -> int:
    """Return a seed for the loop that shares no stream with the parameters' initialisation."""
    return int(np.random.SeedSequence([seed, 1]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _history_row(record: EpochRecord) -> dict[str, float | int]:
    return {
        "epoch": record.epoch,
        "loss": record.loss,
        **{f"loss_{name}": value for name, value in record.parts.items()},
        "valid_recall": record.valid_recall,
        "learning_rate": record.learning_rate,
        "training_seconds": record.training_seconds,
        "seconds": record.seconds,
    }
