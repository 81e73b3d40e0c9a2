"""
What tables of several stages have in common: rows by item, user or pair, vectors, numbers that count up.

Ids are contiguous from 0 and stable: the same rows give the same ids whatever their order. The docstring of a rule is
what a message says was expected. What a single table holds stands in the module of its stage.
"""

from typing import Any

import dataframely as dy
import polars as pl


class Vector(dy.Array):
    """A column of finite float32 vectors of one width, whichever the encoder has."""

    def __init__(self, *, description: str | None = None) -> None:
        # NaN and infinity survive any sum, which is cheaper than a look at every number.
        numbers = dy.Float32(allow_inf=True, allow_nan=True)
        super().__init__(
            numbers, 1, description=description, check={"finite numbers": lambda vector: vector.arr.sum().is_finite()}
        )

    def validate_dtype(self, dtype: Any) -> bool:
        """Tell whether a type is one of such vectors, of any width."""
        return isinstance(dtype, pl.Array) and dtype.inner == pl.Float32 and len(dtype.shape) == 1


class ItemRows(dy.Schema):
    """One row an item, in id order."""

    item_id = dy.Int32(min=0, description="The item, numbered from 0")

    @dy.rule()
    def item_ids_without_a_gap(cls) -> pl.Expr:
        """item_id that runs from 0 without a gap, in order."""
        return pl.col("item_id") == pl.int_range(pl.len())


class UserRows(dy.Schema):
    """One row a user, in id order."""

    user_id = dy.Int32(min=0, description="The user, numbered from 0")

    @dy.rule()
    def user_ids_without_a_gap(cls) -> pl.Expr:
        """user_id that runs from 0 without a gap, in order."""
        return pl.col("user_id") == pl.int_range(pl.len())


class PairRows(dy.Schema):
    """One row a (user, item) pair, by user and item."""

    user_id = dy.Int32(min=0, description="The user, numbered from 0")
    item_id = dy.Int32(min=0, description="The item, numbered from 0")

    @dy.rule()
    def pairs_in_order(cls) -> pl.Expr:
        """Rows by user and item, each pair once."""
        user, item = pl.col("user_id"), pl.col("item_id")
        return (user > user.shift()) | ((user == user.shift()) & (item > item.shift()))


def one_of(*names: str, description: str, primary_key: bool = False) -> dy.String:
    """Return a column of texts that are all among some names."""
    return dy.String(
        primary_key=primary_key,
        description=description,
        check={f"one of {', '.join(names)}": lambda text: text.is_in(names)},
    )


def numbered_within(group: str, number: str, *, first: int) -> pl.Expr:
    """Tell of each row whether groups stand in order and the number counts up from `first` within each."""
    group_, number_ = pl.col(group), pl.col(number)
    starts = (group_ > group_.shift()).fill_null(True) & (number_ == first)
    return pl.when(group_ == group_.shift()).then(number_ == number_.shift() + 1).otherwise(starts)
