r"""
The q largest entries of a transport plan, exactly, without forming the plan.

Entries fall in three groups: those with a stored cost, :math:`f_u g_i e^{-C_{ui}/\varepsilon}`, which are listed;
those without, :math:`f_u g_i`, which are only counted, by sorting g and searching it once per user, and listed when
they can reach the top; and excluded ones, which are skipped.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from recmodels.errors import InputError
from recmodels.graphs.matrices import canonical_csr, occurs_in, row_blocks, shape_of

# Logarithms of masses are compared as integers in this unit (1.2e-10, well below any solver's tolerance). Sums of
# integers are exact, so counting and listing can never disagree, and entries that are equal but for rounding are ties.
_UNIT = 2.0**-33
_NO_MASS = np.iinfo(np.int64).min
_BLOCK_ENTRIES = 1 << 22
# Listing this many pairs at once is cheaper than looking for a sharper bound first.
_CHEAP_PAIRS = 1 << 22


@dataclass(frozen=True, eq=False)
class TopEntries:
    """
    Entries of a plan, by user and item.

    Attributes
    ----------
    user_ids, item_ids
        int64, one entry a pair.
    mass
        The plan's entries, float64.
    stored
        Whether the pair has a stored cost (a false negative), bool.
    """

    user_ids: np.ndarray
    item_ids: np.ndarray
    mass: np.ndarray
    stored: np.ndarray


def top_q(
    log_f: np.ndarray, log_g: np.ndarray, cost: Any, epsilon: float, q: int, *, excluded: Any | None = None
) -> TopEntries:
    r"""
    Select the q largest entries of :math:`P_{ui} = e^{\log f_u + \log g_i - C_{ui}/\varepsilon}`.

    Of equal entries (logarithms equal to about 1e-10) the one with the smaller (user, item) comes first. Entries of
    mass 0 are never selected, so that fewer than `q` come back when there are not enough.

    Parameters
    ----------
    log_f, log_g
        Potentials from `recmodels.transport.sinkhorn.sinkhorn`, shapes (n_users,) and (n_items,).
    cost
        The sparse cost that was solved, shape (n_users, n_items).
    epsilon
        Entropic weight that was used.
    q
        Number of entries, at least 0.
    excluded
        Sparse matrix of the same shape whose stored entries are never selected (the training positives).

    Returns
    -------
    TopEntries

    Raises
    ------
    InputError
        If `q` is negative or not a whole number, `epsilon` is not above 0, shapes differ, or a potential or a cost is
        NaN or +infinity.

    Examples
    --------
    >>> cost = sparse.csr_array([[-1.0, 0.0], [0.0, 1.0]])
    >>> best = top_q(np.zeros(2), np.zeros(2), cost, epsilon=1.0, q=2)
    >>> list(zip(best.user_ids.tolist(), best.item_ids.tolist(), best.mass.round(3).tolist()))
    [(0, 0, 2.718), (0, 1, 1.0)]
    """
    matrix = canonical_csr("cost", cost)
    n_users, n_items = shape_of(matrix)
    if excluded is None:
        excluded = sparse.csr_array((n_users, n_items), dtype=np.int8)
    skip = canonical_csr("excluded entries", excluded)
    if isinstance(q, bool) or int(q) != q or q < 0:
        raise InputError("q", expected="a whole number of at least 0", found=str(q))
    if not (np.isfinite(epsilon) and epsilon > 0):
        raise InputError("epsilon", expected="a finite number above 0", found=str(epsilon))
    if shape_of(skip) != (n_users, n_items) or log_f.shape != (n_users,) or log_g.shape != (n_items,):
        raise InputError(
            "top-q input",
            expected=f"potentials of lengths {n_users} and {n_items} and an excluded matrix of the cost's shape",
            found=f"{log_f.shape}, {log_g.shape} and {shape_of(skip)}",
        )
    if not np.isfinite(matrix.data).all() or not (np.all(log_f < np.inf) and np.all(log_g < np.inf)):
        raise InputError("top-q input", expected="no NaN and no +infinity", found="at least one")
    search = _Search(_integers(log_f), _integers(log_g), matrix, skip, epsilon)
    users, items, stored = search.run(int(q))
    order = np.lexsort((items, users))
    users, items, stored = users[order], items[order], stored[order]
    weights = np.zeros(users.size)
    weights[stored] = _lookup(matrix, users[stored], items[stored])
    return TopEntries(users, items, np.exp(log_f[users] + log_g[items] - weights / epsilon), stored)


def _integers(logs: np.ndarray) -> np.ndarray:
    """Logarithms in units of `_UNIT`; `_NO_MASS` for -inf."""
    finite = np.isfinite(logs)
    return np.where(finite, np.rint(np.where(finite, logs, 0.0) / _UNIT).astype(np.int64), _NO_MASS)


def _lookup(matrix: sparse.csr_array, users: np.ndarray, items: np.ndarray) -> np.ndarray:
    return np.asarray(matrix[users, items], dtype=np.float64).ravel() if users.size else np.zeros(0)


class _Search:
    """Users and items of no mass are taken out first, so that every remaining pair has a finite value."""

    def __init__(
        self, f: np.ndarray, g: np.ndarray, cost: sparse.csr_array, skip: sparse.csr_array, epsilon: float
    ) -> None:
        self.f, self.g, self.cost, self.skip, self.epsilon = f, g, cost, skip, epsilon
        self.n_items = g.size
        self.users = np.flatnonzero(f != _NO_MASS)
        alive_items = np.flatnonzero(g != _NO_MASS)
        # Ascending in g, then in id: the items of one exact value are a run in id order.
        self.by_g = alive_items[np.argsort(g[alive_items], kind="stable")]
        self.sorted_g = g[self.by_g]

    def run(self, q: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        none = np.zeros(0, np.int64)
        if q == 0 or not self.users.size or not self.by_g.size:
            return none, none, np.zeros(0, bool)
        keys, values = self._top_stored(q)
        lowest = int(self.f[self.users].min() + self.sorted_g[0])
        bound = int(values.min()) if keys.size >= q else min(lowest, int(values.min(initial=lowest)))
        listed = self._listed_at_least(bound)
        n_pairs = int(self._counts_at_least(bound).sum())
        if n_pairs - listed.size > 0:
            if n_pairs > max(_CHEAP_PAIRS, 8 * q):
                bound = self._raised(bound, q, values, listed)
                listed = self._listed_at_least(bound)
            free_keys, free_values = self._free_at_least(bound, q, values, listed)
        else:
            free_keys, free_values = none, none
        all_keys = np.concatenate((keys, free_keys))
        all_values = np.concatenate((values, free_values))
        is_stored = np.arange(all_keys.size) < keys.size
        best = np.lexsort((all_keys, -all_values))[:q]
        return all_keys[best] // self.n_items, all_keys[best] % self.n_items, is_stored[best]

    def _blocks(self, matrix: sparse.csr_array) -> Any:
        """Yield keys, users, items and the slice of the entries of mass of each run of rows."""
        for first, last in row_blocks(matrix.indptr, _BLOCK_ENTRIES):
            start, stop = int(matrix.indptr[first]), int(matrix.indptr[last])
            users = np.repeat(np.arange(first, last), np.diff(matrix.indptr[first : last + 1]))
            items = matrix.indices[start:stop]
            yield users, items, users * self.n_items + items, slice(start, stop)

    def _top_stored(self, q: int) -> tuple[np.ndarray, np.ndarray]:
        """List the q best entries with a stored cost that are not excluded: keys and values, by key."""
        kept_keys: list[np.ndarray] = []
        kept_values: list[np.ndarray] = []
        n_kept = 0
        bound = _NO_MASS
        for users, items, keys, entries in self._blocks(self.cost):
            f, g = self.f[users], self.g[items]
            exponent = self.cost.data[entries].astype(np.float64) / -self.epsilon
            values = f + g + np.rint(exponent / _UNIT).astype(np.int64)
            kept = (f != _NO_MASS) & (g != _NO_MASS) & (values > bound)
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
                bound = int(values.min())
        if not kept_keys:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        return _best(np.concatenate(kept_keys), np.concatenate(kept_values), q)

    def _is_skipped(self, keys: np.ndarray) -> np.ndarray:
        """Whether ascending keys are stored in the excluded matrix."""
        first, last = int(keys[0] // self.n_items), int(keys[-1] // self.n_items) + 1
        start, stop = self.skip.indptr[first], self.skip.indptr[last]
        rows = np.repeat(np.arange(first, last), np.diff(self.skip.indptr[first : last + 1]))
        return occurs_in(keys, rows * self.n_items + self.skip.indices[start:stop])

    def _listed_at_least(self, bound: int) -> np.ndarray:
        """Ascending keys of stored or excluded pairs whose rank-one part f + g reaches the bound."""
        found: list[np.ndarray] = []
        for matrix in (self.cost, self.skip):
            for users, items, keys, _ in self._blocks(matrix):
                f, g = self.f[users], self.g[items]
                found.append(keys[(f != _NO_MASS) & (g != _NO_MASS) & (f + g >= bound)])
        return np.unique(np.concatenate(found)) if found else np.zeros(0, np.int64)

    def _counts_at_least(self, bound: int) -> np.ndarray:
        """For each user of mass, how many items of mass reach the bound in f + g, whatever their cost."""
        return self.sorted_g.size - np.searchsorted(self.sorted_g, bound - self.f[self.users], side="left")

    def _raised(self, bound: int, q: int, stored_values: np.ndarray, listed: np.ndarray) -> int:
        """Find the largest bound with q entries at or above it; the given one if there is none."""
        rank_one = np.sort(self.f[listed // self.n_items] + self.g[listed % self.n_items])
        stored = np.sort(stored_values)

        def n_entries(value: int) -> int:
            n_listed = rank_one.size - int(np.searchsorted(rank_one, value))
            n_stored = stored.size - int(np.searchsorted(stored, value))
            return int(self._counts_at_least(value).sum()) - n_listed + n_stored

        low, high = bound, int(self.f[self.users].max() + self.sorted_g[-1]) + 1
        if stored.size:
            high = max(high, int(stored[-1]) + 1)
        while high - low > 1:
            middle = (low + high) // 2
            if n_entries(middle) >= q:
                low = middle
            else:
                high = middle
        return low

    def _free_at_least(
        self, bound: int, q: int, stored_values: np.ndarray, listed: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """
        List pairs that are neither stored nor excluded: keys and values.

        All above the bound, and at the bound, in the order of keys, at least as many as the top q can still take.
        """
        above = self._pairs(np.searchsorted(self.sorted_g, bound - self.f[self.users], side="right"), None)
        above = above[~occurs_in(above, listed)]
        n_missing = q - above.size - int((stored_values > bound).sum())
        at = np.zeros(0, np.int64)
        if n_missing > 0:
            first = np.searchsorted(self.sorted_g, bound - self.f[self.users], side="left")
            last = np.searchsorted(self.sorted_g, bound - self.f[self.users], side="right")
            listed_at = listed[self.f[listed // self.n_items] + self.g[listed % self.n_items] == bound]
            n_listed_at = np.bincount(listed_at // self.n_items, minlength=self.f.size)[self.users]
            enough = int(np.searchsorted(np.cumsum(last - first - n_listed_at), n_missing)) + 1
            at = self._pairs(first[:enough], last[:enough])
            at = at[~occurs_in(at, listed_at)]
        keys = np.concatenate((above, at))
        return keys, self.f[keys // self.n_items] + self.g[keys % self.n_items]

    def _pairs(self, first: np.ndarray, last: np.ndarray | None) -> np.ndarray:
        """Ascending keys of the pairs of each user (the first of them) with a run [first, last) of `by_g`."""
        counts = (self.sorted_g.size if last is None else last) - first
        owner = np.repeat(np.arange(first.size), counts)
        offset = np.arange(owner.size) - np.repeat(np.cumsum(counts) - counts, counts)
        keys = self.users[owner] * self.n_items + self.by_g[first[owner] + offset]
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
