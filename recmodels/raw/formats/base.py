"""
What a format of raw files is: the files it has, by role, and the function that reads each.

The formats themselves stand beside this file, one a file, and `registry` lists them. What is made of the rows (one row
a pair, the k-core, ids) is the same for all and belongs to `recmodels.data.dump`.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import polars as pl

from recmodels.errors import InputError
from recmodels.raw.rejects import RejectLog
from recmodels.schemas.data import Split
from recmodels.schemas.tables import ITEMS


class Role(StrEnum):
    """What a raw file is for."""

    REVIEWS = "reviews"
    METADATA = "metadata"
    INTERACTIONS = "interactions"
    ITEMS = "items"
    IMAGE_FEATURES = "image_features"
    TEXT_FEATURES = "text_features"
    IMAGE_KNN = "image_knn"
    TEXT_KNN = "text_knn"
    FEATURE_IDS = "feature_ids"
    VALID = "valid"
    TEST = "test"


PARTS = {Role.VALID: "valid", Role.TEST: "test"}
"""Split of the interactions that stand in a file of their own; those of the first file are then the training rows."""

OPTIONAL_ROLES = frozenset({Role.IMAGE_FEATURES, Role.TEXT_FEATURES, Role.IMAGE_KNN, Role.TEXT_KNN})
"""Files a data set can do without: the modality is then absent, or computed."""

RAW_INTERACTIONS = pl.Schema(
    {
        "reviewer": pl.String,
        "asin": pl.String,
        "rating": pl.Float32,
        "timestamp": pl.Int64,
        "summary": pl.String,
        "text": pl.String,
        "split": Split,
    }
)
"""What a row can say of a user and an item; `reviewer` and `asin`, which name them, are all it has to. Seconds since
the epoch."""

RAW_ITEMS = pl.Schema({name: dtype for name, dtype in ITEMS.items() if name != "item_id"})
"""What a row can say of an item; `asin`, which names it, is all it has to. Texts are cleaned."""


@dataclass(frozen=True)
class RawTable:
    """
    The content of a raw file.

    Attributes
    ----------
    table
        Accepted rows.
    rejects
        Unreadable lines (schema `REJECTS`).
    lines
        Lines that are not blank, or rows: ``table.height + rejects.height + duplicates + unwanted``.
    duplicates
        Further rows of a pair or an item already counted.
    unwanted
        Rows of items that were not asked for.
    """

    table: pl.DataFrame
    rejects: pl.DataFrame
    lines: int
    duplicates: int = 0
    unwanted: int = 0


@dataclass(frozen=True)
class InBlocks:
    """
    How a file of interactions is read in blocks: cut where it is, in order, and parsed by any process.

    Attributes
    ----------
    cut
        Gets a file and the log of its rejects; yields blocks, which know the numbers of their lines.
    parse
        Gets a block and a log; returns its rows with some columns of `RAW_INTERACTIONS`, the same for all blocks. A
        function of a module, or a `functools.partial` of one, that depends on nothing but the block.
    refusal
        Gets a file and its rejects; returns what to raise if no block has a row.
    """

    cut: Callable[[Path, RejectLog], Iterator[Any]]
    parse: Callable[[Any, RejectLog], pl.DataFrame]
    refusal: Callable[[Path, pl.DataFrame], InputError]

    def read(self, path: Path) -> RawTable:
        """Read a whole file; raises InputError if it has no valid row."""
        log = RejectLog(path.name)
        tables = [self.parse(block, log) for block in self.cut(path, log)]
        rejects = log.frame()
        if not any(table.height for table in tables):
            raise self.refusal(path, rejects)
        table = pl.concat(tables)
        return RawTable(table, rejects, table.height + rejects.height)


@dataclass(frozen=True)
class Format:
    """
    How one form of raw files is read. Interactions are enough; items and features are read where a source has them.

    Every reader raises InputError, with the place, where a file is empty, damaged or not of this form, or has no valid
    row.

    Attributes
    ----------
    read_interactions
        Returns rows with some columns of `RAW_INTERACTIONS`; with `summary` and `text` they are reviews. If the format
        is `numbered`, rows of schema `INTERACTIONS`, one a pair, whose ids are those of the file.
    in_blocks
        The same in blocks, where the format allows it and is not `numbered`.
    read_items
        Gets a file and the asins of the kept items; returns one row an item with some columns of `RAW_ITEMS`. If the
        format is `numbered`, it gets none and returns every item, with its `item_id`.
    readers
        By role of a ready table (features, neighbours): gets a file and the items in id order (`item_id`; `asin` for
        images), and returns the table in id order.
    read_order
        Where the rows of feature arrays are in an order of their own: gets the file of the role `FEATURE_IDS`, or else
        that of the items, and returns the asin of each row, null where a line has none. The readers then find in the
        column `row` which row of the array is an item's, null where none is, and in `n_rows` how many there are.
    mapped
        Returns the format as it reads files whose columns have other names, by what they hold. Raises InputError if
        they can hold no such thing. None: the names are fixed.
    interactions, items
        Roles of the first two files.
    numbered
        Whether the files number users and items themselves, from 0 and without a gap. Then the rows are kept as they
        are: no k-core.
    in_parts
        Whether the interactions of a split may stand in files of their own, of the roles in `PARTS`. Not if `numbered`.
    """

    read_interactions: Callable[[Path], RawTable]
    read_items: Callable[[Path, Collection[str]], RawTable] | None = None
    readers: Mapping[Role, Callable[[Path, pl.DataFrame], pl.DataFrame]] = field(default_factory=dict)
    read_order: Callable[[Path], pl.Series] | None = None
    mapped: Callable[[Mapping[str, str]], "Format"] | None = None
    interactions: Role = Role.INTERACTIONS
    items: Role = Role.ITEMS
    numbered: bool = False
    in_blocks: InBlocks | None = None
    in_parts: bool = False

    @property
    def roles(self) -> list[Role]:
        """What files of this format can be for; the first has to be there."""
        order = [Role.FEATURE_IDS] if self.read_order else []
        parts = PARTS if self.in_parts else ()
        return [self.interactions, *parts, *([self.items] if self.read_items else []), *self.readers, *order]

    def with_columns(self, columns: Mapping[str, str]) -> "Format":
        """
        Return the format as it reads files whose columns have these names, by what they hold; itself for none.

        Raises InputError if the columns of its files have fixed names, or cannot hold such a thing.
        """
        if not columns:
            return self
        if self.mapped is None:
            raise InputError(
                "columns", expected="none: files of this format have fixed names", found=str(dict(columns))
            )
        return self.mapped(columns)
