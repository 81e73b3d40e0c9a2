"""A ranking whose best items are put into a new order by evidence (after BRIDGE, CIKM 2026)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import polars as pl
import torch
from scipy import sparse
from torch import Tensor

from recmodels.errors import InputError
from recmodels.graphs.matrices import shape_of
from recmodels.ranking.blocks import in_blocks
from recmodels.ranking.config import Normalisation
from recmodels.ranking.ranker import (
    EmbeddingScorer,
    LinearScorer,
    Ranker,
    matrix_from,
    matrix_tensors,
    picked,
)

REASONS = pl.Schema({"item_id": pl.Int32, "evidence": pl.String, "because_item_id": pl.Int32, "support": pl.Float32})
"""Which of a user's items speak for an item: one row an item, evidence and item of the user with a support."""

# Deviations below this share of the largest value are rounding errors of equal values.
_NOTHING = 1e-5


@dataclass(frozen=True, eq=False)
class Evidence:
    r"""
    One reason to move an item.

    The support of user u for item i is :math:`e_{ui} = |H_u|^{-1/2} \sum_{j \in H_u} W_{ji}` over the user's training
    items H.

    Attributes
    ----------
    name
        What to call it.
    weights
        W, (n_items, n_items) float32, CSR or a dense tensor.
    strength
        Beta, at least 0.
    """

    name: str
    weights: sparse.csr_array | Tensor
    strength: float

    def support(self, history: sparse.csr_array) -> LinearScorer:
        """Return the supports as scores of all items; `history` is the binary (n_users, n_items) CSR of H."""
        lengths = np.diff(history.indptr)
        scaled = history.copy()
        scaled.data = np.repeat(1 / np.sqrt(np.maximum(lengths, 1)), lengths).astype(np.float32)
        return LinearScorer(scaled, self.weights)


