"""
A training in several processes, each with some columns of the embeddings: how they are started, watched and joined.

What each of them does is the loop's (`recmodels.training.loop`), and what passes between them meanwhile that of
`recmodels.models.layers.columns`. All draw the same batches, from the same seed; the first ranks and decides.
"""

import contextlib
import os
import queue
import signal
import tempfile
import threading
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from multiprocessing import connection, get_all_start_methods, parent_process
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.distributed as dist
from torch import multiprocessing, nn

from recmodels.errors import RecmodelsError, TransientFailure
from recmodels.models.base import Model
from recmodels.models.config import ModelConfig
from recmodels.models.inputs import TrainingData
from recmodels.models.layers import columns
from recmodels.training.loop import EpochRecord, Trained, train

Columns = dict[str, np.ndarray]
"""Some columns of every parameter, by its name."""
Send = Callable[[object], None]
"""Takes what a process has to tell: records of epochs, warnings, an error, and its `Part` in the end."""
LONGEST_WAIT = timedelta(days=1)
"""For another process; one that dies is noticed at once."""
_GRACE_SECONDS = 5.0


@dataclass(frozen=True, eq=False)
class Job:
    """What every process is given: the class of the model, its configuration with a shard's width, and the rest."""

    model: type[Model]
    config: ModelConfig
    data: TrainingData
    seed: int
    state_directory: Path | None
    deciding_threads: int


@dataclass(frozen=True, eq=False)
class Part:
    """What a process ends with: its place, its columns of the best epoch, and what all have alike."""

    rank: int
    best: Columns
    trained: Trained


Start = Callable[[Job, list[Columns]], AbstractContextManager[Iterator[object]]]
"""Starts a process for each list entry, where that is; gives what they tell, and ends all of them."""


