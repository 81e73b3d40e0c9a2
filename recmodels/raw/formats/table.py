"""Plain tables of any shop: interactions and items as CSV, TSV, JSON lines or Parquet, features of items as `.npy`."""

import ast
from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl

from recmodels.errors import InputError
from recmodels.raw.formats.base import RAW_INTERACTIONS, RAW_ITEMS, Format, InBlocks, RawTable, Role
from recmodels.raw.formats.metadata import clean_items, metadata_release, parse_price, read_metadata
from recmodels.raw.formats.reviews import LATEST
from recmodels.raw.formats.table_columns import INTERACTION_COLUMNS, ITEM_COLUMNS, require_known
from recmodels.raw.formats.table_rows import ROWS_A_READ, read_rows
from recmodels.raw.formats.vectors import feature_matrix, item_features
from recmodels.raw.rejects import RejectLog
from recmodels.raw.text import clean_texts
from recmodels.schemas.data import SPLITS, Split

SPLIT_NAMES = {
    **{name: name for name in SPLITS},
    "training": "train",
    "validation": "valid",
    "val": "valid",
    "dev": "valid",
    "testing": "test",
    **dict(zip("012", SPLITS, strict=True)),
}
_TICKS = ((10**17, 10**9), (10**14, 10**6), (10**11, 10**3))
"""From which number on a time counts in fractions of a second, and how many make one."""


def table_format(columns: Mapping[str, str]) -> Format:
    """
    Return the format of plain tables.

    Parameters
    ----------
    columns
        Names of columns by what they hold, where they are not among the usual ones (`table_columns.USUAL_NAMES`).
        InputError if a table can hold no such thing.
    """
    require_known(columns)
    in_blocks = interactions_in_blocks(columns)
    return Format(
        read_interactions=in_blocks.read,
        in_blocks=in_blocks,
        read_items=lambda path, wanted: read_items(path, wanted, columns),
        readers={Role.IMAGE_FEATURES: read_features, Role.TEXT_FEATURES: read_features},
        read_order=lambda path: read_order(path, columns),
        mapped=table_format,
        in_parts=True,
    )


def read_interactions(path: Path, columns: Mapping[str, str]) -> RawTable:
    """
    Read interactions: user, item and, where there are, rating, time, split and the texts of a review.

    Times are seconds, milliseconds, micro- or nanoseconds since the epoch, told apart by their size, or ISO dates; the
    latter are UTC unless they say otherwise. A split is train, valid (validation, val, dev) or test, or 0, 1 or 2. A
    row without user or item, or with a value that is none, is rejected. Texts are read where the table has a rating
    and a time for each; there both have to be given.
    """
    return interactions_in_blocks(columns).read(path)


def interactions_in_blocks(columns: Mapping[str, str], *, rows_a_block: int = ROWS_A_READ) -> InBlocks:
    """Return how tables of interactions are read in blocks of at most about so many rows (see `read_interactions`)."""
    return InBlocks(cut=partial(_rows, columns, rows_a_block), parse=_interactions, refusal=_no_interactions)


def _rows(columns: Mapping[str, str], rows_a_block: int, path: Path, log: RejectLog) -> Iterator[pl.DataFrame]:
    return read_rows(path, INTERACTION_COLUMNS, ("user", "item"), columns, log, rows_a_block=rows_a_block)


def _no_interactions(path: Path, rejects: pl.DataFrame) -> InputError:
    reason = rejects["reason"][0] if rejects.height else ""
    return InputError(
        str(path),
        expected="rows of user and item",
        found=f"{rejects.height:,} unreadable rows, the first: {reason}" if reason else "no rows",
        action="Correct the column, or rename it so that it is not read." if " is not " in reason else "",
    )


