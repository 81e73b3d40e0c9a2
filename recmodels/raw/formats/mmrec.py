"""The interchange format of multimodal benchmarks: an `.inter` table with a published split, item texts, arrays."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recmodels.errors import InputError
from recmodels.raw.formats.base import RAW_ITEMS, RawTable
from recmodels.raw.formats.image_features import embedding_frame
from recmodels.raw.formats.metadata import clean_items, parse_price
from recmodels.raw.formats.table_rows import text_rows
from recmodels.raw.rejects import RejectLog
from recmodels.schemas.data import Split
from recmodels.schemas.tables import INTERACTIONS, KNN

RAW_IMPORTED_ITEMS = pl.Schema({"item_id": pl.Int32, **RAW_ITEMS})
"""One row an item of the table, by id; texts cleaned."""

_ID = r"^\d{1,9}$"
_NUMBER = r"^-?\d+(\.\d+)?([eE][+-]?\d+)?$"
_CATEGORY_SEPARATOR = "|"
_ITEM_COLUMNS = {
    "asin": ("asin",),
    "title": ("title", "title_keywords"),
    "description": ("description",),
    "brand": ("brand",),
    "categories": ("categories",),
    "price": ("price",),
    "image_url": ("imUrl", "image_url"),
}


def read_interactions(path: Path) -> RawTable:
    """
    Read a `.inter` file: userID, itemID and, where they are, rating, timestamp and x_label (0 train, 1 valid, 2 test).

    The table has the schema `INTERACTIONS`, by user and item; ids are those of the file. Of several rows of a pair the
    one in the earliest split is kept (train before valid before test), then the earliest.
    """
    log = RejectLog(path.name)
    tables: list[pl.DataFrame] = []
    has_split = False
    for rows in _tables(path, ("userID", "itemID"), log):
        has_split = "x_label" in rows.columns
        for name in ("rating", "timestamp", "x_label"):
            if name not in rows.columns:
                rows = rows.with_columns(pl.lit(None, dtype=pl.String).alias(name))
        reason = pl.coalesce(
            pl.when(~pl.col("userID").str.contains(_ID)).then(pl.lit("userID is not an id")),
            pl.when(~pl.col("itemID").str.contains(_ID)).then(pl.lit("itemID is not an id")),
            pl.when(~pl.col("x_label").str.contains(r"^[012]$")).then(pl.lit("x_label is not 0, 1 or 2")),
            pl.when(~pl.col("rating").str.contains(_NUMBER)).then(pl.lit("rating is not a number")),
            pl.when(~pl.col("timestamp").str.contains(_NUMBER)).then(pl.lit("timestamp is not a number")),
        )
        tables.append(
            _accepted(rows, reason, log).select(
                user_id=pl.col("userID").cast(pl.Int32),
                item_id=pl.col("itemID").cast(pl.Int32),
                rating=pl.col("rating").cast(pl.Float32),
                timestamp=pl.col("timestamp").cast(pl.Float64).cast(pl.Int64),
                split=pl.col("x_label").cast(pl.UInt8).cat.to(Split),
            )
        )
    rejects = log.frame()
    every = pl.concat(tables) if tables else pl.DataFrame(schema=INTERACTIONS)
    if every.is_empty():
        raise InputError(
            str(path),
            expected="rows of userID, itemID and x_label",
            found=f"none among {rejects.height:,} lines",
        )
    order = ["user_id", "item_id", *(["split"] if has_split else []), "timestamp", "rating"]
    table = every.sort(order).unique(["user_id", "item_id"], keep="first", maintain_order=True)
    return RawTable(
        table=table.select(INTERACTIONS.names()),
        rejects=rejects,
        lines=every.height + rejects.height,
        duplicates=every.height - table.height,
    )


def read_items(path: Path) -> RawTable:
    """
    Read an item table: itemID and whatever texts it has, in fields that may be empty.

    The table has the schema `RAW_IMPORTED_ITEMS`. Of several rows of an item the greatest by its texts is kept.
    """
    log = RejectLog(path.name)
    tables: list[pl.DataFrame] = []
    for rows in _tables(path, ("itemID",), log):
        reason = pl.when(~pl.col("itemID").str.contains(_ID)).then(pl.lit("itemID is not an id"))
        accepted = _accepted(rows, reason, log)
        absent = pl.Series([""] * accepted.height, dtype=pl.String)
        texts = {
            name: next((accepted[source] for source in sources if source in accepted.columns), absent)
            for name, sources in _ITEM_COLUMNS.items()
        }
        converted: dict[str, pl.Series] = {
            "item_id": accepted["itemID"].cast(pl.Int32),
            "asin": texts["asin"].str.strip_chars(),
            "categories": texts["categories"].str.split(_CATEGORY_SEPARATOR),
            "price": pl.Series([parse_price(text) for text in texts["price"]], dtype=pl.Float32),
        }
        tables.append(clean_items(pl.DataFrame(texts | converted).select(RAW_IMPORTED_ITEMS.names())))
    rejects = log.frame()
    every = pl.concat(tables) if tables else pl.DataFrame(schema=RAW_IMPORTED_ITEMS)
    by_text = [pl.col(name) for name in ("title", "description", "brand", "asin", "image_url", "price")]
    best = every.sort("item_id", *by_text, descending=[False, *[True] * len(by_text)])
    table = best.unique("item_id", keep="first", maintain_order=True)
    return RawTable(
        table=table, rejects=rejects, lines=every.height + rejects.height, duplicates=every.height - table.height
    )


def read_feature_array(path: Path, n_items: int) -> pl.DataFrame:
    """
    Read a `.npy` float matrix of item features, shape (n_items, d), into an embedding table.

    A row of zeros, or with numbers that are not finite, counts as absent. Pickled arrays are never read.
    """
    vectors = np.array(feature_matrix(path, n_items), dtype=np.float32, order="C")
    present = usable(vectors)
    if not present.any():
        expected = f"a float matrix of {n_items:,} rows"
        raise InputError(str(path), expected=expected, found="no row with finite values other than zero")
    return embedding_frame("item_id", vectors, present)


def usable(vectors: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return which rows have finite values that are not all zero."""
    return np.isfinite(vectors).all(axis=1) & (vectors != 0).any(axis=1)


