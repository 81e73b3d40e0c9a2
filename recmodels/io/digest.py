"""Digests of tables by content, so that a data version survives library upgrades and file rewrites."""

import hashlib
import json
from typing import Any

import numpy as np
import polars as pl

_BLOCK_ROWS = 8192
"""Part of the digest's definition: nulls are told of each block of so many rows."""
_NAMES: dict[Any, str] = {
    pl.Boolean: "bool",
    pl.Int8: "i8",
    pl.Int16: "i16",
    pl.Int32: "i32",
    pl.Int64: "i64",
    pl.UInt8: "u8",
    pl.UInt16: "u16",
    pl.UInt32: "u32",
    pl.UInt64: "u64",
    pl.Float32: "f32",
    pl.Float64: "f64",
    pl.String: "text",
    pl.Date: "date",
}


def digest_of(*parts: str) -> str:
    """Return the digest (32 hex digits) of a sequence of strings; the borders between them count."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def frame_digest(frame: pl.DataFrame) -> str:
    """
    Return the digest (32 hex digits) of a table's column names, types, row order and values.

    Two frames with equal content have equal digests whatever their chunks, file format or library version.

    Raises
    ------
    TypeError
        If a column has a type that no stored table has.

    Examples
    --------
    >>> frame_digest(pl.DataFrame({"user": [0, 1], "name": ["Ann", None]}))
    '04b9c2e5135c2a8e6b782823b6134d10'
    """
    state = hashlib.sha256(f"{frame.height}".encode())
    for series in frame.iter_columns():
        state.update(json.dumps([series.name, _name(series.dtype)]).encode())
        for start in range(0, frame.height, _BLOCK_ROWS):
            _feed(state, series.slice(start, _BLOCK_ROWS))
    return state.hexdigest()[:32]


def _name(dtype: pl.DataType) -> str:
    """Return how a type is spelled here, whatever a version of the library prints."""
    if isinstance(dtype, pl.List):
        return f"list({_name(dtype.inner)})"  # pyright: ignore[reportArgumentType] a type class only before it is used
    if isinstance(dtype, pl.Array):
        return f"array({_name(dtype.inner)},{dtype.size})"  # pyright: ignore[reportArgumentType]
    if isinstance(dtype, pl.Enum):
        return f"enum({json.dumps(dtype.categories.to_list())})"
    if isinstance(dtype, pl.Datetime):
        return f"datetime({dtype.time_unit},{dtype.time_zone})"
    if type(dtype) not in _NAMES:
        raise TypeError(f"no digest is defined of a column of type {dtype}")
    return _NAMES[type(dtype)]


def _feed(state: Any, series: pl.Series) -> None:
    state.update(b"nulls" if series.null_count() else b"whole")
    if series.null_count():
        state.update(np.packbits(series.is_null().to_numpy()).tobytes())
        series = series.drop_nulls()
    if isinstance(series.dtype, pl.List):
        state.update(series.list.len().cast(pl.Int64).to_numpy().astype("<i8").tobytes())
        _feed(state, series.list.explode(empty_as_null=False, keep_nulls=False))
    elif isinstance(series.dtype, pl.Array):
        _feed(state, series.explode())
    elif series.dtype == pl.String:
        state.update(series.str.len_bytes().to_numpy().astype("<i8").tobytes())
        state.update("".join(series.to_list()).encode())
    else:
        values = series.to_physical()
        # Codes of categories are as wide as the library pleases.
        numbers = np.ascontiguousarray((values.cast(pl.UInt32) if series.dtype == pl.Enum else values).to_numpy())
        state.update(numbers.astype(numbers.dtype.newbyteorder("<"), copy=False).tobytes())
