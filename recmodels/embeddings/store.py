"""Vectors that were paid for once: one SQLite file, keyed by encoder and text."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from recmodels.io.sqlite import SqliteFile, key_blocks

_TABLES = "CREATE TABLE IF NOT EXISTS vectors (encoder TEXT, text BLOB, vector BLOB, PRIMARY KEY (encoder, text));"


class VectorStore(SqliteFile):
    """
    Vectors of one encoder, all of one width, by the digest of their text.

    Encoders, told apart by their digest, and concurrent runs may share a file.
    """

    def __init__(self, path: Path, encoder_digest: str, width: int) -> None:
        self._encoder = encoder_digest
        self._width = width
        super().__init__(path, "vector store", _TABLES)

    def load(self, keys: Sequence[bytes], into: npt.NDArray[np.float32]) -> list[int]:
        """Copy the stored vectors of the keys into the rows of a (len(keys), width) array; return the rows lacking."""
        found = np.zeros(len(keys), dtype=bool)
        rows = {key: row for row, key in enumerate(keys)}
        for block in key_blocks(keys):
            stored = self._among("SELECT text, vector FROM vectors WHERE encoder = ? AND text IN", block, self._encoder)
            for key, blob in stored:
                if len(blob) == 4 * self._width:
                    into[rows[key]] = np.frombuffer(blob, dtype="<f4")
                    found[rows[key]] = True
        return np.flatnonzero(~found).tolist()

    def save(self, keys: Sequence[bytes], vectors: npt.NDArray[np.float32]) -> None:
        """Store the vectors of the keys in one transaction."""
        little_endian = vectors.astype("<f4", copy=False)
        rows = [(self._encoder, key, vector.tobytes()) for key, vector in zip(keys, little_endian, strict=True)]
        with self._transaction():
            self._connection.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)", rows)
