"""
A training step recorded once an epoch as a CUDA graph and replayed for its batches; what a step does is the trainer's.

A step of these models is some two hundred small kernels: launching them one by one takes longer than running them. A
graph is launched as a whole. It is recorded anew in each epoch, as edge dropping and learned graphs change then.
"""

import contextlib
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from recmodels.models.base import Batch, Model
from recmodels.models.layers import columns

Step = Callable[[Batch], Tensor]


def records_steps(model: Model) -> bool:
    """Tell whether a training records its steps: on CUDA, unless they need host or other processes, or are compiled."""
    alone = not model.steps_on_host and columns.n_processes() == 1
    return model.device.type == "cuda" and alone and not model.config.training.compile


class StepRecorder:
    """
    Makes the step function of each epoch.

    Parameters
    ----------
    step
        Takes one optimiser step on a batch and returns a tensor of losses. Where it waits for the device it cannot be
        recorded: a warning says so, and all steps run as they are.
    device
        A CUDA device.
    """

    def __init__(self, step: Step, device: torch.device) -> None:
        self._step = step
        self._stream = torch.cuda.Stream(device)
        self._records = True
        # The last epoch's graph, kept until the next one is recorded: its memory is the next one's.
        self._last: torch.cuda.CUDAGraph | None = None

    def new_epoch(self, generator: torch.Generator) -> Step:
        """
        Return a function that takes the steps of one epoch.

        Its first step runs as it is, on the stream that records, so that what is made on first use is made; the second
        is recorded. Batches of another size than the recorded one, such as the last, run as they are.
        """
        graph: torch.cuda.CUDAGraph | None = None
        static: list[Tensor] = []
        losses = torch.empty(0)
        n_steps = 0

        def take(batch: Batch) -> Tensor:
            nonlocal graph, static, losses, n_steps
            n_steps += 1
            inputs = [values for values in batch if values is not None]
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                if n_steps == 2 and self._records:
                    static = [values.clone() for values in inputs]
                    graph, losses = self._recorded(static, generator)
                if graph is None or [values.shape for values in inputs] != [values.shape for values in static]:
                    found = self._step(batch)
                else:
                    for into, values in zip(static, inputs, strict=True):
                        into.copy_(values)
                    graph.replay()
                    found = losses.clone()
            torch.cuda.current_stream().wait_stream(self._stream)
            return found

        return take

    def _recorded(self, static: list[Tensor], generator: torch.Generator) -> tuple[torch.cuda.CUDAGraph | None, Tensor]:
        """Return the graph of a step on these inputs and where it leaves its losses; without a graph if that fails."""
        graph, losses = torch.cuda.CUDAGraph(), torch.empty(0)
        graph.register_generator_state(generator)
        self._stream.synchronize()
        try:
            # Not `torch.cuda.graph`: it collects garbage and empties the cache, which costs more than an epoch.
            graph.capture_begin(pool=None if self._last is None else self._last.pool())
            losses = self._step(Batch(*static))
            graph.capture_end()
        except RuntimeError as error:
            with contextlib.suppress(RuntimeError):
                graph.capture_end()
            self._records = False
            warnings.warn(f"steps run one kernel at a time, since recording one failed: {error}", stacklevel=2)
            return None, losses
        self._last = graph
        return graph, losses
