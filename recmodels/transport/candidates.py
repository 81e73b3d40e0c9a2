r"""
Pairs of some users that may be among the largest of a plan: counted above a threshold, and listed in small number.

Entries fall in three groups: those with a stored cost, :math:`f_u g_i e^{-C_{ui}/\varepsilon}`, which are listed;
those without, :math:`f_u g_i`, which are only counted, by sorting g and searching it once per user, and listed when
they can reach the top; and excluded ones, which are skipped. The search for the threshold is not here.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from scipy import sparse

from recmodels.graphs.matrices import occurs_in, row_blocks

# Logarithms of masses are compared as integers in this unit (1.2e-10, well below any solver's tolerance). Sums of
# integers are exact, so counting and listing can never disagree, and entries that are equal but for rounding are ties.
_UNIT = 2.0**-33
NO_MASS = int(np.iinfo(np.int64).min)
MOST_MASS = int(np.iinfo(np.int64).max)
_BLOCK_ENTRIES = 1 << 22


def _integers(logs: np.ndarray) -> np.ndarray:
    """Logarithms in units of `_UNIT`; `NO_MASS` for -inf."""
    finite = np.isfinite(logs)
    return np.where(finite, np.rint(np.where(finite, logs, 0.0) / _UNIT).astype(np.int64), NO_MASS)


@dataclass(frozen=True, eq=False)
class ItemSide:
    """The items of a plan by their potentials log g; what follows from them is computed once for all parts."""

    log_g: np.ndarray

    @cached_property
    def g(self) -> np.ndarray:
        """Potentials as integers."""
        return _integers(self.log_g)

    @cached_property
    def by_g(self) -> np.ndarray:
        """Items of mass, ascending in g, then in id: the items of one exact value are a run in id order."""
        alive = np.flatnonzero(self.g != NO_MASS)
        return alive[np.argsort(self.g[alive], kind="stable")]

    @cached_property
    def sorted_g(self) -> np.ndarray:
        """Potentials of `by_g`."""
        return self.g[self.by_g]


class Extent(NamedTuple):
    """
    How many entries with a stored cost a part has listed, and how far its values reach.

    Attributes
    ----------
    n_kept, lowest, highest
        Entries that were listed, and the range of their values.
    lowest_f, highest_f
        Range of the users' potentials; `NO_MASS` is the highest where nobody has mass.
    """

    n_kept: int
    lowest: int
    highest: int
    lowest_f: int
    highest_f: int


class Candidates:
    """
    The pairs of users, whose potentials are given, with the items; values are whole numbers.

    Methods answer from the arguments alone, whatever was asked before. In them `q` is the number of entries that are
    wanted in all, and so the most that one part can give.
    """

    def __init__(
        self,
        log_f: np.ndarray,
        items: ItemSide,
        cost: sparse.csr_array,
        skip: sparse.csr_array,
        epsilon: float,
        first_user: int = 0,
    ) -> None:
        self._log_f, self._items, self._first_user = log_f, items, first_user
        self._cost, self._skip, self._epsilon = cost, skip, epsilon
        self._f, self._g, self._n_items = _integers(log_f), items.g, items.g.size
        # Users and items of no mass are left out, so that every remaining pair has a finite value.
        self._users = np.flatnonzero(self._f != NO_MASS)
        # What was listed last: floor, number at most, keys, values; floor, keys; arguments and result.
        self._kept: tuple[int, int, np.ndarray, np.ndarray] | None = None
        self._listed: tuple[int, np.ndarray] | None = None
        self._sorted: tuple[tuple[int, int, object], np.ndarray, np.ndarray] | None = None
        self._found: tuple[tuple[int, int, bool, int | None], np.ndarray, np.ndarray, int] | None = None

    def n_stored(self) -> int:
        """Return how many costs are stored."""
        return self._cost.nnz

    def best_stored(self, quota: int) -> Extent:
        """List the best entries with a stored cost, `quota` at most, and tell how far they reach."""
        keys, values = self._stored(NO_MASS, quota)
        f = self._f[self._users]
        return Extent(
            keys.size,
            int(values.min(initial=MOST_MASS)),
            int(values.max(initial=NO_MASS)),
            int(f.min(initial=MOST_MASS)),
            int(f.max(initial=NO_MASS)),
        )

    def reach(self, bound: int) -> tuple[int, int]:
        """Return how many pairs reach the bound in f + g, whatever their cost, and how many of them are not free."""
        return int(self._counts_at_least(bound).sum()), self._not_free(bound).size

    def count(self, values: list[int], bound: int, q: int, listed: tuple[bool, int | None] | None) -> np.ndarray:
        """
        Count the entries that reach each value, all of them at least the bound; int64.

        Parameters
        ----------
        values
            Where to count.
        bound, q
            Of the stored entries that reach the bound the best `q` count.
        listed
            What to list and count, as in `take`; None counts free pairs without listing them.
        """
        if listed is not None:
            if self._sorted is None or self._sorted[0] != (bound, q, listed):
                reached = np.sort(self._all_from(bound, q, *listed)[1])
                self._sorted = ((bound, q, listed), np.zeros(0, np.int64), reached)
            return self._sorted[2].size - np.searchsorted(self._sorted[2], values)
        if self._sorted is None or self._sorted[0] != (bound, q, None):
            rank_one = np.sort(self._rank_one(self._not_free(bound)))
            self._sorted = ((bound, q, None), rank_one, np.sort(self._stored(bound, q)[1]))
        _, rank_one, stored = self._sorted
        n_listed = rank_one.size - np.searchsorted(rank_one, values)
        n_stored = stored.size - np.searchsorted(stored, values)
        return np.array([int(self._counts_at_least(value).sum()) for value in values]) - n_listed + n_stored

    def take(
        self, quota: int, threshold: int, bound: int, q: int, free: bool, n_ties: int | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """
        Return the entries above a threshold and the first of those at it: users, items, mass and whether it is stored.

        Parameters
        ----------
        quota
            How many entries at the threshold are wanted.
        threshold
            The value.
        bound, q
            As in `count`.
        free
            Whether free pairs are among them.
        n_ties
            How many free pairs at the bound are enough; None lists all.
        """
        keys, values, n_stored = self._all_from(bound, q, free, n_ties)
        is_stored = np.arange(keys.size) < n_stored
        ties = np.flatnonzero(values == threshold)
        ties = ties[np.argsort(keys[ties])[:quota]]
        best = np.concatenate((np.flatnonzero(values > threshold), ties))
        best = best[np.argsort(keys[best])]
        users, items, stored = keys[best] // self._n_items, keys[best] % self._n_items, is_stored[best]
        weights = np.zeros(users.size)
        if stored.any():
            weights[stored] = np.asarray(self._cost[users[stored], items[stored]], dtype=np.float64).ravel()
        mass = np.exp(self._log_f[users] + self._items.log_g[items] - weights / self._epsilon)
        return users + self._first_user, items, mass, stored

    def _all_from(self, bound: int, q: int, free: bool, n_ties: int | None) -> tuple[np.ndarray, np.ndarray, int]:
        """Keys and values of stored, then of free pairs that reach the bound, and the number of the stored ones."""
        if self._found is None or self._found[0] != (bound, q, free, n_ties):
            keys, values = self._stored(bound, q)
            free_keys = self._free_from(bound, n_ties) if free else np.zeros(0, np.int64)
            both = np.concatenate((keys, free_keys)), np.concatenate((values, self._rank_one(free_keys)))
            self._found = ((bound, q, free, n_ties), *both, keys.size)
        return self._found[1:]

    def _rank_one(self, keys: np.ndarray) -> np.ndarray:
        return self._f[keys // self._n_items] + self._g[keys % self._n_items]

    def _blocks(self, matrix: sparse.csr_array) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, slice]]:
        """Yield users, items, keys and the slice of the entries of each run of rows."""
        for first, last in row_blocks(matrix.indptr, _BLOCK_ENTRIES):
            start, stop = int(matrix.indptr[first]), int(matrix.indptr[last])
            users = np.repeat(np.arange(first, last), np.diff(matrix.indptr[first : last + 1]))
            items = matrix.indices[start:stop]
            yield users, items, users * self._n_items + items, slice(start, stop)

    def _stored(self, bound: int, q: int) -> tuple[np.ndarray, np.ndarray]:
        """Keys and values, by key, of the q best stored entries that reach the bound and may be selected."""
        if self._kept is None or self._kept[0] > bound or self._kept[1] < q:
            self._kept = (bound, q, *self._list_stored(bound, q))
        keys, values = self._kept[2:]
        if self._kept[0] < bound:
            reached = values >= bound
            keys, values = keys[reached], values[reached]
        return _best(keys, values, q)

    def _list_stored(self, bound: int, q: int) -> tuple[np.ndarray, np.ndarray]:
        kept_keys: list[np.ndarray] = []
        kept_values: list[np.ndarray] = []
        n_kept = 0
        for users, items, keys, entries in self._blocks(self._cost):
            f, g = self._f[users], self._g[items]
            exponent = self._cost.data[entries].astype(np.float64) / -self._epsilon
            values = f + g + np.rint(exponent / _UNIT).astype(np.int64)
            kept = (f != NO_MASS) & (g != NO_MASS) & (values >= bound)
            keys, values = keys[kept], values[kept]
            if keys.size:
                allowed = ~self._is_skipped(keys)
                kept_keys.append(keys[allowed])
                kept_values.append(values[allowed])
                n_kept += kept_keys[-1].size
            if n_kept > 2 * q + _BLOCK_ENTRIES:
                keys, values = _best(np.concatenate(kept_keys), np.concatenate(kept_values), q)
                kept_keys, kept_values, n_kept = [keys], [values], keys.size
                # Later entries have larger keys: one that only equals the q-th best cannot enter.
                bound = int(values.min()) + 1
        if not kept_keys:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        return _best(np.concatenate(kept_keys), np.concatenate(kept_values), q)

    def _is_skipped(self, keys: np.ndarray) -> np.ndarray:
        """Whether ascending keys are stored in the excluded matrix."""
        first, last = int(keys[0] // self._n_items), int(keys[-1] // self._n_items) + 1
        start, stop = self._skip.indptr[first], self._skip.indptr[last]
        rows = np.repeat(np.arange(first, last), np.diff(self._skip.indptr[first : last + 1]))
        return occurs_in(keys, rows * self._n_items + self._skip.indices[start:stop])

    def _not_free(self, bound: int) -> np.ndarray:
        """Ascending keys of stored or excluded pairs whose rank-one part f + g reaches the bound."""
        if self._listed is None or self._listed[0] > bound:
            found = [np.zeros(0, np.int64)]
            for matrix in (self._cost, self._skip):
                for users, items, keys, _ in self._blocks(matrix):
                    f, g = self._f[users], self._g[items]
                    found.append(keys[(f != NO_MASS) & (g != NO_MASS) & (f + g >= bound)])
            self._listed = (bound, np.unique(np.concatenate(found)))
        floor, keys = self._listed
        return keys if floor == bound else keys[self._rank_one(keys) >= bound]

    def _counts_at_least(self, bound: int) -> np.ndarray:
        """For each user of mass, how many items of mass reach the bound in f + g, whatever their cost."""
        sorted_g = self._items.sorted_g
        return sorted_g.size - np.searchsorted(sorted_g, bound - self._f[self._users], side="left")

    def _free_from(self, bound: int, n_ties: int | None) -> np.ndarray:
        """Keys of the free pairs above the bound, and of those at it, the first by key, `n_ties` at least or all."""
        not_free, sorted_g = self._not_free(bound), self._items.sorted_g
        wanted = bound - self._f[self._users]
        first, last = (np.searchsorted(sorted_g, wanted, side=side) for side in ("left", "right"))
        above = self._pairs(last, None)
        above = above[~occurs_in(above, not_free)]
        if n_ties is None:
            enough = first.size
        elif n_ties == 0:
            return above
        else:
            at = not_free[self._rank_one(not_free) == bound]
            n_not_free = np.bincount(at // self._n_items, minlength=self._f.size)[self._users]
            enough = int(np.searchsorted(np.cumsum(last - first - n_not_free), n_ties)) + 1
        ties = self._pairs(first[:enough], last[:enough])
        return np.concatenate((above, ties[~occurs_in(ties, not_free)]))

    def _pairs(self, first: np.ndarray, last: np.ndarray | None) -> np.ndarray:
        """Ascending keys of the pairs of each user (the first of them) with a run [first, last) of the sorted items."""
        counts = (self._items.sorted_g.size if last is None else last) - first
        owner = np.repeat(np.arange(first.size), counts)
        offset = np.arange(owner.size) - np.repeat(np.cumsum(counts) - counts, counts)
        keys = self._users[owner] * self._n_items + self._items.by_g[first[owner] + offset]
        keys.sort()
        return keys


def _best(keys: np.ndarray, values: np.ndarray, q: int) -> tuple[np.ndarray, np.ndarray]:
    """Keep the q largest values, the first of equal ones, in their order. Keys ascend."""
    if keys.size <= q:
        return keys, values
    bound = np.partition(values, values.size - q)[values.size - q]
    kept = values > bound
    ties = np.flatnonzero(values == bound)
    kept[ties[: q - int(kept.sum())]] = True
    return keys[kept], values[kept]