def train_in_shards(
    model: Model,
    data: TrainingData,
    seed: int,
    on_epoch: Iterable[Callable[[EpochRecord], None]],
    state_directory: Path | None,
    start: Start,
) -> Trained:
    """
    Train a model in as many processes as its configuration names shards; see `recmodels.training.trainer.fit`.

    Parameters
    ----------
    start
        Starts the processes: `started_here`, or on a cluster `recmodels.training.on_ray.started`.

    Returns
    -------
    Trained
        With all columns of the best epoch's parameters.

    Raises
    ------
    InputError
        If a model of this class cannot be trained in so many shards.
    TransientFailure
        If a process is lost: the same call goes on from the last state.
    """
    config = cast(ModelConfig, model.config)
    model.check_shards(config)
    shards, callbacks = config.training.shards, list(on_epoch)
    training = config.training.model_copy(update={"device": model.device.type})
    narrow = config.model_copy(update={"embedding_size": config.embedding_size // shards, "training": training})
    job = Job(type(model), narrow, data, seed, state_directory, torch.get_num_threads())
    initial = _cut(model, shards)
    parts: dict[int, Part] = {}
    told = -1
    with start(job, initial) as messages:
        for message in messages:
            if isinstance(message, EpochRecord):
                if message.epoch <= told:
                    # Done again, by processes in the place of lost ones.
                    continue
                told = message.epoch
                for callback in callbacks:
                    callback(message)
            elif isinstance(message, Warning):
                warnings.warn(message, stacklevel=2)
            elif isinstance(message, BaseException):
                raise message
            elif isinstance(message, Part):
                parts[message.rank] = message
                if len(parts) == shards:
                    break
    joined = _joined([parts[rank].best for rank in range(shards)], model)
    best = {name: torch.from_numpy(values).to(model.device) for name, values in joined.items()}
    return replace(parts[0].trained, stopping=replace(parts[0].trained.stopping, best_parameters=best))


def train_part(job: Job, initial: Columns, send: Send) -> None:
    """Train some columns, in one of the processes of torch's default group; errors that are ours are sent."""
    rank = dist.get_rank()
    if job.config.training.device == "cuda":
        torch.cuda.set_device(rank % torch.cuda.device_count())
    folder = job.state_directory and job.state_directory / f"shard-{rank}-of-{dist.get_world_size()}"
    with columns.shared(deciding_threads=job.deciding_threads), warnings.catch_warnings():
        warnings.simplefilter("always" if rank == 0 else "ignore")
        # What comes from another machine is read where it lies, and not written to.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        warnings.showwarning = partial(_tell, send)
        try:
            model = job.model(job.config, job.data, torch.Generator().manual_seed(job.seed))
            model = model.to(model.device)
            model.load_state_dict({name: torch.from_numpy(values) for name, values in initial.items()})
            trained = train(model, job.data, job.seed, [send] if rank == 0 else [], folder)
        except RecmodelsError as error:
            send(error)
            return
    best = {name: tensor.cpu().numpy() for name, tensor in trained.stopping.best_parameters.items()}
    send(Part(rank, best, replace(trained, stopping=replace(trained.stopping, best_parameters={}))))


def _tell(send: Send, message: Warning | str, *_about: object, **_more: object) -> None:
    send(message)


def _axes(model: Model) -> dict[str, int]:
    """Return which dimension of each parameter the embedding columns are."""
    return {
        f"{prefix}{'.' if prefix else ''}{name}": 0 if isinstance(module, nn.Linear) else 1
        for prefix, module in model.named_modules()
        for name, _ in module.named_parameters(recurse=False)
    }


def _cut(model: Model, shards: int) -> list[Columns]:
    whole = {name: tensor.cpu().numpy() for name, tensor in model.state_dict().items()}
    cut = {name: np.split(whole[name], shards, axis) for name, axis in _axes(model).items()}
    return [{name: np.ascontiguousarray(parts[rank]) for name, parts in cut.items()} for rank in range(shards)]


def _joined(parts: list[Columns], model: Model) -> Columns:
    return {name: np.concatenate([part[name] for part in parts], axis) for name, axis in _axes(model).items()}


@contextlib.contextmanager
def started_here(job: Job, initial: list[Columns]) -> Generator[Iterator[object]]:
    """Start a process for each cut on this machine; yield what they tell. All are ended on the way out."""
    # Forked from a server that does nothing but hold what is imported, so that they start at once, also the next time.
    # Adam imports the second.
    context: Any = multiprocessing.get_context("forkserver" if "forkserver" in get_all_start_methods() else "spawn")
    context.set_forkserver_preload([__name__, "torch._dynamo"])
    inbox: Any = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        meeting = f"file://{folder}/meeting"
        processes: list[BaseProcess] = [
            context.Process(
                target=_process, args=(job, cut, rank, len(initial), meeting, inbox), name=f"shard-{rank}", daemon=True
            )
            for rank, cut in enumerate(initial)
        ]
        try:
            for process in processes:
                process.start()
            yield _told(inbox, processes)
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.join(_GRACE_SECONDS)
                process.kill()
                process.join()
            inbox.close()
            inbox.cancel_join_thread()


def _told(inbox: Any, processes: list[BaseProcess]) -> Iterator[object]:
    while True:
        # Before what they told is read: what a process told before it ended counts.
        lost = {process.exitcode: process.name for process in processes if process.exitcode}
        try:
            yield inbox.get(timeout=0.2)
        except queue.Empty:
            if lost:
                # One that was killed first: the others end because of it.
                raise TransientFailure(
                    f"training in {len(processes)} processes: {lost[min(lost)]} ended with exit code {min(lost)}. The "
                    "same call goes on from the last saved state, where it has a state directory."
                ) from None


def _process(job: Job, initial: Columns, rank: int, shards: int, meeting: str, inbox: Any) -> None:
    """Run in a process of its own."""
    # An interrupt reaches the whole group of a terminal; the process that started this one ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=shards, timeout=LONGEST_WAIT)
    train_part(job, initial, inbox.put)


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