def _interactions(rows: pl.DataFrame, log: RejectLog) -> pl.DataFrame:
    has = set(rows.columns)
    reviewed = {"rating", "timestamp"} <= has and bool({"summary", "text"} & has)
    values: dict[str, pl.Series] = {"reviewer": _name(rows["user"]), "asin": _name(rows["item"])}
    faults = [("user is missing", values["reviewer"] == ""), ("item is missing", values["asin"] == "")]
    for kind, convert, expected in (
        ("rating", _number, "a number"),
        ("timestamp", _seconds, "seconds, milliseconds or an ISO date from 1970 to 2100"),
        ("split", _split, "train, valid or test"),
    ):
        if kind in has:
            given = _given(rows[kind])
            values[kind] = convert(rows[kind])
            faults.append((f"{kind} is not {expected}", given & values[kind].is_null()))
            if kind == "split" or (reviewed and kind != "split"):
                faults.append((f"{kind} is missing", ~given))
    if reviewed:
        faults.append(("rating of a review is negative", (values["rating"] < 0).fill_null(False)))
        for kind in ("summary", "text"):
            texts = rows[kind].cast(pl.String) if kind in has else pl.repeat("", rows.height, eager=True)
            values[kind] = clean_texts(texts)
    kept = _without_faults(rows, faults, log)
    table = pl.DataFrame(values).filter(kept)
    return table.cast({name: RAW_INTERACTIONS[name] for name in table.columns})


def read_items(path: Path, wanted: Collection[str], columns: Mapping[str, str]) -> RawTable:
    """
    Read what a table says of the wanted items, in columns that may be absent.

    Categories are a list, or a text of names between ``|``, ``>`` or ``;``. Of several rows of an item the greatest by
    its texts is kept. The metadata of an Amazon release is read as that, for tables of ratings that go with it.
    """
    if release := metadata_release(path):
        return read_metadata(path, release, wanted)
    log = RejectLog(path.name)
    asins = pl.Series(list(wanted), dtype=pl.String)
    tables = [pl.DataFrame(schema=RAW_ITEMS)]
    unwanted = 0
    for rows in read_rows(path, ITEM_COLUMNS, ("item",), columns, log):
        rows = rows.with_columns(_name(rows["item"]).alias("item"))
        rows = rows.filter(_without_faults(rows, [("item is missing", rows["item"] == "")], log))
        kept = rows.filter(rows["item"].is_in(asins.implode()))
        unwanted += rows.height - kept.height
        tables.append(_items(kept))
    every = pl.concat(tables)
    by_text = [pl.col(name) for name in ("title", "description", "brand", "image_url", "price")]
    best = every.sort("asin", *by_text, descending=[False, *[True] * len(by_text)], nulls_last=True)
    table = best.unique("asin", keep="first", maintain_order=True)
    rejects = log.frame()
    return RawTable(
        table=table,
        rejects=rejects,
        lines=every.height + unwanted + rejects.height,
        duplicates=every.height - table.height,
        unwanted=unwanted,
    )


def read_order(path: Path, columns: Mapping[str, str]) -> pl.Series:
    """Return the item of each row of a table, in the order of the file (String); null where a line has none."""
    if metadata_release(path):
        raise InputError(
            str(path),
            expected="a table whose rows have the order of the features",
            found="metadata of items, which has none",
            action="Give a table with the column `item` as feature_ids.",
        )
    log = RejectLog(path.name)
    schema = {"line": pl.Int64, "item": pl.String}
    parts = [pl.DataFrame(schema=schema)]
    parts += [rows.select("line", _name(rows["item"])) for rows in read_rows(path, ("item",), ("item",), columns, log)]
    parts.append(log.frame().select("line", pl.lit(None, dtype=pl.String).alias("item")))
    return pl.concat(parts).sort("line")["item"]


def read_features(path: Path, items: pl.DataFrame) -> pl.DataFrame:
    """
    Read the rows of a `.npy` matrix that belong to the items into an embedding table, in id order.

    Parameters
    ----------
    path
        Float matrix of shape (n, d). A row of zeros, or with numbers that are not finite, counts as absent.
    items
        `item_id` and `row`, the row of the item in the matrix, null where it has none; `n_rows`, in every row n.
    """
    stored = feature_matrix(path, int(items["n_rows"][0]))
    known = items["row"].is_not_null().to_numpy()
    vectors = np.zeros((items.height, stored.shape[1]), dtype=np.float32)
    vectors[known] = stored[items["row"].drop_nulls().to_numpy()]
    return item_features(path, vectors)


