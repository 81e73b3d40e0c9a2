"""The best items of users while scores come in, a block of items at a time; not where the scores come from."""

import numpy as np
import torch
from torch import Tensor

_NONE = torch.iinfo(torch.int64).min
_LOW = 2**32 - 1
# Where more than this share of a block could enter the lists, it is ranked as a whole.
_FEW = 1 / 8


class RunningBest:
    """
    The best k items of users among the items that were added; of equal scores the item with the lower id first.

    The result does not depend on how the items were cut into blocks. Zeros of either sign are equal; scores are not
    NaN.

    Parameters
    ----------
    n_users
        Number of rows.
    k
        Length of the lists.

    Examples
    --------
    >>> best = RunningBest(1, 2)
    >>> best.add(torch.tensor([[1.0, 3.0]]), 0)
    >>> best.add(torch.tensor([[3.0, 2.0]]), 2)
    >>> [values.tolist() for values in best.lists()]
    [[[1, 2]], [[3.0, 3.0]]]
    """

    def __init__(self, n_users: int, k: int) -> None:
        # A number an item that orders by score, then by id from the last to the first: all of them differ.
        self._keys = torch.full((n_users, k), _NONE)
        self._least = torch.full((n_users, 1), -torch.inf)
        self._n_added = 0

    def add(self, scores: Tensor, first: int) -> None:
        """Take the scores (n_users, width) float32 of the items from `first` on; blocks come in ascending order."""
        width = scores.shape[1]
        if self._n_added < self._keys.shape[1]:
            self._enter(slice(None), _keys(scores, torch.arange(first, first + width)))
        else:
            # An equal score of a later item changes nothing.
            self._enter_few(scores, first)
        self._n_added += width

    def lists(self) -> tuple[Tensor, Tensor]:
        """Return items (n_users, k) int64, best first, and their scores, float32."""
        return _LOW - (self._keys & _LOW), _scores(self._keys)

    def _enter_few(self, scores: Tensor, first: int) -> None:
        """Enter the scores of a block that are above a user's least one."""
        width = scores.shape[1]
        places = np.flatnonzero((scores > self._least).numpy())
        if not places.size:
            return
        rows, columns = np.divmod(places, width)
        begins = np.flatnonzero(np.diff(rows, prepend=-1))
        counts = np.diff(begins, append=rows.size)
        if counts.size * counts.max() > _FEW * scores.numel():
            self._enter(slice(None), _keys(scores, torch.arange(first, first + width)))
            return
        entered = torch.full((counts.size, int(counts.max())), _NONE)
        ids, at = torch.from_numpy(columns), torch.from_numpy(rows)
        place = torch.from_numpy(np.arange(rows.size) - np.repeat(begins, counts))
        row = torch.from_numpy(np.repeat(np.arange(counts.size), counts))
        entered[row, place] = _keys(scores[at, ids], ids + first)
        self._enter(torch.from_numpy(rows[begins]), entered)

    def _enter(self, rows: Tensor | slice, keys: Tensor) -> None:
        best = torch.cat([self._keys[rows], keys], dim=1).topk(self._keys.shape[1], dim=1).values
        self._keys[rows] = best
        self._least[rows] = _scores(best[:, -1:])


def _keys(scores: Tensor, items: Tensor) -> Tensor:
    """Return int64 numbers in the order of float32 scores, those of equal ones in the reverse order of the items."""
    # Adding 0 turns -0 into 0. The bits of a float order as an integer once those of negative ones are turned round.
    return (_turned((scores + 0.0).view(torch.int32)).long() << 32) | (_LOW - items)


def _scores(keys: Tensor) -> Tensor:
    """Return the float32 scores that `_keys` made numbers of."""
    return _turned((keys >> 32).int()).view(torch.float32)


def _turned(bits: Tensor) -> Tensor:
    """Return int32 bits with those of negative numbers turned round; done twice, it is undone."""
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)
