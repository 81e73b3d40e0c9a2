"""Digests of tables by content, so that a data version survives library upgrades and file rewrites."""

import hashlib
import json
from typing import Any

import numpy as np
import polars as pl


def digest_of(*parts: str) -> str:
    """Return the digest (32 hex digits) of a sequence of strings; the borders between them count."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def frame_digest(frame: pl.DataFrame) -> str:
    """
    Return the digest (32 hex digits) of a table's column names, types, row order and values.

    Two frames with equal content have equal digests whatever their chunks, file format or library version.
    """
    state = hashlib.sha256()
    state.update(f"{frame.height}".encode())
    for series in frame.iter_columns():
        state.update(f"|{series.name}:{series.dtype}|".encode())
        _feed(state, series)
    return state.hexdigest()[:32]


def _feed(state: Any, series: pl.Series) -> None:
    dtype = series.dtype
    if series.null_count():
        state.update(b"nulls")
        state.update(np.packbits(series.is_null().to_numpy()).tobytes())
        series = series.drop_nulls()
    if isinstance(dtype, pl.List):
        state.update(series.list.len().cast(pl.Int64).to_numpy().tobytes())
        _feed(state, series.list.explode(empty_as_null=False, keep_nulls=False))
    elif isinstance(dtype, pl.Array):
        _feed(state, series.explode())
    elif dtype.is_numeric() or dtype == pl.Boolean:
        state.update(np.ascontiguousarray(series.to_numpy()).tobytes())
    else:
        text = series.cast(pl.String)
        state.update(text.str.len_bytes().cast(pl.Int64).to_numpy().tobytes())
        state.update("".join(text.to_list()).encode())
