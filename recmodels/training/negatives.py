"""Negative sampling: uniform over the items that a user may be shown as a negative, exact and without rejection."""

from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy import sparse

from recmodels.errors import InputError
from recmodels.graphs.matrices import shape_of


class NegativeSampler:
    """
    Draw items uniformly from the true negatives of each user.

    The true negatives of a user are the items that occur in the training rows, minus the user's own positives, minus
    the user's false negatives (BLAST, stage 4). A draw is the r-th allowed item for a uniform rank r, found by one
    binary search among the forbidden ones: nothing is drawn twice and every allowed item has the same probability.

    Parameters
    ----------
    positives
        Training interactions R, shape (n_users, n_items); stored entries count, values do not.
    false_negatives
        Further pairs that must not be drawn, the same shape. None restricts to unseen items alone.
    device
        Where the tables live and draws are made.

    Attributes
    ----------
    n_negatives
        Number of items each user can be given, int64 tensor of shape (n_users,): 0 for who has interacted with every
        item. Users whose false negatives leave no item at all are drawn from all items that they have not interacted
        with, false negatives included: a positive is never drawn.

    Raises
    ------
    InputError
        If the shapes differ, or no item occurs in the training rows.
    """

    def __init__(
        self, positives: Any, false_negatives: Any | None = None, *, device: torch.device | str = "cpu"
    ) -> None:
        seen = _pattern(positives)
        n_users, n_items = shape_of(seen)
        items = np.flatnonzero(np.bincount(seen.indices, minlength=n_items))
        if not items.size:
            raise InputError("training interactions", expected="at least one item", found="none")
        forbidden = seen
        if false_negatives is not None:
            if shape_of(false_negatives) != (n_users, n_items):
                raise InputError(
                    "false negatives", expected=f"shape {(n_users, n_items)}", found=f"shape {false_negatives.shape}"
                )
            # Seen entries are worth 2, so that a sum tells them from pairs that are false negatives alone.
            both = sparse.csr_array(seen * np.int8(2) + _pattern(false_negatives))
            is_item = np.zeros(n_items, dtype=bool)
            is_item[items] = True
            both = _kept(both, is_item[both.indices])
            unrestricted = np.diff(both.indptr) == items.size
            forbidden = _kept(both, (both.data >= 2) | ~np.repeat(unrestricted, np.diff(both.indptr)))
        counts = np.diff(forbidden.indptr)
        columns = np.searchsorted(items, forbidden.indices)
        starts = forbidden.indptr[:-1].astype(np.int64)
        rows = np.repeat(np.arange(n_users, dtype=np.int64), counts)
        # Among the allowed items, columns[p] - p of them come before the p-th forbidden one of the row. Offset by the
        # user these numbers are sorted over the whole array, so one search serves all users.
        self._stride = items.size + 1
        keys = rows * self._stride + columns - (np.arange(forbidden.nnz) - starts[rows])
        small = n_users * self._stride <= np.iinfo(np.int32).max
        self._keys = torch.from_numpy(keys.astype(np.int32) if small else keys).to(device)
        self._starts = torch.from_numpy(starts).to(device)
        self._items = torch.from_numpy(items).to(device)
        self.n_negatives = torch.from_numpy(items.size - counts.astype(np.int64)).to(device)

    def sample(self, users: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """
        Draw one negative item for each entry of `users`.

        Parameters
        ----------
        users
            User ids, int64, any shape, on the device of the sampler. Repeated users get independent draws. Sorted
            users are drawn fastest.
        generator
            Source of the draws, on any device.

        Returns
        -------
        torch.Tensor
            Item ids, int64, the shape of `users`.

        Raises
        ------
        InputError
            If a user has interacted with every item.
        """
        flat = users.reshape(-1)
        uniform = torch.rand(flat.numel(), dtype=torch.float64, generator=generator, device=generator.device)
        available = self.n_negatives[flat]
        if not available.all():
            user = int(flat[available == 0][0])
            raise InputError("negatives", expected="users with an item left", found=f"user {user} with all of them")
        rank = (uniform.to(flat.device) * available).long()
        # The product of a number below 1 and an integer can round up to the integer itself.
        rank = torch.minimum(rank, available - 1)
        target = (flat * self._stride + rank).to(self._keys.dtype)
        before = torch.searchsorted(self._keys, target, right=True) - self._starts[flat]
        return self._items[rank + before].reshape(users.shape)

    def sample_shared(
        self, users: torch.Tensor, n: int, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Draw items that a batch of users has in common, uniformly with replacement from those that occur in training.

        Parameters
        ----------
        users
            (batch,) int64 user ids, on the device of the sampler.
        n
            Number of items.
        generator
            Source of the draws, on any device.

        Returns
        -------
        items
            (n,) int64 item ids.
        barred
            (batch, n) bool: the item is no negative of the user.
        """
        drawn = torch.randint(len(self._items), (n,), generator=generator, device=generator.device).to(users.device)
        wanted = (users[:, None] * self._stride + drawn).to(self._keys.dtype)
        at = torch.searchsorted(self._forbidden, wanted).clamp_max(len(self._forbidden) - 1)
        return self._items[drawn], self._forbidden[at] == wanted

    @cached_property
    def _forbidden(self) -> torch.Tensor:
        """Numbers user * stride + item of the forbidden pairs, ascending."""
        counts = torch.diff(self._starts, append=self._starts.new_tensor([len(self._keys)]))
        place = torch.arange(len(self._keys), device=self._keys.device) - torch.repeat_interleave(self._starts, counts)
        return (self._keys + place).to(self._keys.dtype)


def _pattern(matrix: Any) -> sparse.csr_array:
    rows = sparse.csr_array(matrix)
    pattern = sparse.csr_array((np.ones(rows.nnz, np.int8), rows.indices, rows.indptr), shape=rows.shape)
    pattern.sum_duplicates()
    pattern.data[:] = 1
    return pattern


def _kept(matrix: sparse.csr_array, chosen: np.ndarray) -> sparse.csr_array:
    """Keep the chosen stored entries."""
    indptr = np.concatenate(([0], np.cumsum(chosen, dtype=np.int64)))[matrix.indptr]
    return sparse.csr_array((matrix.data[chosen], matrix.indices[chosen], indptr), shape=matrix.shape)
