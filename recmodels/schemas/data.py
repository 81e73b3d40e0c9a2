"""Tables made from the raw files: items, users, reviews, split interactions, and the lines that were rejected."""

import dataframely as dy
import polars as pl

from recmodels.schemas.columns import ItemRows, PairRows, UserRows

SPLITS = ("train", "valid", "test")
Split = pl.Enum(SPLITS)


class Items(ItemRows):
    """One row an item, in id order. Texts are unescaped and stripped; an absent text is empty, a price null."""

    asin = dy.String(description="Name of the item in the raw files")
    title = dy.String(description="Its title, empty where there is none")
    description = dy.String(description="What the shop says of it, empty where it says nothing")
    brand = dy.String(description="Who makes it, empty where that is unknown")
    categories = dy.List(dy.String(), description="Names from the general to the special")
    price = dy.Float32(nullable=True, min_exclusive=0, description="In the currency of the raw files")
    image_url = dy.String(description="Address of a picture, never loaded here")


class ItemIds(ItemRows):
    """One row an item, in id order: what trained models keep to name their items."""

    asin = dy.String(description="Name of the item in the raw files")


class Users(UserRows):
    """One row a user, in id order: where the id of the dump is kept."""

    reviewer_id = dy.String(unique=True, min_length=1, description="Name of the user in the raw files")


class Reviews(PairRows):
    """One row a kept (user, item) pair, by user and item; seconds since the epoch. No rows: an import without any."""

    rating = dy.Float32(min=0, description="Stars, as given")
    timestamp = dy.Int64(min=0, description="Seconds since the epoch")
    summary = dy.String(description="Headline of the review")
    text = dy.String(description="The review")


class Interactions(PairRows):
    """One row a (user, item) pair, by user and item. `rating` and `timestamp` are null where an import has none."""

    rating = dy.Float32(nullable=True, description="Stars, as given")
    timestamp = dy.Int64(nullable=True, description="Seconds since the epoch")
    split = dy.Enum(SPLITS, description="What the row is for")

    @dy.rule()
    def training_rows(cls) -> pl.Expr:
        """At least one row of the split train."""
        return (pl.col("split") == "train").any()


class Rejects(dy.Schema):
    """One row a rejected raw line: 1-based line number and its first 200 characters."""

    file = dy.String(min_length=1, description="Name of the raw file")
    line = dy.Int64(min=1, description="Number of the line, from 1")
    reason = dy.String(min_length=1, description="Why it could not be read")
    text = dy.String(description="Its first 200 characters")