class CalibratedRanker(Ranker):
    r"""
    The ranking of a frozen model with its best items put into a new order.

    For user u the shortlist C holds the best items of the base ranking that are not excluded. With the supports
    :math:`\hat e` of mean 0 and deviation 1, and the deviation :math:`\sigma_u` of the base scores over C,

    .. math:: s_{ui} = s^0_{ui} + \sigma_u \sum_m \beta_m \hat e^m_{ui} \quad \text{for } i \in C.

    The shortlist itself never changes; items behind it keep score and order. Where all strengths are 0, scores and
    order are the base's to the bit. BRIDGE adds the evidence to scores of its own backbone, with the same strength for
    every scale of scores, and lets the shortlist hold seen items.

    Parameters
    ----------
    base
        The ranking of the model.
    history
        (n_users, n_items) binary CSR, the training pairs.
    evidence
        At least one.
    shortlist
        Length of C; at most n_items of it are used.
    normalisation
        Whether the mean and deviation of the supports are those over C or over all items.
    relative
        Whether strengths are relative to the base scores' deviation; if not, its place in the formula is taken by 1.

    Raises
    ------
    InputError
        If the shortlist is below 1, a strength is negative, or the sizes do not fit.
    """

    kind = "calibrated"

    def __init__(
        self,
        base: Ranker,
        history: sparse.csr_array,
        evidence: Sequence[Evidence],
        shortlist: int,
        normalisation: Normalisation = "shortlist",
        *,
        relative: bool = True,
    ) -> None:
        if shortlist < 1:
            raise InputError("shortlist", expected="at least 1 item", found=str(shortlist))
        for one in evidence:
            if not one.strength >= 0:
                raise InputError(f"strength of {one.name}", expected="at least 0", found=str(one.strength))
        size = (base.n_users, base.n_items)
        if shape_of(history) != size:
            raise InputError("history", expected=f"shape {size}, as the ranking has", found=f"shape {history.shape}")
        self.n_users, self.n_items = size
        self.base = base
        self.history = history
        self.evidence = tuple(evidence)
        self._active = [one for one in self.evidence if one.strength]
        self.shortlist = shortlist
        self.normalisation: Normalisation = normalisation
        self.relative = relative

    @property
    def item_vectors(self) -> Tensor | None:
        """Those of the base ranking."""
        return self.base.item_vectors

    def top_items(self, users: Tensor, k: int, *, excluded: sparse.csr_array | None = None) -> tuple[Tensor, Tensor]:
        """Rank all items for each of the users and return the best k, on the CPU."""
        users, length = users.cpu(), min(self.shortlist, self.n_items)
        # Which of equal scores come first depends on how many are asked for: without evidence, no more than k.
        found = self.base.top_items(users, max(k, length) if self._active else k, excluded=excluded)
        items, scores = (values.cpu() for values in found)
        listed, base = items[:, :length], scores[:, :length]
        moved = [
            (one.strength, standardised(*shortlist_support(one, self.history, users, listed, self.normalisation), base))
            for one in self._active
        ]
        new, order = reordered(base, moved, relative=self.relative)
        scores[:, :length], items[:, :length] = new, listed.gather(1, order)
        return items[:, :k], scores[:, :k]

    def reasons(self, user_id: int, item_ids: Sequence[int]) -> pl.DataFrame:
        """
        Tell which of a user's training items speak for items, and how much. Evidence of strength 0 has no say.

        Parameters
        ----------
        user_id
            The user.
        item_ids
            The items to explain, such as those that calibration moved.

        Returns
        -------
        pl.DataFrame
            Schema `REASONS`: items in the order asked, by evidence the strongest first. The supports of an item and an
            evidence add up to e_ui (see `Evidence`); what is 0 is left out.

        Raises
        ------
        InputError
            If an id is out of range.
        """
        asked = np.asarray(item_ids, dtype=np.int64)
        for name, ids, size in (("user", np.array([user_id]), self.n_users), ("item", asked, self.n_items)):
            if ids.size and (ids.min() < 0 or ids.max() >= size):
                raise InputError(f"{name} ids", expected=f"ids from 0 to {size - 1}", found=str(ids.tolist()))
        own = self.history[[user_id]].indices
        frames = [REASONS.to_frame()]
        for one in self._active:
            weights = (
                one.weights[torch.from_numpy(own).long()].numpy()
                if isinstance(one.weights, Tensor)
                else one.weights[own].toarray()
            )
            support = weights[:, asked].T / np.sqrt(max(own.size, 1))
            rows, columns = support.nonzero()
            frames.append(
                pl.DataFrame(
                    {
                        "item_id": asked[rows],
                        "evidence": [one.name] * rows.size,
                        "because_item_id": own[columns],
                        "support": support[rows, columns],
                    },
                    schema_overrides=REASONS,
                )
            )
        place = pl.DataFrame({"item_id": asked, "place": np.arange(asked.size)}, schema_overrides={"item_id": pl.Int32})
        table = pl.concat(frames).join(place, on="item_id")
        order = ["place", pl.col("support").sum().over("place", "evidence"), "evidence", "support", "because_item_id"]
        return table.sort(order, descending=[False, True, False, True, False]).drop("place")

    def is_finite(self) -> bool:
        """Tell whether the base ranking and the weights are."""
        parts = [values for one in self.evidence for values in matrix_tensors("", one.weights).values()]
        return self.base.is_finite() and all(bool(torch.isfinite(values).all()) for values in parts)

    def tensors(self) -> dict[str, Tensor]:
        """Return those of the base ranking, the training pairs and the weights."""
        parts = {f"base.{name}": tensor for name, tensor in self.base.tensors().items()}
        parts |= matrix_tensors("history", self.history)
        for index, one in enumerate(self.evidence):
            parts |= matrix_tensors(f"evidence{index}", one.weights)
        return parts

    def settings(self) -> dict[str, Any]:
        """Return strengths, shortlist and the settings of the base ranking."""
        return {
            "base": {"kind": self.base.kind, "settings": self.base.settings()},
            "n_items": self.n_items,
            "evidence": [{"name": one.name, "strength": one.strength} for one in self.evidence],
            "shortlist": self.shortlist,
            "normalisation": self.normalisation,
            "relative": self.relative,
        }

    @classmethod
    def from_stored(cls, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Self:
        """Rebuild it."""
        prefix = "base."
        of_base = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        history = matrix_from("history", tensors, settings["n_items"])
        if isinstance(history, Tensor):
            raise InputError("training pairs of the calibration", expected="a sparse matrix", found="a dense one")
        return cls(
            restored_ranker(settings["base"]["kind"], of_base, settings["base"]["settings"]),
            history,
            [
                Evidence(one["name"], matrix_from(f"evidence{index}", tensors, settings["n_items"]), one["strength"])
                for index, one in enumerate(settings["evidence"])
            ],
            settings["shortlist"],
            settings["normalisation"],
            relative=settings.get("relative", True),
        )

    def cpu(self) -> "CalibratedRanker":
        """Return it with the tensors of the base ranking on the CPU."""
        parts = (self.base.cpu(), self.history, self.evidence, self.shortlist, self.normalisation)
        return CalibratedRanker(*parts, relative=self.relative)


def restored_ranker(kind: str, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Ranker:
    """
    Return a ranker of a kind from its stored parts.

    Raises
    ------
    InputError
        If the kind is unknown.
    """
    kinds: dict[str, type[Ranker]] = {one.kind: one for one in (EmbeddingScorer, LinearScorer, CalibratedRanker)}
    if kind not in kinds:
        raise InputError("kind of ranking", expected=f"one of {', '.join(kinds)}", found=repr(kind))
    return kinds[kind].from_stored(tensors, settings)


def shortlist_support(
    evidence: Evidence, history: sparse.csr_array, users: Tensor, items: Tensor, normalisation: Normalisation
) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
    """
    Return the supports of the items that users have on their shortlists, and their mean and deviation over all items.

    Parameters
    ----------
    evidence, history
        See `CalibratedRanker`.
    users, items
        (n,) and (n, length) int64 ids.
    normalisation
        What they will be standardised over.

    Returns
    -------
    support
        (n, length) float32.
    moments
        Mean and deviation (n, 1) float64 over all items; None if they are standardised over the shortlist.
    """
    scorer = evidence.support(history)
    support = torch.empty(items.shape, dtype=torch.float32)
    moments = torch.empty(2, len(users), 1, dtype=torch.float64)

    def fill(here: slice) -> None:
        products = scorer.products(users[here])
        if normalisation == "row":
            moments[0, here], moments[1, here] = _row_moments(products)
        support[here] = picked(products, items[here])

    in_blocks(fill, len(users), scorer.n_items)
    return support, (moments[0], moments[1]) if normalisation == "row" else None


def standardised(support: Tensor, moments: tuple[Tensor, Tensor] | None, base: Tensor) -> Tensor:
    """
    Return supports (n, length) with mean 0 and deviation 1, as float32; equal ones become 0.

    Mean and deviation are the given ones, or those over the items of the shortlist that are candidates: whose base
    scores (n, length) are finite.
    """
    mean, deviation = moments if moments is not None else _moments(support, base.isfinite())
    differ = deviation > _NOTHING * support.abs().amax(dim=1, keepdim=True)
    return torch.where(differ, (support - mean) / deviation, 0).float()


def reordered(
    base: Tensor, evidence: Sequence[tuple[float, Tensor]], *, relative: bool = True
) -> tuple[Tensor, Tensor]:
    """
    Return the new scores of shortlists, best first, and where in the shortlist each of them stood.

    Parameters
    ----------
    base
        (n, length) base scores, best first.
    evidence
        Strengths and standardised supports, each (n, length).
    relative
        See `CalibratedRanker`.
    """
    scores = base
    if evidence:
        spread = _moments(base, base.isfinite())[1] if relative else 1.0
        scores = base + spread * sum(strength * support for strength, support in evidence)
    # Stable: where nothing moves, items of equal scores stay as they stood.
    return scores.sort(dim=1, descending=True, stable=True)


def _moments(values: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and deviation (n, 1) of the values of each row that are present."""
    count = present.sum(dim=1, keepdim=True).clamp(min=1)
    mean = torch.where(present, values, 0).sum(dim=1, keepdim=True) / count
    squares = torch.where(present, values - mean, 0).square_().sum(dim=1, keepdim=True)
    return mean, (squares / count).sqrt_()


def _row_moments(products: sparse.csr_array | Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and deviation (n, 1) float64 of whole rows; of sparse ones from the entries that are stored."""
    if isinstance(products, Tensor):
        deviation, mean = torch.std_mean(products.double(), dim=1, correction=0, keepdim=True)
        return mean, deviation
    stored = products.astype(np.float64)
    sums = [np.asarray(part.sum(axis=1))[:, None] / shape_of(products)[1] for part in (stored, stored.multiply(stored))]
    mean, square = (torch.from_numpy(part) for part in sums)
    return mean, (square - mean.square()).clamp_(min=0).sqrt_()
