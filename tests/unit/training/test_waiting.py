"""That a training step never waits for its device: nothing in it hands a value to the host or takes one from it."""

from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from recmodels.models.base import Batch
from recmodels.models.registry import MODELS, build_model, resolve_config
from recmodels.training.loop import STEPS_BETWEEN_CHECKS, _Loop
from recmodels.training.pairs import training_pairs

WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "_unique2", "unique_consecutive"}
"""Operators whose result, or its size, the host has to know."""
ON_HOST = {"bridge", "gume"}
"""Models that say of themselves that a step needs the CPU: for the support of pairs, for who is twice in a batch."""


class Waits(TorchDispatchMode):
    """Counts what makes a host wait for a CUDA device, whichever device the tensors are on."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        name = function._schema.name.removeprefix("aten::")
        by_mask = name in ("index", "index_put_", "index_put") and any(
            isinstance(index, torch.Tensor) and index.dtype == torch.bool for index in arguments[1]
        )
        unsized = name == "repeat_interleave" and (named or {}).get("output_size") is None
        # A new tensor from Python numbers is copied from the host, which waits for all that came before.
        if name in WAITING or by_mask or unsized or name == "lift_fresh":
            self.found[name] += 1
        return function(*arguments, **(named or {}))


def loop_of(name: str, checkerboard, **training: object) -> tuple[_Loop, object]:
    fields = type(resolve_config(name)).model_fields
    settings = {"embedding_size": 16} | ({"neighbours": 4} if "neighbours" in fields else {})
    settings["training"] = {"device": "cpu", "batch_size": 64, "restricted_neighbours": 4, **training}
    data = checkerboard.data()
    model = build_model(name, resolve_config(name, settings), data, 0)
    optimiser = torch.optim.Adam(model.parameters(), fused=True)
    return _Loop(model, optimiser, torch.Generator().manual_seed(0)), training_pairs(model, data)


def test_the_counter_sees_what_waits() -> None:
    with Waits() as waits:
        x = torch.arange(4.0)
        x.sum().item()
        x.nonzero()
        x[x > 1]
        torch.tensor([1.0, 2.0])
        torch.repeat_interleave(torch.tensor([1, 2]))
    assert waits.found.keys() >= {"_local_scalar_dense", "nonzero", "index", "lift_fresh", "repeat_interleave"}


@pytest.mark.parametrize("name", [name for name, spec in MODELS.items() if not spec.closed_form])
def test_a_step_waits_for_nothing(name: str, checkerboard) -> None:
    loop, pairs = loop_of(name, checkerboard)
    assert loop.model.steps_on_host == (name in ON_HOST)
    loop.run_epoch(0, pairs)
    users, positives = pairs.users[:64], pairs.positives[:64]
    negatives = pairs.sampler.sample(users, loop.generator) if pairs.sampler is not None else users[:0]
    batch = Batch(users, positives, negatives)
    with Waits() as waits:
        loop._step(batch)
    if name in ON_HOST:
        return
    assert not waits.found


@pytest.mark.parametrize("loss", ["bpr", "sampled_softmax"])
def test_an_epoch_reads_the_losses_once_for_many_steps(loss: str, checkerboard) -> None:
    counts = []
    for batch_size in (64, 4):
        loop, pairs = loop_of("lightgcn", checkerboard, batch_size=batch_size, loss=loss)
        loop.run_epoch(0, pairs)
        with Waits() as waits:
            loop.run_epoch(1, pairs)
        n_steps = -(-len(pairs.users) // batch_size)
        counts.append((n_steps, waits.found.total()))
    (few, at_few), (many, at_many) = counts
    assert many > 4 * STEPS_BETWEEN_CHECKS > 4 * few
    # What an epoch reads beside the losses does not grow with its steps.
    assert at_many - at_few <= many // STEPS_BETWEEN_CHECKS + 1
