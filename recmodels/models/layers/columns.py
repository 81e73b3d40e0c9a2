"""
Sums over embedding columns that several processes share: who holds which columns is said here, and how they are summed.

A model whose layers never mix columns can be trained with some columns in each process. All it needs of the others are
sums over columns (scores, lengths), which all processes then have alike: from there on each computes the same loss, and
the gradient of its own columns. How such a training is launched is not in here (`recmodels.training.launch`).
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

# Not a context variable: on CUDA a backward pass runs in a thread of autograd.
_group: dist.ProcessGroup | None = None
_deciding_threads = 1


@contextmanager
def shared(*, deciding_threads: int = 1) -> Generator[None]:
    """
    Let `total` and the others sum over the processes of torch's default group, each of which holds its own columns.

    The group is one of gloo's: what is summed is small, and may be on any device.

    Each computes with one thread, so that sums within a process are the same on a machine with any number of cores.

    Parameters
    ----------
    deciding_threads
        Threads of the first process while the others wait for what it decides.
    """
    global _group, _deciding_threads
    n_threads = torch.get_num_threads()
    _group, _deciding_threads = dist.group.WORLD, deciding_threads
    torch.set_num_threads(1)
    try:
        yield
    finally:
        _group = None
        torch.set_num_threads(n_threads)


def rank() -> int:
    """Return the place of this process among those that share the columns; 0 of a process that has them all."""
    return 0 if _group is None else dist.get_rank(_group)


def n_processes() -> int:
    """Return how many processes share the columns."""
    return 1 if _group is None else dist.get_world_size(_group)


def total(x: Tensor) -> Tensor:
    """
    Return the sum of a tensor over the processes that share the columns, and of a process that has them all, `x`.

    The gradient passes unchanged: each process goes on to the same loss, whose derivative by the sum is that by its own
    term. It is for sums over columns alone; what is made of them per column needs the sum of its gradient as well.

    Examples
    --------
    >>> x = torch.ones(3)
    >>> total(x) is x
    True
    """
    return x if _group is None else _Total.apply(x)


def norms(*matrices: Tensor) -> Tensor:
    """Return the Frobenius norm of each matrix over all columns, (n_matrices,)."""
    if _group is None:
        return torch.stack([torch.linalg.vector_norm(matrix) for matrix in matrices])
    squares = total(torch.stack([matrix.square().sum() for matrix in matrices]))
    # The root has no derivative at 0, where the norm's is taken as 0.
    return squares.clamp_min(torch.finfo(squares.dtype).tiny).sqrt()


def row_norms(x: Tensor) -> Tensor:
    """Return the lengths of the rows over all columns, (n,); it has no gradient where columns are shared."""
    if _group is None:
        return torch.linalg.vector_norm(x, dim=1)
    return total(x.square().sum(dim=1)).sqrt()


def whole(columns: Tensor) -> Tensor:
    """Return on the first process the columns of all, joined, and on the others their own."""
    if _group is None:
        return columns
    own = columns.detach().cpu().contiguous()
    parts = [torch.empty_like(own) for _ in range(n_processes())] if rank() == 0 else None
    dist.gather(own, parts, group_dst=0, group=_group)
    return columns if parts is None else torch.cat(parts, dim=1).to(columns.device)


def agreed(decide: Callable[[], float]) -> float:
    """Return what the first process decides; the others wait for it."""
    if _group is None:
        return decide()
    value = torch.zeros((), dtype=torch.float64)
    if rank() == 0:
        torch.set_num_threads(_deciding_threads)
        value.fill_(decide())
        torch.set_num_threads(1)
    dist.broadcast(value, group_src=0, group=_group)
    return value.item()


def least(value: int) -> int:
    """Return the smallest of the processes' values; none has it before all have named theirs."""
    if _group is None:
        return value
    found = torch.tensor(value)
    dist.all_reduce(found, dist.ReduceOp.MIN, group=_group)
    return int(found)


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        summed = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(summed, group=_group)
        return summed

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]
