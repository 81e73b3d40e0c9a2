"""How a table refers to others of the same data set: what of its ids and pairs has to agree with theirs."""

from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

PAIR = ["user_id", "item_id"]


@dataclass(frozen=True)
class Reference:
    """What has to agree with another table."""

    table: str
    """Name of the other."""
    expected: str
    """What holds of a sound table."""
    broken: Callable[[pl.DataFrame, pl.DataFrame], pl.DataFrame]
    """Returns, of the table and the other, the rows that break it, or the ids that are missing or should not be
    there."""


def known_ids(column: str, table: str) -> Reference:
    """Declare a column whose ids are all among the rows of another table, whose own ids run from 0."""
    expected = f"{column} of the ids in {table}"
    return Reference(table, expected, lambda frame, other: frame.filter(pl.col(column) >= other.height))


def every_id(column: str, table: str, id_column: str, *, split: str = "") -> Reference:
    """Declare a column with every id of another table, called `id_column` there, or of its rows of a split alone."""

    def broken(frame: pl.DataFrame, other: pl.DataFrame) -> pl.DataFrame:
        rows = other.filter(pl.col("split") == split) if split else other
        known = rows.select(pl.col(id_column).unique().alias(column))
        found = frame.select(pl.col(column).unique())
        apart = [one.join(two, on=column, how="anti") for one, two in ((known, found), (found, known))]
        return pl.concat(apart).sort(column)

    rows = f"the {split} rows of {table}" if split else table
    return Reference(table, f"{column} to have every {id_column} of {rows} and no other", broken)


def every_user_with_items_left(*splits: str) -> Reference:
    """Declare a column `user_id` with every user of the interactions who lacks one of their items in some splits."""

    def broken(frame: pl.DataFrame, other: pl.DataFrame) -> pl.DataFrame:
        n_had = pl.col("split").is_in(splits).sum()
        left = other.group_by("user_id").agg(n_had=n_had).filter(pl.col("n_had") < other["item_id"].n_unique())
        found = frame.select(pl.col("user_id").unique())
        missing = left.select("user_id").join(found, on="user_id", how="anti")
        strange = found.join(other, on="user_id", how="anti")
        return pl.concat([missing, strange]).sort("user_id")

    return Reference(
        "interactions", "user_id to have every user_id of interactions with an item left and no other", broken
    )


def no_known_pair(*splits: str) -> Reference:
    """Declare rows whose (user, item) pair is not among the interactions of some splits."""

    def broken(frame: pl.DataFrame, other: pl.DataFrame) -> pl.DataFrame:
        return frame.join(other.filter(pl.col("split").is_in(splits)), on=PAIR, how="semi")

    return Reference("interactions", f"no pair of the splits {' and '.join(splits)} of interactions", broken)
