"""ItemKNN: items that share users with those of the user (Deshpande and Karypis, ACM TOIS 2004)."""

import itertools
from collections.abc import Sequence

from pydantic import Field, NonNegativeFloat, PositiveInt

from recmodels.graphs.co_occurrence import cosines_of_columns
from recmodels.models import base
from recmodels.models.config import ClosedFormConfig
from recmodels.ranking.ranker import LinearScorer


class Config(ClosedFormConfig):
    """Settings of ItemKNN."""

    neighbour_counts: tuple[PositiveInt, ...] = Field(default=(50, 200, 1000), min_length=1)
    """Numbers k of neighbours to try."""
    shrinkages: tuple[NonNegativeFloat, ...] = Field(default=(0, 20, 100, 500), min_length=1)
    """Terms h in the denominator of the cosine to try: they hold back what few users have."""


class Model(base.ClosedFormModel):
    r"""
    The score of item i for user u: :math:`\sum_{j \in H_u} \cos(j, i)`.

    The sum is over the items j of the user that have i among their k nearest; the cosine is that of the sets of users,
    shrunk by h.
    """

    config: Config
    settings = ("neighbours", "shrinkage")

    @property
    def choices(self) -> Sequence[tuple[float, ...]]:
        """Each number of neighbours with each shrinkage."""
        return list(itertools.product(self.config.neighbour_counts, self.config.shrinkages))

    def solve(self, values: Sequence[float]) -> LinearScorer:
        """Return the ranking with a number of neighbours of an item and a shrinkage."""
        neighbours, shrinkage = values
        similar = cosines_of_columns(self.train_matrix, int(neighbours), shrinkage=shrinkage)
        return LinearScorer(self.train_matrix, similar)