def _items(rows: pl.DataFrame) -> pl.DataFrame:
    absent = pl.repeat("", rows.height, dtype=pl.String, eager=True)

    def texts(kind: str) -> pl.Series:
        return rows[kind].cast(pl.String).fill_null("") if kind in rows.columns else absent

    categories = rows["categories"] if "categories" in rows.columns else absent
    prices = rows["price"].to_list() if "price" in rows.columns else [None] * rows.height
    columns: dict[str, pl.Series] = {name: texts(name) for name in ("title", "description", "brand", "image_url")} | {
        "asin": rows["item"],
        "categories": _category_lists(categories),
        "price": pl.Series([parse_price(price) for price in prices], dtype=pl.Float32),
    }
    return clean_items(pl.DataFrame(columns).select(RAW_ITEMS.names()))


def _category_lists(values: pl.Series) -> pl.Series:
    if isinstance(values.dtype, pl.List):
        return values.cast(pl.List(pl.String))
    return pl.Series([_categories(text) for text in values.cast(pl.String).fill_null("")], dtype=pl.List(pl.String))


def _categories(text: str) -> list[str]:
    if text.startswith("[") and text.endswith("]"):
        try:
            parts = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            parts = [text]
        return [str(part) for part in parts]
    separator = next((mark for mark in "|>;" if mark in text), None)
    return text.split(separator) if separator else [text]


def _name(values: pl.Series) -> pl.Series:
    """Return names of users or items as texts without space around them, empty where there is none."""
    if values.dtype.is_float():
        whole = values.cast(pl.Int64, strict=False)
        values = whole if (whole.cast(values.dtype) == values).all() else values
    return values.cast(pl.String, strict=False).fill_null("").str.strip_chars()


def _given(values: pl.Series) -> pl.Series:
    if values.dtype == pl.String:
        return values.fill_null("").str.strip_chars() != ""
    return values.is_not_null() & ~(values.is_nan() if values.dtype.is_float() else pl.Series([False]))


def _number(values: pl.Series) -> pl.Series:
    texts = values.str.strip_chars() if values.dtype == pl.String else values
    numbers = texts.cast(pl.Float64, strict=False)
    return numbers.set(~numbers.is_finite(), None)


def _seconds(values: pl.Series) -> pl.Series:
    """Return seconds since the epoch, null where a value is no time from 1970 to 2100."""
    if values.dtype.is_temporal():
        return values.cast(pl.Datetime("us"), strict=False).dt.epoch("s")
    numbers = _number(values)
    seconds = numbers
    for smallest, ticks in reversed(_TICKS):
        seconds = seconds.zip_with((numbers < smallest).fill_null(True), numbers / ticks)
    if values.dtype == pl.String:
        moments = {text: _moment(text) for text in values.filter(numbers.is_null()).drop_nulls().unique()}
        if moments:
            dates = values.replace_strict(moments, default=None, return_dtype=pl.Float64)
            seconds = seconds.zip_with(seconds.is_not_null(), dates)
    inside = seconds.is_between(0, LATEST).fill_null(False)
    return seconds.set(~inside, None).floor().cast(pl.Int64)


def _moment(text: str) -> float | None:
    try:
        moment = datetime.fromisoformat(text.strip().removesuffix(" UTC"))
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _split(values: pl.Series) -> pl.Series:
    names = values.cast(pl.String).str.strip_chars().str.to_lowercase()
    return names.replace_strict(SPLIT_NAMES, default=None, return_dtype=Split)


def _without_faults(rows: pl.DataFrame, faults: list[tuple[str, pl.Series]], log: RejectLog) -> pl.Series:
    """Log the rows that have a fault and return which have none."""
    reasons = pl.select(pl.coalesce(*(pl.when(bad).then(pl.lit(reason)) for reason, bad in faults))).to_series()
    for row in reasons.is_not_null().arg_true():
        shown = ", ".join(f"{name} {value}" for name, value in rows.row(row, named=True).items() if name != "line")
        log.add(rows["line"][row], reasons[row], shown.encode())
    return reasons.is_null()
