"""Vectors that were paid for once: one SQLite file, keyed by encoder and text."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from recmodels.errors import InputError
from recmodels.storage import raise_if_disk_is_full

_LOOKUP = 500


class VectorStore:
    """
    Vectors of one encoder by the digest of their text.

    Parameters
    ----------
    path
        SQLite file (WAL), made if missing; encoders and concurrent runs may share it.
    encoder_digest
        Digest of the encoder's files and settings.
    width
        Length of a vector.

    Raises
    ------
    InputError
        If the file is not a store or cannot be opened.
    """

    def __init__(self, path: Path, encoder_digest: str, width: int) -> None:
        self._encoder = encoder_digest
        self._width = width
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=60.0, isolation_level=None)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=NORMAL")
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS vectors (encoder TEXT, text BLOB, vector BLOB, PRIMARY KEY (encoder, text))"
            )
        except (sqlite3.DatabaseError, OSError) as error:
            raise InputError(
                f"vector store {path}",
                expected="an SQLite file that can be written, or none yet",
                found=str(error),
                action="Check the data root, or move the file away.",
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._connection.close()
        if error is not None:
            raise_if_disk_is_full(self._path, error)

    def load(self, keys: Sequence[bytes], into: npt.NDArray[np.float32]) -> list[int]:
        """Copy the stored vectors of the keys into the rows of a (len(keys), width) array; return the rows lacking."""
        found = np.zeros(len(keys), dtype=bool)
        rows = {key: row for row, key in enumerate(keys)}
        for start in range(0, len(keys), _LOOKUP):
            part = keys[start : start + _LOOKUP]
            marks = ",".join("?" * len(part))
            query = f"SELECT text, vector FROM vectors WHERE encoder = ? AND text IN ({marks})"  # noqa: S608
            for key, blob in self._connection.execute(query, (self._encoder, *part)):
                if len(blob) == 4 * self._width:
                    into[rows[key]] = np.frombuffer(blob, dtype="<f4")
                    found[rows[key]] = True
        return np.flatnonzero(~found).tolist()

    def save(self, keys: Sequence[bytes], vectors: npt.NDArray[np.float32]) -> None:
        """Store the vectors of the keys in one transaction."""
        little_endian = vectors.astype("<f4", copy=False)
        rows = [(self._encoder, key, vector.tobytes()) for key, vector in zip(keys, little_endian, strict=True)]
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            self._connection.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)", rows)
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")
