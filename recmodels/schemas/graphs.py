"""Neighbour tables, and the pairs that the transport plan adds."""

import dataframely as dy
import polars as pl

from recmodels.schemas.columns import PairRows, numbered_within

_LARGEST_COSINE = 1 + 1e-6


class Neighbours(dy.Schema):
    """Cosine neighbours, by src and rank; rank 0 is the best and normally src itself. No rows: an absent modality."""

    src = dy.Int32(primary_key=True, min=0, description="Whose neighbours these are")
    dst = dy.Int32(primary_key=True, min=0, description="The neighbour")
    rank = dy.Int16(min=0, description="Place of the neighbour, the nearest first")
    similarity = dy.Float32(
        nullable=True, min=-_LARGEST_COSINE, max=_LARGEST_COSINE, description="Cosine of their vectors, where known"
    )

    @dy.rule()
    def ranks_without_a_gap(cls) -> pl.Expr:
        """Rows by src whose rank runs from 0 without a gap."""
        return numbered_within("src", "rank", first=0)

    @dy.rule()
    def equal_degrees(cls) -> pl.Expr:
        """Rows by src, the same number for each."""
        last = (pl.col("src") != pl.col("src").shift(-1)).fill_null(True)
        return ~last | (pl.col("rank") == pl.col("rank").max())

    @dy.rule()
    def best_first(cls) -> pl.Expr:
        """Neighbours other than src itself whose similarity falls with the rank."""
        src, similarity = pl.col("src"), pl.col("similarity")
        risen = (src == src.shift()) & (similarity > similarity.shift())
        return ~risen | (src == pl.col("dst"))


class UserNeighbours(Neighbours):
    """Cosine neighbours of users, by src and rank; rank 0 is src itself."""

    @dy.rule()
    def itself_first(cls) -> pl.Expr:
        """Every src as its own neighbour at rank 0."""
        return (pl.col("rank") != 0) | (pl.col("src") == pl.col("dst"))


class AddedPairs(PairRows):
    """The added positives H without R, by user and item; `mass` is the plan's entry."""

    mass = dy.Float64(min_exclusive=0, description="Entry of the transport plan")
