"""
The rows of a raw file by user: parsed in blocks, dealt out to parts of users, one row a pair, names as codes.

All rows of a user are in one part, so each part is worked on by itself, anywhere. How many parts there are depends on
the size of the file alone, and the tables that `dump` beside this makes of them depend on neither parts nor blocks.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recmodels.compute.base import Compute
from recmodels.io.files import disk_errors_told, scratch_directory
from recmodels.raw.formats.base import RAW_INTERACTIONS, Format, RawTable
from recmodels.raw.rejects import RejectLog
from recmodels.schemas.data import Split

PART_BYTES = 64 << 20
"""Of a raw file as it is stored, to one part of users."""
MOST_PARTS = 256
HELD_BYTES = 1 << 30
"""Rows dealt out that are held in memory; more of them wait on disk."""
_VALUES = ("rating", "timestamp", "split")


@dataclass(frozen=True)
class Limits:
    """
    Where a raw file is cut. The tables are the same for any.

    Attributes
    ----------
    part_bytes
        Stored bytes of the file for each part of users.
    held_bytes
        Rows held in memory before they are written to `scratch`.
    scratch
        Folder for what waits on disk; None for the temporary one of the system. Nothing is left there.
    """

    part_bytes: int = PART_BYTES
    held_bytes: int = HELD_BYTES
    scratch: Path | None = None

    def parts_of(self, *paths: Path) -> int:
        """Return how many parts the users of some files are dealt out to."""
        return min(MOST_PARTS, 1 + sum(path.stat().st_size for path in paths) // self.part_bytes)


@dataclass(frozen=True)
class UserPart:
    """
    One row a pair of the users of a part.

    Attributes
    ----------
    users, items
        Names of its users and items (String), sorted, each once.
    rows
        `user` and `item` (UInt32: place among the names), `rating`, `timestamp` and `split`, by user and item.
    texts
        `summary` and `text` of the same rows; None for interactions without.
    repeated_rows, repeated_pairs
        Rows dropped for equal user, item and time, and for a later time.
    """

    users: pl.Series
    items: pl.Series
    rows: pl.DataFrame
    texts: pl.DataFrame | None
    repeated_rows: int
    repeated_pairs: int


def read_by_user(
    form: Format, files: Sequence[tuple[Path, str | None]], compute: Compute, limits: Limits
) -> tuple[RawTable, list[UserPart]]:
    """
    Read files of interactions into one row a pair, by parts of users.

    Parameters
    ----------
    form
        The format of the files.
    files
        Each with the split that all its rows belong to, None for what the rows themselves say. The columns of the first
        count: what another lacks of them is null.
    compute, limits
        As for `recmodels.data.dump.load_dump`.

    Returns what `Format.read_interactions` does, of all files, with a table of its columns without rows, and the parts.
    Raises InputError as that.
    """
    n_parts = limits.parts_of(*(path for path, _ in files))
    reads: list[RawTable] = []
    with _Waiting(n_parts, limits) as waiting:
        for path, split in files:
            as_first = _Columns(split, reads[0].table.schema if reads else None)
            reads.append(_read_into(waiting, form, path, as_first, compute))
        every = RawTable(
            reads[0].table,
            pl.concat([read.rejects for read in reads]),
            sum(read.lines for read in reads),
            duplicates=sum(read.duplicates for read in reads),
        )
        return every, list(compute.map(one_row_a_pair, waiting))


@dataclass(frozen=True)
class _Columns:
    """The columns that the rows of a file get: a split that is told, and those of the first file if it is another."""

    split: str | None
    first: pl.Schema | None

    def of(self, rows: pl.DataFrame) -> pl.DataFrame:
        if self.split is not None:
            rows = rows.with_columns(split=pl.lit(self.split, dtype=Split))
        return rows if self.first is None else filled(rows, self.first)


def filled(table: pl.DataFrame, schema: pl.Schema) -> pl.DataFrame:
    """Return the columns of a schema, null where the table lacks one."""
    absent = [pl.lit(None, dtype=dtype).alias(name) for name, dtype in schema.items() if name not in table.columns]
    return table.with_columns(absent).select(schema.names()).cast(schema)


def _read_into(waiting: "_Waiting", form: Format, path: Path, columns: _Columns, compute: Compute) -> RawTable:
    if form.in_blocks is None:
        whole = form.read_interactions(path)
        types = pl.Schema({name: RAW_INTERACTIONS[name] for name in whole.table.columns if name in RAW_INTERACTIONS})
        table = columns.of(whole.table.select(types.names()).cast(types))
        waiting.put(_dealt(table, waiting.n_parts))
        return RawTable(table.clear(), whole.rejects, whole.lines, duplicates=whole.duplicates)
    log, n_rows = RejectLog(path.name), 0
    blocks, shared = form.in_blocks.cut(path, log), (form.in_blocks.parse, path.name, columns, waiting.n_parts)
    empty: pl.DataFrame | None = None
    for dealt, rejected in compute.map(parse_and_deal, blocks, shared=shared):
        log.take(rejected)
        n_rows += sum(rows.height for rows in dealt)
        empty = dealt[0].clear()
        waiting.put(dealt)
    rejects = log.frame()
    if not n_rows or empty is None:
        raise form.in_blocks.refusal(path, rejects)
    return RawTable(empty, rejects, n_rows + rejects.height)


def parse_and_deal(shared: tuple[Any, str, _Columns, int], block: Any) -> tuple[list[pl.DataFrame], RejectLog]:
    """Parse a block and return its rows by part of users, and its rejects."""
    parse, file, columns, n_parts = shared
    log = RejectLog(file)
    return _dealt(columns.of(parse(block, log)), n_parts), log


def _dealt(rows: pl.DataFrame, n_parts: int) -> list[pl.DataFrame]:
    if n_parts == 1:
        return [rows]
    # Equal on all machines with one version of polars; the tables do not depend on it.
    found = rows.with_columns(part=pl.col("reviewer").hash(0) % n_parts).partition_by(
        "part", as_dict=True, include_key=False
    )
    return [found.get((part,), rows.clear()) for part in range(n_parts)]


@dataclass
class _Waiting:
    """Rows by part, in memory up to a limit and then in files, which are gone in the end; read part by part."""

    n_parts: int
    limits: Limits
    _held: list[list[pl.DataFrame]] = field(init=False)
    _bytes: int = 0
    _files: int = 0
    _folder: Path | None = None
    _stack: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> "_Waiting":
        self._held = [[] for _ in range(self.n_parts)]
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def put(self, dealt: Sequence[pl.DataFrame]) -> None:
        for part, rows in enumerate(dealt):
            self._held[part].append(rows)
            self._bytes += int(rows.estimated_size())
        if self._bytes > self.limits.held_bytes:
            self._write()

    def _write(self) -> None:
        for part, held in enumerate(self._held):
            path = self._path(part, self._files)
            with disk_errors_told(path):
                pl.concat(held).write_ipc(path, compression="lz4")
            held.clear()
        self._files += 1
        self._bytes = 0

    def _path(self, part: int, file: int) -> Path:
        if self._folder is None:
            scratch = self.limits.scratch or Path(tempfile.gettempdir())
            self._folder = self._stack.enter_context(scratch_directory(scratch / "rows"))
        return self._folder / f"{part}-{file}.arrow"

    def __iter__(self) -> Iterator[pl.DataFrame]:
        """Yield the rows of each part, which is forgotten then."""
        for part, held in enumerate(self._held):
            paths = [self._path(part, file) for file in range(self._files)]
            rows = pl.concat([*(pl.read_ipc(path) for path in paths), *held])
            held.clear()
            for path in paths:
                path.unlink()
            yield rows


def one_row_a_pair(_: None, rows: pl.DataFrame) -> UserPart:
    """
    Keep one row a (reviewer, asin) pair: the earliest, of equal times the first by rating, texts and split.

    Parameters
    ----------
    rows
        Some columns of `RAW_INTERACTIONS`, with all rows of its users.
    """
    users, items = (rows[name].unique().sort() for name in ("reviewer", "asin"))
    texts = [name for name in ("summary", "text") if name in rows.columns]
    absent = [pl.lit(None, dtype=RAW_INTERACTIONS[name]).alias(name) for name in _VALUES if name not in rows.columns]
    table = rows.with_columns(absent).select(
        _places(rows["reviewer"], users).alias("user"), _places(rows["asin"], items).alias("item"), *_VALUES
    )
    order = table.select("user", "item", "timestamp").with_row_index("row").sort("user", "item", "timestamp")
    as_before = [order[name].eq_missing(order[name].shift(1)) for name in ("user", "item", "timestamp")]
    same_pair, same_time = (as_before[0] & as_before[1]), as_before[2]
    if order.height:
        same_pair = same_pair.scatter(0, False)
    same_row = same_pair & same_time
    row = order["row"]
    tied = (same_row | same_row.shift(-1).fill_null(value=False)).arg_true()
    if len(tied):
        # Runs of equal user, item and time keep their places; what is first within one is told by the rest.
        place = row.gather(tied)
        found = table.select("user", "item", "timestamp", "rating", "split")[place].with_columns(place.alias("row"))
        found = found.with_columns(rows[name].gather(place) for name in texts)
        row = row.scatter(tied, found.sort("user", "item", "timestamp", "rating", *texts, "split")["row"])
    first = row.filter(~same_pair)
    return UserPart(
        users=users,
        items=items,
        rows=table[first],
        texts=rows.select(texts)[first] if len(texts) == 2 else None,
        repeated_rows=int(same_row.sum()),
        repeated_pairs=int(same_pair.sum()) - int(same_row.sum()),
    )


def numbered(names: Sequence[pl.Series]) -> tuple[pl.Series, list[np.ndarray]]:
    """Return all names (String), sorted, each once, and the place of each of the given ones among them."""
    every = pl.concat(names).unique().sort()
    return every, [_places(own, every).to_numpy() for own in names]


def _places(values: pl.Series, names: pl.Series) -> pl.Series:
    """Return the place of each value among distinct names (UInt32)."""
    # A join: sorting or searching texts takes several times as long.
    places = pl.DataFrame({"name": names}).with_row_index("place")
    found = pl.DataFrame({"name": values}).join(places, on="name", how="left", maintain_order="left")
    return found["place"]
