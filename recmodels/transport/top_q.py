r"""
The q largest entries of a transport plan, exactly, without forming the plan.

The parts of a plan (`recmodels.transport.candidates`) count their entries above a threshold, which is moved until q
are left; of equal entries at it the first by user and item are taken, so that the cut into parts changes nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from recmodels.compute.base import Group
from recmodels.errors import InputError
from recmodels.graphs.matrices import canonical_csr, shape_of
from recmodels.transport.candidates import NO_MASS, Candidates, Extent, ItemSide
from recmodels.transport.parts import Potentials

# Listing this many pairs at once is cheaper than looking for a sharper bound first.
_CHEAP_PAIRS = 1 << 22
# Thresholds at which several parts count in one round: rounds cost a message each.
_THRESHOLDS = 7

Ask = Callable[[str, list[tuple[Any, ...]]], list[Any]]
"""Ask each part for a method of its `Candidates` with arguments of its own; answers in the order of the parts."""


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
    items = ItemSide(log_g)
    part = Candidates(log_f, items, matrix, skip, epsilon)

    def ask(method: str, arguments: list[tuple[Any, ...]]) -> list[Any]:
        return [getattr(part, method)(*arguments[0])]

    return select(ask, 1, items, int(q))


def top_q_in_parts(group: Group, n_parts: int, potentials: Potentials, q: int) -> TopEntries:
    """
    Select the q largest entries of a plan whose rows are in parts: the pairs that `top_q` selects of the whole.

    Parameters
    ----------
    group
        The parts, each a `recmodels.transport.parts.PlanRows`, in the order of their users.
    n_parts
        How many there are.
    potentials
        From `recmodels.transport.sinkhorn.sinkhorn_in_parts`.
    q
        Number of entries, at least 0.
    """

    def ask(method: str, arguments: list[tuple[Any, ...]]) -> list[Any]:
        return group.call("select", method, potentials, each=arguments)

    return select(ask, n_parts, potentials.items, q)


def select(ask: Ask, n_parts: int, items: ItemSide, q: int) -> TopEntries:
    """
    Select the q largest entries of a plan in parts, which are runs of users in order; see `top_q`.

    Parameters
    ----------
    ask
        Puts a question to all parts.
    n_parts
        How many there are.
    items
        Potentials of the items.
    q
        Number of entries.
    """

    def to_all(method: str, *arguments: Any) -> list[Any]:
        return ask(method, [arguments] * n_parts)

    if q == 0 or not (items.log_g > -np.inf).any():
        return _together([])
    best: list[Extent] = ask("best_stored", [(quota,) for quota in _quotas(to_all("n_stored"), q)])
    if n_parts > 1 and sum(part.n_kept for part in best) < q:
        best = to_all("best_stored", q)
    highest_f = max(part.highest_f for part in best)
    if highest_f == NO_MASS:
        return _together([])
    lowest_stored, highest = min(part.lowest for part in best), max(part.highest for part in best)
    if sum(part.n_kept for part in best) >= q:
        bound = lowest_stored
    else:
        bound = min(min(part.lowest_f for part in best) + int(items.g[items.g != NO_MASS].min()), lowest_stored)
    n_pairs, n_not_free = np.sum(to_all("reach", bound), axis=0).tolist()
    free = n_pairs > n_not_free
    # None: too many free pairs to list before the bound is sharp.
    listed = (free, None) if not free or n_pairs <= max(_CHEAP_PAIRS, 8 * q) else None
    if free:
        highest = max(highest, highest_f + int(items.g.max()))

    def counts(values: list[int]) -> np.ndarray:
        answers: list[np.ndarray] = ask("count", [(values, bound, q, listed)] * n_parts)
        return np.stack(answers)

    threshold = _threshold(lambda values: counts(values).sum(axis=0), q, bound, highest + 1, n_parts)
    n_reached, n_above = counts([threshold, threshold + 1]).T.tolist()
    taken: list[tuple[Any, ...]] = []
    missing = q - sum(n_above)
    for reached, above in zip(n_reached, n_above, strict=True):
        quota = min(missing, reached - above)
        missing -= quota
        which = (bound, q, *listed) if listed is not None else (threshold, q, True, quota)
        taken.append((quota, threshold, *which))
    return _together(ask("take", taken))


def _quotas(sizes: list[int], q: int) -> list[int]:
    """Share q among parts by their stored entries, rounded up: where all can give theirs, q entries are reached."""
    total = sum(sizes)
    return [-(-q * size // total) if total else q for size in sizes]


def _threshold(counts: Callable[[list[int]], np.ndarray], q: int, low: int, high: int, n_parts: int) -> int:
    """Find the largest value in [low, high) that at least q entries reach; the lowest if there is none."""
    n_values = 1 if n_parts == 1 else _THRESHOLDS
    while high - low > 1:
        values = sorted({low + (high - low) * k // (n_values + 1) for k in range(1, n_values + 1)} - {low})
        n_enough = int((counts(values) >= q).sum())
        low, high = [low, *values][n_enough], [*values, high][n_enough]
    return low


def _together(parts: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]) -> TopEntries:
    none = (np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0), np.zeros(0, bool))
    return TopEntries(*(np.concatenate(arrays) for arrays in zip(none, *parts, strict=True)))
