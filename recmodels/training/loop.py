"""
The epochs of a training in gradient steps: sampled batches, early stopping, exact resumption.

The same loop runs where a training is one process and where several share the embedding columns; which it is, and
models in closed form, are decided in `recmodels.training.trainer`.
"""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from recmodels.errors import PermanentFailure
from recmodels.evaluation.evaluator import ValidationRecall, validation_k
from recmodels.models.base import Batch, Model
from recmodels.models.inputs import TrainingData
from recmodels.models.layers import columns
from recmodels.ranking.ranker import EmbeddingScorer
from recmodels.training import state as training_state
from recmodels.training.memory import freed_memory_kept
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
class Trained:
    """
    What the loop ends with.

    Attributes
    ----------
    stopping
        The history, and the parameters of the best epoch: those that this process holds.
    n_left_out, n_steps
        As in `recmodels.training.trainer.FitResult`.
    """

    stopping: training_state.EarlyStopping
    n_left_out: int
    n_steps: int


@freed_memory_kept()
def train(
    model: Model,
    data: TrainingData,
    seed: int,
    on_epoch: Iterable[Callable[[EpochRecord], None]],
    state_directory: Path | None,
) -> Trained:
    """Train in gradient steps, see `recmodels.training.trainer.fit`; the model is left with its last parameters."""
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
        ranker = model.ranker()
        if columns.n_processes() > 1 and isinstance(ranker, EmbeddingScorer):
            ranker = EmbeddingScorer(columns.whole(ranker.user_embeddings), columns.whole(ranker.item_embeddings))
        valid_recall = columns.agreed(partial(validation, ranker))
        del ranker
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

    return Trained(stopping, pairs.n_left_out, stopping.next_epoch * math.ceil(len(pairs.users) / model.batch_size))


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
