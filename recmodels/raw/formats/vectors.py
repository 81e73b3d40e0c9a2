"""Vectors of items, as every format reads them: arrays on disk, which rows count, and the table that comes of them."""

from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recmodels.errors import InputError
from recmodels.schemas.tables import embedding_schema


def feature_matrix(path: Path, n_rows: int) -> NDArray[np.floating]:
    """
    Open a `.npy` matrix of floats, shape (n_rows, d), without reading it into memory.

    Raises
    ------
    InputError
        If it is no such matrix. Pickled arrays are never read.
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


def item_features(path: Path, vectors: NDArray[np.float32]) -> pl.DataFrame:
    """
    Return the embedding table of items; those whose vector is zero, or not finite, count as absent.

    Parameters
    ----------
    path
        Where they were read.
    vectors
        float32, shape (n_items, d), in id order; absent rows are overwritten.

    Raises
    ------
    InputError
        If all are absent.
    """
    present = np.isfinite(vectors).all(axis=1) & (vectors != 0).any(axis=1)
    require_some(path, present, found="none with finite values other than zero")
    return embedding_frame("item_id", vectors, present)


def require_some(path: Path, present: NDArray[np.bool_], *, found: str) -> None:
    """Raise InputError if no item has features in a file; `found` says what the file has in their place."""
    if not present.any():
        raise InputError(
            str(path),
            expected=f"features of some of the {len(present):,} items",
            found=found,
            action="Check that the file belongs to this data set.",
        )


def embedding_frame(id_column: str, vectors: NDArray[np.float32], present: NDArray[np.bool_]) -> pl.DataFrame:
    """
    Return an embedding table; rows that are not present are overwritten, in place, with the mean of those that are.

    Parameters
    ----------
    id_column
        "item_id" or "user_id".
    vectors
        float32, shape (n, d).
    present
        Shape (n,).
    """
    if present.any() and not present.all():
        total = np.zeros(vectors.shape[1], dtype=np.float64)
        for start in range(0, len(vectors), 1024):
            part = slice(start, start + 1024)
            total += vectors[part][present[part]].sum(axis=0, dtype=np.float64)
        vectors[~present] = total / present.sum()
    schema = embedding_schema(id_column, vectors.shape[1])
    return pl.DataFrame(
        {id_column: np.arange(len(vectors), dtype=np.int32), "embedding": vectors, "present": present}, schema=schema
    )
