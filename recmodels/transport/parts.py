r"""
Rows of a transport plan, which a large problem has in several parts: what the solver and the selection ask of them.

Users are rows and stay in their part; only vectors of items come and go. A part keeps what it computed last, but its
answers follow from its rows and the arguments alone: the potentials of its users are those that belong to an item
vector, :math:`\log f = \rho / (\rho + \varepsilon) \, (\log a - \log K g)`. The iteration and the search for the
threshold are not here.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy import sparse

from recmodels.errors import InputError
from recmodels.graphs.matrices import canonical_csr, row_blocks, shape_of
from recmodels.io.devices import resolve_device
from recmodels.transport.candidates import Candidates, ItemSide
from recmodels.transport.false_negatives import ItemEvidence, false_negatives_of_rows
from recmodels.transport.kernels import Kernel, log_kernel, scaling_kernel

MOST_ENTRIES = int(np.iinfo(np.int32).max)
"""Costs that a part can store; all parts together can store more."""


@dataclass(frozen=True, eq=False)
class Potentials:
    """
    A plan by its item vectors, from which every part knows those of its users.

    Attributes
    ----------
    form
        Of the products, ``scaling`` or ``log``.
    before
        The item vector to which log f belongs.
    log_g
        The one that was computed from log f.
    """

    form: str
    before: np.ndarray
    log_g: np.ndarray

    @cached_property
    def items(self) -> ItemSide:
        """What the selection needs of `log_g`."""
        return ItemSide(self.log_g)

    def equal(self, other: "Potentials") -> bool:
        """Tell whether two are the same."""
        return self is other or (
            self.form == other.form
            and np.array_equal(self.before, other.before)
            and np.array_equal(self.log_g, other.log_g)
        )


class PlanRows:
    """
    The rows of some users in a row, of a cost and of the plan that belongs to it.

    Parameters
    ----------
    cost
        Shape (users of the part, n_items), from `checked_cost`.
    a
        Mass of these users.
    epsilon
        Entropic weight.
    power
        rho / (rho + epsilon), or 1 for exact marginals.
    excluded
        Pairs that are never selected, shape of the cost; None for none.
    first
        Id of the first user.
    on_cuda
        Whether a CUDA device keeps the matrix of the scaling form.
    """

    def __init__(
        self,
        cost: sparse.csr_array,
        a: np.ndarray,
        epsilon: float,
        power: float,
        *,
        excluded: sparse.csr_array | None = None,
        first: int = 0,
        on_cuda: bool = False,
    ) -> None:
        self._cost = cost
        with np.errstate(divide="ignore"):
            self._log_a = np.log(a)
        self._epsilon, self._power, self._first, self._on_cuda = epsilon, power, first, on_cuda
        self._excluded = sparse.csr_array(self._cost.shape, dtype=np.int8) if excluded is None else excluded
        self._kernel: tuple[str, Kernel] | None = None
        self._answers: list[tuple[str, np.ndarray, np.ndarray]] = []
        self._candidates: tuple[Potentials, Candidates] | None = None

    def stored_cost(self) -> sparse.csr_array:
        """Return the cost, for a solver that wants it whole."""
        return self._cost

    def cost_range(self) -> tuple[float, float]:
        """Return the lowest and the highest cost, 0 among them."""
        return float(self._cost.data.min(initial=0.0)), float(self._cost.data.max(initial=0.0))

    def log_f(self, form: str, log_g: np.ndarray) -> np.ndarray:
        """Return log f of these users that belongs to an item vector."""
        return self._power * (self._log_a - self._rows(form, log_g))

    def columns(self, form: str, log_g: np.ndarray) -> np.ndarray:
        """Return log(K^T f) over these users, whose f belongs to an item vector; shape (n_items,)."""
        log_f = self.log_f(form, log_g)
        if log_f.max() == -np.inf:
            return np.full(log_g.size, -np.inf)
        return self._kernel_of(form).columns(log_f)

    def difference(self, form: str, before: np.ndarray, log_g: np.ndarray) -> tuple[float, float]:
        """Return how far the row sums of a plan are from what the fixed point asks for, as a sum, and the mass."""
        log_kg = self._rows(form, log_g)
        return row_difference(self.log_f(form, before), log_kg, self._power * (self._log_a - log_kg))

    def select(self, own: Sequence[Any], method: str, potentials: Potentials) -> Any:
        """Ask the `Candidates` of these rows; `own` are the arguments."""
        if self._candidates is None or not self._candidates[0].equal(potentials):
            log_f = self.log_f(potentials.form, potentials.before)
            # The products are over: what they needed makes room.
            self._kernel, self._answers = None, []
            found = Candidates(log_f, potentials.items, self._cost, self._excluded, self._epsilon, self._first)
            self._candidates = (potentials, found)
        return getattr(self._candidates[1], method)(*own)

    def _kernel_of(self, form: str) -> Kernel:
        if self._kernel is None or self._kernel[0] != form:
            on = resolve_device("cuda", setting="transport.backend").type if self._on_cuda else "cpu"
            scaling = form == "scaling"
            self._kernel = (
                form,
                scaling_kernel(self._cost, self._epsilon, on) if scaling else log_kernel(self._cost, self._epsilon),
            )
        return self._kernel[1]

    def _rows(self, form: str, log_g: np.ndarray) -> np.ndarray:
        """log(K g), kept for the last two vectors, which are asked for again; often as the same objects."""
        kept = [answer for of, vector, answer in self._answers if of == form and vector is log_g] or [
            answer for of, vector, answer in self._answers if of == form and np.array_equal(vector, log_g)
        ]
        if kept:
            return kept[0]
        answer = self._kernel_of(form).rows(log_g)
        self._answers = [*self._answers[-1:], (form, log_g, answer)]
        return answer


@dataclass(frozen=True, eq=False)
class SharedByUsers:
    """What all parts of an augmentation are made with: the item graphs and what `PlanRows` is told."""

    items: ItemEvidence
    epsilon: float
    power: float
    on_cuda: bool = False
    keep_false_negatives: bool = True


@dataclass(frozen=True, eq=False)
class UserRows:
    """What a part is made of: its first user, and the training pairs and the mass of its users."""

    first: int
    positives: sparse.csr_array
    a: np.ndarray


class UserPart(PlanRows):
    """
    Some users of an augmentation, with the false negatives that follow from their training pairs.

    A training pair costs 1, a false negative minus its evidence; training pairs are never selected.
    """

    def __init__(self, shared: SharedByUsers, rows: UserRows) -> None:
        found = false_negatives_of_rows(shared.items, rows.positives)
        if found.nnz + rows.positives.nnz > MOST_ENTRIES:
            raise InputError(
                f"users {rows.first} to {rows.first + rows.a.size - 1}",
                expected=f"at most {MOST_ENTRIES:,} stored costs in a part",
                found=f"{found.nnz + rows.positives.nnz:,}",
                action="Set entries_per_part lower.",
            )
        self._n_found = found.nnz
        self._n_without = int((np.diff(found.indptr) == 0).sum())
        self._pattern = None
        # Positives are disjoint from the false negatives, so the sum of the two patterns holds the cost of each.
        cost = sparse.csr_array(rows.positives - found)
        if shared.keep_false_negatives:
            self._pattern = found.indices, found.indptr
        del found
        super().__init__(
            checked_cost(cost),
            rows.a,
            shared.epsilon,
            shared.power,
            excluded=rows.positives,
            first=rows.first,
            on_cuda=shared.on_cuda,
        )

    def sizes(self) -> tuple[int, int]:
        """Return the number of false negatives and of users without one."""
        return self._n_found, self._n_without

    def false_negatives(self) -> sparse.csr_array:
        """Return the pattern of the false negatives, int8; without entries if it was not to be kept."""
        if self._pattern is None:
            return sparse.csr_array(self._cost.shape, dtype=np.int8)
        indices, indptr = self._pattern
        return sparse.csr_array((np.ones(indices.size, np.int8), indices, indptr), shape=self._cost.shape)


def user_parts(
    positives: sparse.csr_array, a: np.ndarray, items: ItemEvidence, entries_per_part: int
) -> Iterator[UserRows]:
    """
    Cut users, in order, into parts of about so many stored costs; a user with more stands alone.

    What a user counts for is known before the false negatives are: 1, the training pairs, and the edges that leave
    their items, more than there are costs where edges meet in an item.
    """
    work = items.edges(positives) + positives.indptr + np.arange(a.size + 1)
    for first, last in row_blocks(work, entries_per_part):
        whole = last - first == a.size
        yield UserRows(first, positives if whole else positives[first:last], a[first:last])


def row_difference(log_f: np.ndarray, log_kg: np.ndarray, wanted: np.ndarray) -> tuple[float, float]:
    """Return the sum of differences of the row sums from those of the wanted log f, and the mass."""
    row_sums = np.exp(log_f + log_kg)
    return float(np.abs(np.exp(wanted + log_kg) - row_sums).sum()), float(row_sums.sum())


def checked_cost(cost: Any) -> sparse.csr_array:
    """
    Return a cost as CSR.

    Raises
    ------
    InputError
        If it is not sparse, has no user or no item, or a value is not finite.
    """
    matrix = canonical_csr("cost", cost)
    if min(shape_of(matrix)) < 1:
        raise InputError("cost", expected="at least one user and one item", found=f"shape {shape_of(matrix)}")
    if not np.isfinite(matrix.data).all():
        n_wrong = int((~np.isfinite(matrix.data)).sum())
        raise InputError("cost", expected="finite values", found=f"{n_wrong} entries of NaN or infinity")
    return matrix
