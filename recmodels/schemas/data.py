"""Tables made from the raw files: items, users, reviews, split interactions, and the lines that were rejected."""

import dataframely as dy
import polars as pl

from recmodels.schemas.columns import ItemRows, PairRows, UserRows

SPLITS = ("train", "valid", "test")
Split = pl.Enum(SPLITS)


class Items(ItemRows):
    """One row an item, in id order. Texts are unescaped and stripped; an absent text is empty, a price null."""

    asin = dy.String()
    title = dy.String()
    description = dy.String()
    brand = dy.String()
    categories = dy.List(dy.String())
    price = dy.Float32(nullable=True, min_exclusive=0)
    image_url = dy.String()


class ItemIds(ItemRows):
    """One row an item, in id order: what trained models keep to name their items."""

    asin = dy.String()


class Users(UserRows):
    """One row a user, in id order: where the id of the dump is kept."""

    reviewer_id = dy.String(unique=True, min_length=1)


class Reviews(PairRows):
    """One row a kept (user, item) pair, by user and item; seconds since the epoch. No rows: an import without any."""

    rating = dy.Float32(min=0)
    timestamp = dy.Int64(min=0)
    summary = dy.String()
    text = dy.String()


class Interactions(PairRows):
    """One row a (user, item) pair, by user and item. `rating` and `timestamp` are null where an import has none."""

    rating = dy.Float32(nullable=True)
    timestamp = dy.Int64(nullable=True)
    split = dy.Enum(SPLITS)

    @dy.rule()
    def training_rows(cls) -> pl.Expr:
        """At least one row of the split train."""
        return (pl.col("split") == "train").any()


class Rejects(dy.Schema):
    """One row a rejected raw line: 1-based line number and its first 200 characters."""

    file = dy.String(min_length=1)
    line = dy.Int64(min=1)
    reason = dy.String(min_length=1)
    text = dy.String()
