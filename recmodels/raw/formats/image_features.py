"""Image features of the 2014 release: records of 10 ASCII bytes of asin and 4096 little-endian float32."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recmodels.errors import InputError
from recmodels.schemas.tables import embedding_schema

ASIN_BYTES = 10
WIDTH = 4096
RECORD_BYTES = ASIN_BYTES + 4 * WIDTH
_RECORD = np.dtype([("asin", f"S{ASIN_BYTES}"), ("features", "<f4", (WIDTH,))])
_RECORDS_A_READ = 64


def read_image_features(path: Path, asins: Sequence[str]) -> pl.DataFrame:
    """
    Stream a .b file and keep the vectors of some items.

    Parameters
    ----------
    path
        The file; Clothing's is about 25 GB, of which one read at a time is held.
    asins
        Asin of each item, in id order.

    Returns
    -------
    pl.DataFrame
        `embedding_schema("item_id", 4096)` in id order. An item without a record, or with numbers that are not finite,
        has the mean of the present ones and `present` False. Of several records of one item the greatest by its bytes
        is kept, wherever they stand.
    """
    size = path.stat().st_size
    expected = f"records of {RECORD_BYTES:,} bytes ({ASIN_BYTES} of asin, {WIDTH} float32)"
    if size == 0 or size % RECORD_BYTES:
        raise InputError(
            str(path),
            expected=expected,
            found="an empty file" if size == 0 else f"{size:,} bytes, {size % RECORD_BYTES:,} too many",
            action="Fetch it again: it is truncated or of another format.",
        )
    row_of = {asin.encode(): row for row, asin in enumerate(asins)}
    vectors = np.zeros((len(asins), WIDTH), dtype=np.float32)
    present = np.zeros(len(asins), dtype=np.bool_)
    first = True
    for records in _batches(path):
        names = records["asin"].tolist()
        if first and not (names[0].isalnum() and len(names[0]) == ASIN_BYTES):
            raise InputError(str(path), expected=expected, found=f"a first record of asin {names[0]!r}")
        first = False
        for position, row in [(position, row_of[name]) for position, name in enumerate(names) if name in row_of]:
            vector = records["features"][position]
            if np.isfinite(vector).all() and not (present[row] and vector.tobytes() < vectors[row].tobytes()):
                vectors[row] = vector
                present[row] = True
    if not present.any():
        raise InputError(
            str(path),
            expected=f"features of some of the {len(asins):,} items",
            found="none of their asins",
            action="Check that the file belongs to this data set.",
        )
    return embedding_frame("item_id", vectors, present)


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


def _batches(path: Path) -> Iterator[NDArray[np.void]]:
    """Yield the records of a file in batches that fit a processor's cache; a batch is valid until the next."""
    memory = bytearray(_RECORDS_A_READ * RECORD_BYTES)
    with path.open("rb") as handle:
        while count := handle.readinto(memory) // RECORD_BYTES:
            yield np.frombuffer(memory, dtype=_RECORD, count=count)