def feature_matrix(path: Path, n_rows: int) -> NDArray[np.floating]:
    """
    Open a `.npy` matrix of floats, shape (n_rows, d), without reading it into memory.

    Raises InputError if it is no such matrix. Pickled arrays are never read.
    """
    expected = f"a float matrix of {n_rows:,} rows, without pickled objects"
    try:
        stored = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise InputError(str(path), expected=expected, found=str(error).splitlines()[0]) from error
    if not isinstance(stored, np.ndarray) or stored.ndim != 2 or stored.dtype.kind != "f":
        raise InputError(str(path), expected=expected, found=f"{getattr(stored, 'dtype', type(stored).__name__)}")
    if stored.shape[0] != n_rows or stored.shape[1] == 0:
        raise InputError(str(path), expected=expected, found=f"shape {stored.shape}")
    return stored


def read_neighbours(path: Path, n_items: int) -> pl.DataFrame:
    """
    Read a ready neighbour table (src, dst and, where known, cosine) in the schema `KNN`.

    The rank is the place among the rows of the same src, as published; the cosine may be null.
    """
    expected = f"a Parquet table of src and dst from 0 to {n_items - 1:,}, each pair once"
    try:
        table = pl.read_parquet(path)
        table = table.select(
            src=pl.col("src").cast(pl.Int32),
            dst=pl.col("dst").cast(pl.Int32),
            similarity=(pl.col("cosine") if "cosine" in table.columns else pl.lit(None))
            .cast(pl.Float32)
            .fill_nan(None),
        )
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(str(path), expected=expected, found=str(error).splitlines()[0]) from error
    outside = table.filter(~(pl.col("src").is_between(0, n_items - 1) & pl.col("dst").is_between(0, n_items - 1)))
    if outside.height or table.null_count().select("src", "dst").sum_horizontal().item():
        raise InputError(str(path), expected=expected, found=f"{outside.height:,} rows of other items")
    if table.select("src", "dst").is_duplicated().any():
        raise InputError(str(path), expected=expected, found="repeated pairs")
    rank = pl.int_range(pl.len()).over("src").cast(pl.Int16)
    return table.with_columns(rank=rank).sort("src", "rank").select(KNN.names())


def _tables(path: Path, needed: Sequence[str], log: RejectLog) -> Iterator[pl.DataFrame]:
    """Yield the rows of a file in parts as strings, with their line number in the column `line`."""

    def every_column(header: list[str]) -> dict[str, str]:
        if missing := [name for name in needed if name not in header]:
            raise InputError(
                str(path),
                expected=f"a tab-separated table with the columns {', '.join(needed)}",
                found=f"a first line without {', '.join(missing)}",
            )
        return {name: name for name in header}

    return text_rows(path, every_column, log, quotes=False)


def _accepted(rows: pl.DataFrame, reason: pl.Expr, log: RejectLog) -> pl.DataFrame:
    """Log the rows that have a reason against them and return the others."""
    reasons = rows.select(reason.alias("reason"))["reason"]
    bad = reasons.is_not_null()
    for row in bad.arg_true():
        record = rows.row(row, named=True)
        line = record.pop("line")
        # A column that the file lacks is null; an empty field is not.
        log.add(line, reasons[row], "\t".join(value for value in record.values() if value is not None).encode())
    return rows.filter(~bad)
