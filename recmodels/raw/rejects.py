"""Raw lines that could not be read: each is kept with its place and the reason."""

import polars as pl

from recmodels.schemas.tables import REJECTS

SHOWN_CHARACTERS = 200
SHOWN_BYTES = 4 * SHOWN_CHARACTERS


class RejectLog:
    """Collector of rejected lines of one raw file, by the name that the table shows."""

    def __init__(self, file: str) -> None:
        self.file = file
        self._rows: list[tuple[int, str, str]] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, line: int, reason: str, text: bytes) -> None:
        """Record a line by its 1-based number; bytes that are no UTF-8 are shown as replacement characters."""
        shown = text[:SHOWN_BYTES].decode("utf-8", errors="replace").rstrip("\r\n")[:SHOWN_CHARACTERS]
        self._rows.append((line, reason, shown))

    def take(self, other: "RejectLog") -> None:
        """Record what another log of the same file has."""
        self._rows += other._rows

    def frame(self) -> pl.DataFrame:
        """Return the rejects in the order of the file (schema `REJECTS`)."""
        rows = [(self.file, *row) for row in sorted(self._rows)]
        return pl.DataFrame(rows, schema=REJECTS, orient="row")
