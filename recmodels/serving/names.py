"""Items and users by the names of the raw data, checked where they come in."""

from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from recmodels.data.titles import shown_titles
from recmodels.errors import InputError
from recmodels.validation import did_you_mean

SHOWN = 3
"""Of many names, how many a message repeats."""


class ItemNames:
    """
    The items of a checkpoint by asin: columns item_id and asin, in id order.

    Their titles are told where there is a table with columns asin and title, such as `items`.
    """

    def __init__(self, item_ids: pl.DataFrame, items: pl.DataFrame | None = None) -> None:
        known = item_ids.select("item_id", "asin")
        if items is None:
            self.table = known.with_columns(title=pl.lit(None, pl.String))
        else:
            titles = items.select("asin", shown_titles(items)).unique("asin", keep="first", maintain_order=True)
            self.table = known.join(titles, on="asin", how="left", maintain_order="left")

    def __len__(self) -> int:
        return self.table.height

    def ids(self, where: str, asins: Iterable[str]) -> NDArray[np.int64]:
        """Return the ids of items, in the order asked; raises InputError, with the nearest asin, for one unknown."""
        asked = names(where, asins)
        found = self._found(asked)
        if unknown := [name for name, item in zip(asked, found, strict=True) if item is None]:
            raise InputError(
                where,
                expected="asins that the model knows",
                found=listed(unknown),
                action=did_you_mean(unknown[0], self.table["asin"]) or "Leave out items without training rows.",
            )
        return np.array(found, dtype=np.int64)

    def barred(self, only: Iterable[str] | None, without: Iterable[str]) -> NDArray[np.bool_] | None:
        """
        Return which items two filters leave out, (n_items,); None where they leave out none.

        Names that the model does not know are of no effect: it recommends no such item.

        Raises
        ------
        InputError
            If `only` names no item that the model knows.
        """
        mask = np.zeros(len(self), dtype=bool)
        if only is not None:
            asked = names("only", only)
            allowed = [item for item in self._found(asked) if item is not None]
            if not allowed:
                raise InputError("only", expected="asins that the model knows", found=listed(asked) or "none")
            mask[:] = True
            mask[allowed] = False
        mask[[item for item in self._found(names("without", without)) if item is not None]] = True
        return mask if mask.any() else None

    @cached_property
    def _ids(self) -> dict[str, int]:
        return dict(self.table.select("asin", "item_id").iter_rows())

    def _found(self, asked: Sequence[str]) -> list[int | None]:
        return [self._ids.get(name) for name in asked]


def names(where: str, values: Iterable[object]) -> list[str]:
    """Return names as a list, a single text as one name; raises InputError if something is not a text."""
    found: list[str] = []
    for value in [values] if isinstance(values, str) else values:
        if not isinstance(value, str):
            raise InputError(where, expected="names as in the raw data", found=repr(value))
        found.append(value)
    return found


def whole_numbers(
    where: str, values: ArrayLike, least: int, most: int | None = None, action: str = ""
) -> NDArray[np.int64]:
    """Return ids or counts as a flat array; raises InputError if one is no whole number or is out of range."""
    array = np.atleast_1d(np.asarray(values))
    whole = array.size == 0 or array.dtype.kind in "iu"
    outside = (array < least) | (array > (np.inf if most is None else most)) if whole else np.ones(1, dtype=bool)
    if array.ndim != 1 or outside.any():
        expected = f"{'' if whole else 'whole numbers, '}{least} {'or more' if most is None else f'to {most}'}"
        raise InputError(where, expected=expected, found=listed(array.ravel().tolist()), action=action)
    return array.astype(np.int64)


def listed(values: Sequence[object]) -> str:
    """Return the first few values, and how many more there are."""
    more = f" and {len(values) - SHOWN:,} more" if len(values) > SHOWN else ""
    return ", ".join(map(repr, values[:SHOWN])) + more
