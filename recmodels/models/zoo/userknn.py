"""UserKNN: what users with the same items have (Sarwar et al., ACM EC 2000)."""

from collections.abc import Sequence

from pydantic import Field, NonNegativeFloat, PositiveInt

from recmodels.graphs.co_occurrence import cosines_of_columns
from recmodels.models.zoo import itemknn
from recmodels.ranking.ranker import LinearScorer


class Config(itemknn.Config):
    """Settings of UserKNN: those of ItemKNN, about users."""

    neighbour_counts: tuple[PositiveInt, ...] = Field(default=(100, 200, 500), min_length=1)
    """Numbers k of neighbours to try."""
    shrinkages: tuple[NonNegativeFloat, ...] = Field(default=(0, 5, 20), min_length=1)
    """Terms h in the denominator of the cosine to try: they hold back who has few items."""


class Model(itemknn.Model):
    r"""
    The score of item i for user u: :math:`\sum_v \cos(u, v)`.

    The sum is over the users v that have item i and are among the k nearest to u; the cosine is that of the sets of
    items, shrunk by h.
    """

    def solve(self, values: Sequence[float]) -> LinearScorer:
        """Return the ranking with a number of neighbours of a user and a shrinkage."""
        neighbours, shrinkage = values
        similar = cosines_of_columns(self.train_matrix.T.tocsr(), int(neighbours), shrinkage=shrinkage)
        return LinearScorer(similar, self.train_matrix)
