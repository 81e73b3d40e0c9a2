"""EASE: the linear model of items on items with a zero diagonal, in closed form (Steck, WWW 2019)."""

from collections.abc import Sequence

import numpy as np
import psutil
import torch
from pydantic import Field, PositiveFloat
from scipy import sparse
from torch import Tensor

from recmodels.errors import InputError
from recmodels.graphs.matrices import shape_of
from recmodels.models import base
from recmodels.models.config import ClosedFormConfig
from recmodels.models.inputs import TrainingData
from recmodels.ranking.ranker import LinearScorer

_BYTES_AN_ENTRY = 8 + 8
"""Of the item-item matrix: itself and its factor in float64; later the inverse, and the weights in float32."""
_ROWS = 512


class Config(ClosedFormConfig):
    """Settings of EASE."""

    penalties: tuple[PositiveFloat, ...] = Field(default=(50, 100, 200, 300, 500, 1000), min_length=1)
    """Values of the L2 penalty to try."""


class Model(base.ClosedFormModel):
    """The scores of a user are the rows of B (see `ease_weights`) of the user's items, added up."""

    config: Config
    settings = ("penalty",)

    def __init__(self, config: Config, data: TrainingData, generator: torch.Generator) -> None:
        super().__init__(config, data, generator)
        _check_memory(data.n_items)

    @property
    def choices(self) -> Sequence[tuple[float, ...]]:
        """The penalties."""
        return [(penalty,) for penalty in self.config.penalties]

    def solve(self, values: Sequence[float]) -> LinearScorer:
        """Return the ranking with a penalty."""
        (penalty,) = values
        return LinearScorer(self.train_matrix, ease_weights(self.train_matrix, penalty))


def ease_weights(train: sparse.csr_array, penalty: float) -> Tensor:
    r"""
    Return :math:`\arg\min_B \|X - XB\|_F^2 + \lambda \|B\|_F^2` under :math:`\mathrm{diag}(B) = 0`.

    With :math:`P = (X^\top X + \lambda I)^{-1}` the solution is :math:`B_{ij} = -P_{ij} / P_{jj}` for i != j (eq. 8).

    Parameters
    ----------
    train
        (n_users, n_items) binary CSR, X.
    penalty
        Lambda.

    Returns
    -------
    Tensor
        (n_items, n_items) float32. The work is in float64; 16 bytes an entry is the most memory at any time.

    Raises
    ------
    InputError
        If that memory is not available, or the penalty is not above 0.
    """
    n_items = shape_of(train)[1]
    if not penalty > 0:
        raise InputError("penalty of EASE", expected="a number above 0", found=str(penalty))
    _check_memory(n_items)
    wide = train.astype(np.float64)
    gram = torch.from_numpy((wide.T @ wide).toarray())
    gram.diagonal().add_(penalty)
    # Not scipy's: with several threads its OpenBLAS (0.3.30) ends the process on a matrix of 23,033 items.
    factor, failed = torch.linalg.cholesky_ex(gram)
    del gram
    if failed:
        raise InputError("penalty of EASE", expected="one large enough to invert the matrix", found=str(penalty))
    inverse = torch.cholesky_inverse(factor, out=factor).mT  # symmetric; this way its rows are contiguous
    diagonal = inverse.diagonal().clone()
    weights = torch.empty(n_items, n_items)
    for start in range(0, n_items, _ROWS):
        here = slice(start, start + _ROWS)
        weights[here] = inverse[here] / -diagonal
    weights.fill_diagonal_(0)
    return weights


def _check_memory(n_items: int) -> None:
    needed, available = _BYTES_AN_ENTRY * n_items**2, psutil.virtual_memory().available
    if needed > available:
        raise InputError(
            f"EASE of {n_items:,} items",
            expected=f"{needed / 1e9:,.1f} GB of memory for the matrix of items by items",
            found=f"{available / 1e9:,.1f} GB available",
            action="Use itemknn, which keeps a few neighbours of an item.",
        )
