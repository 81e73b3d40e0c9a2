"""What the beginning of a raw file says of it: formats that it may belong to, and what it is for there."""

import contextlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from recmodels.errors import InputError
from recmodels.raw.formats.base import Role
from recmodels.raw.formats.image_features import ASIN_BYTES, RECORD_BYTES
from recmodels.raw.formats.table_columns import INTERACTION_COLUMNS, ITEM_COLUMNS, found_columns
from recmodels.raw.formats.table_rows import PARQUET_MAGIC, header_of, parquet_header
from recmodels.raw.lines import read_chunks

AMAZON = ("amazon2014", "amazon2018", "amazon2023")
_A_LOOK = 1 << 16
_PACKED = {
    b"PK\x03\x04": "a zip archive or spreadsheet: unpack it, or save it as CSV",
    b"BZh": "packed by bzip2: unpack it",
    b"\xfd7zXZ": "packed by xz: unpack it",
    b"\x28\xb5\x2f\xfd": "packed by zstd: unpack it",
    b"7z\xbc\xaf": "a 7z archive: unpack it",
}
_MODALITIES = {
    Role.IMAGE_FEATURES: ("image", "img", "visual", "vis_", "picture", "clip"),
    Role.TEXT_FEATURES: ("text", "txt", "title", "bert", "sentence"),
}


@dataclass(frozen=True)
class Look:
    """
    What the beginning of a file says of it: formats it may belong to, none if none is known, and what it is for there.

    Of a table the `columns` by what they hold; `also` has all names of columns, or the keys of the first record.
    """

    path: Path
    formats: tuple[str, ...] = ()
    role: Role | None = None
    columns: Mapping[str, str] = field(default_factory=dict[str, str])
    also: Sequence[str] = ()


def look_at(path: Path, columns: Mapping[str, str]) -> Look:
    """Return what a file seems to be, by its first bytes and lines; of what cannot be read, that it is nothing."""
    try:
        with path.open("rb") as handle:
            start = handle.read(8)
        if packed := next((kind for mark, kind in _PACKED.items() if start.startswith(mark)), None):
            return Look(path, also=[packed])
        if start.startswith(b"\x93NUMPY"):
            return _array(path)
        if start.startswith(PARQUET_MAGIC):
            return _table(path, parquet_header(path), columns)
        if _is_image_records(path):
            return Look(path, AMAZON, Role.IMAGE_FEATURES)
        text = next(read_chunks(path, _A_LOOK)).removeprefix(b"\xef\xbb\xbf").decode("utf-8", errors="replace")
    except (OSError, InputError) as error:
        return Look(path, also=[error.found if isinstance(error, InputError) else error.strerror or str(error)])
    line = next((line for line in text.splitlines() if line.strip()), "").strip()
    if line.startswith("{"):
        return _record(path, line, columns)
    if line.startswith("["):
        return Look(path, also=["a JSON array: one record a line is needed"])
    if "\ufffd" in line:
        return Look(path, also=["no UTF-8: save it as that"])
    separator, header = header_of(line)
    if "::" in line and len(header) == 1:
        return Look(path, also=["separated by '::': write tabs instead", *line.split("::")])
    if separator == "\t" and {"userID", "itemID"} <= set(header):
        numbers = all(re.match(r"\d+\t", row) for row in text.splitlines()[1:-1])
        if numbers and header.index("userID") == 0:
            return Look(path, ("mmrec",), Role.INTERACTIONS, found_columns(header, INTERACTION_COLUMNS, {}), header)
    look = _table(path, header, columns)
    if separator == "\t" and look.role == Role.ITEMS and "itemID" in header:
        return Look(path, ("mmrec", "table"), Role.ITEMS, look.columns, header)
    return look


def _record(path: Path, line: str, columns: Mapping[str, str]) -> Look:
    """Return what a file is whose first line is a record of keys and values."""
    if line.startswith("{'"):
        return Look(path, ("amazon2014",), Role.METADATA) if "'asin':" in line else Look(path)
    keys = list(dict.fromkeys(re.findall(r'"(\w+)"\s*:', line)))
    with contextlib.suppress(ValueError):  # a line may be longer than the look
        keys = list(json.loads(line))
    reviews_2018 = ("amazon2018",) if {"verified", "vote", "style"} & {*keys} else ("amazon2018", "amazon2014")
    known: list[tuple[set[str], tuple[str, ...], Role]] = [
        ({"user_id", "parent_asin"}, ("amazon2023",), Role.REVIEWS),
        ({"reviewerID", "asin"}, ("amazon2014",) if "helpful" in keys else reviews_2018, Role.REVIEWS),
        ({"parent_asin"}, ("amazon2023",), Role.METADATA),
        ({"asin"}, ("amazon2018",), Role.METADATA),
    ]
    table = _table(path, keys, columns)
    for needed, formats, role in known:
        if needed <= {*keys} and (role == Role.REVIEWS or table.role != Role.INTERACTIONS):
            return Look(path, formats, role, also=keys)
    return table


def _table(path: Path, header: Sequence[str], columns: Mapping[str, str]) -> Look:
    if {"src", "dst"} <= set(header):
        role = Role.IMAGE_KNN if named_modality(path) == Role.IMAGE_FEATURES else Role.TEXT_KNN
        return Look(path, ("mmrec",), role, also=header)
    rows = found_columns(header, INTERACTION_COLUMNS, columns)
    if {"user", "item"} <= rows.keys():
        return Look(path, ("table",), Role.INTERACTIONS, rows, header)
    items = found_columns(header, ITEM_COLUMNS, columns)
    if "item" in items and len(items) > 1:
        return Look(path, ("table",), Role.ITEMS, items, header)
    if "item" in items and len(header) == 1:
        return Look(path, ("table",), Role.FEATURE_IDS, items, header)
    return Look(path, also=header)


def _array(path: Path) -> Look:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError):
        return Look(path)
    if array.ndim != 2 or array.dtype.kind != "f":
        return Look(path, also=[f"{array.dtype} of shape {array.shape}"])
    return Look(path, ("mmrec", "table"), named_modality(path) or Role.IMAGE_FEATURES)


def named_modality(path: Path) -> Role | None:
    """Return the role of a feature file by its name, None if that says nothing."""
    name = path.name.lower()
    return next((role for role, marks in _MODALITIES.items() if any(mark in name for mark in marks)), None)


def _is_image_records(path: Path) -> bool:
    size = path.stat().st_size
    with path.open("rb") as handle:
        return size > 0 and size % RECORD_BYTES == 0 and handle.read(ASIN_BYTES).isalnum()
