"""The state of an unfinished training: what has to be kept so that a killed run goes on as if it had never stopped."""

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from recmodels.errors import InputError
from recmodels.io.digest import digest_of
from recmodels.io.files import atomic_directory
from recmodels.models.base import Model
from recmodels.models.inputs import TrainingData
from recmodels.models.layers import columns

_TENSORS = "state.safetensors"
_RECORD = "state.json"


@dataclass
class EarlyStopping:
    """What early stopping goes by: the history so far, the best epoch and its parameters."""

    history: list[dict[str, float | int]] = field(default_factory=list)
    best_epoch: int = -1
    best_value: float = float("-inf")
    best_parameters: dict[str, Tensor] = field(default_factory=dict)

    @property
    def next_epoch(self) -> int:
        """Epochs that are over."""
        return len(self.history)

    @property
    def stale(self) -> int:
        """Epochs since the best one."""
        return self.next_epoch - 1 - self.best_epoch

    def observe(self, value: float, model: Model) -> None:
        """Take note of the validation figure of the epoch that just ended, before its row enters the history."""
        if value > self.best_value:
            self.best_epoch = self.next_epoch
            self.best_value = value
            self.best_parameters = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def fingerprint(model: Model, data: TrainingData, seed: int) -> str:
    """Return the digest of what makes two trainings the same: model, settings, pairs with their times, and seed."""
    settings = model.config.model_dump(mode="json", exclude={"training": {"epochs", "checkpoint_interval"}})
    pairs = [data.train_users, data.train_items, data.valid_users, data.valid_items]
    pairs += [] if data.train_times is None else [data.train_times]
    follows_data = model.batch_size != model.config.training.batch_size
    return digest_of(
        type(model).__module__,
        json.dumps(settings),
        str(seed),
        *([f"batches of {model.batch_size}"] if follows_data else []),
        *(digest_of(values.tobytes().hex()) for values in pairs),
    )


def save(
    directory: Path,
    fingerprint: str,
    stopping: EarlyStopping,
    model: Model,
    optimiser: torch.optim.Optimizer,
    generator: torch.Generator,
) -> None:
    """Write the state after an epoch as a directory of its own, whole or not at all, and drop the one before."""
    tensors = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {f"best/{name}": tensor for name, tensor in stopping.best_parameters.items()}
    for index, entries in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser/{index}/{name}": tensor for name, tensor in entries.items()}
    tensors["generator"] = generator.get_state()
    record = {
        "fingerprint": fingerprint,
        "history": stopping.history,
        "best_epoch": stopping.best_epoch,
        "best_value": stopping.best_value,
    }
    saved = _saved(directory)
    target = directory / f"epoch-{stopping.next_epoch:05d}"
    if target not in saved:
        with atomic_directory(target) as temporary:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary / _TENSORS)
            (temporary / _RECORD).write_text(json.dumps(record))
    # Where several processes save, each keeps the older state until all have the new one.
    columns.least(stopping.next_epoch)
    for path in saved:
        if path != target:
            shutil.rmtree(path)


def restore(
    directory: Path, fingerprint: str, model: Model, optimiser: torch.optim.Optimizer, generator: torch.Generator
) -> EarlyStopping | None:
    """
    Put model, optimiser and generator back into the newest saved state; return None if there is none.

    Where several processes train, it is the newest that all have.

    Raises
    ------
    InputError
        If the state is damaged or belongs to a training with another model, data, settings or seed.
    """
    saved = _saved(directory)
    epoch = columns.least(int(saved[-1].name.removeprefix("epoch-")) if saved else 0)
    if not epoch:
        return None
    newest = directory / f"epoch-{epoch:05d}"
    try:
        record: dict[str, Any] = json.loads((newest / _RECORD).read_text())
        tensors = load_file(newest / _TENSORS)
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(
            str(newest), expected="a whole training state", found=str(error), action="Delete it to start anew."
        ) from error
    if record["fingerprint"] != fingerprint:
        raise InputError(
            str(newest),
            expected="a state of this training",
            found="that of another model, data, settings or seed",
            action="Name another directory, or delete it to start anew.",
        )
    device = next(model.parameters()).device
    groups = _grouped(tensors)
    model.load_state_dict(groups["model"])
    optimiser_state = optimiser.state_dict()
    optimiser_state["state"] = {}
    for name, tensor in groups.get("optimiser", {}).items():
        index, entry = name.split("/")
        optimiser_state["state"].setdefault(int(index), {})[entry] = tensor
    optimiser.load_state_dict(optimiser_state)
    generator.set_state(tensors["generator"])
    return EarlyStopping(
        history=record["history"],
        best_epoch=record["best_epoch"],
        best_value=record["best_value"],
        best_parameters={name: tensor.to(device) for name, tensor in groups["best"].items()},
    )


def discard(directory: Path) -> None:
    """Remove the state directory of a training that is over and stored."""
    if directory.is_dir():
        shutil.rmtree(directory)


def _saved(directory: Path) -> list[Path]:
    return sorted(directory.glob("epoch-*")) if directory.is_dir() else []


def _grouped(tensors: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    groups: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        group, _, rest = name.partition("/")
        if rest:
            groups.setdefault(group, {})[rest] = tensor
    return groups
