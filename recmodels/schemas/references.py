"""How a table refers to others of the same data set: what of its ids and pairs has to agree with theirs."""

from dataclasses import dataclass

import polars as pl


@dataclass(frozen=True)
class KnownIds:
    """A column whose ids are all among the rows of another table, whose own ids run from 0."""

    column: str
    table: str

    @property
    def expected(self) -> str:
        """What holds of a sound table."""
        return f"{self.column} of the ids in {self.table}"

    def broken(self, frame: pl.DataFrame, other: pl.DataFrame) -> pl.DataFrame:
        """Return the rows with other ids."""
        return frame.filter(pl.col(self.column) >= other.height)


@dataclass(frozen=True)
class EveryId:
    """
    A column that has every id of another table, and no others.

    Attributes
    ----------
    id_column
        What the column is called there.
    split
        Only its rows of this split count; empty for all.
    """

    column: str
    table: str
    id_column: str
    split: str = ""

    @property
    def expected(self) -> str:
        """What holds of a sound table."""
        rows = f"the {self.split} rows of {self.table}" if self.split else self.table
        return f"{self.column} to have every {self.id_column} of {rows} and no other"

    def broken(self, frame: pl.DataFrame, other: pl.DataFrame) -> pl.DataFrame:
        """Return the ids that are missing and those that should not be there, by id."""
        rows = other.filter(pl.col("split") == self.split) if self.split else other
        known = rows.select(pl.col(self.id_column).unique().alias(self.column))
        found = frame.select(pl.col(self.column).unique())
        apart = [one.join(two, on=self.column, how="anti") for one, two in ((known, found), (found, known))]
        return pl.concat(apart).sort(self.column)


@dataclass(frozen=True)
class EveryUserWithItemsLeft:
    """The column `user_id` has every user of the interactions who lacks one of their items in some splits."""

    splits: tuple[str, ...]
    table: str = "interactions"

    @property
    def expected(self) -> str:
        """What holds of a sound table."""
        return f"user_id to have every user_id of {self.table} with an item left and no other"

    def broken(self, frame: pl.DataFrame, other: pl.DataFrame) -> pl.DataFrame:
        """Return the ids that are missing and those that should not be there, by id."""
        n_items = other["item_id"].n_unique()
        n_had = pl.col("split").is_in(self.splits).sum()
        left = other.group_by("user_id").agg(n_had=n_had).filter(pl.col("n_had") < n_items).select("user_id")
        found = frame.select(pl.col("user_id").unique())
        missing = left.join(found, on="user_id", how="anti")
        strange = found.join(other, on="user_id", how="anti")
        return pl.concat([missing, strange]).sort("user_id")


@dataclass(frozen=True)
class NoKnownPair:
    """Rows whose (user, item) pair is not among the interactions of some splits."""

    splits: tuple[str, ...]
    table: str = "interactions"

    @property
    def expected(self) -> str:
        """What holds of a sound table."""
        return f"no pair of the splits {' and '.join(self.splits)} of {self.table}"

    def broken(self, frame: pl.DataFrame, other: pl.DataFrame) -> pl.DataFrame:
        """Return the rows whose pair is."""
        known = other.filter(pl.col("split").is_in(self.splits))
        return frame.join(known, on=["user_id", "item_id"], how="semi")
