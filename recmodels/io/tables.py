"""
Stored tables: a Parquet file, or a folder of Parquet files in order with a manifest of their digests.

Which of the two a table is stored as changes neither its data version nor how it is read.
"""

from pathlib import Path

import polars as pl
from pydantic import BaseModel, ConfigDict, ValidationError

from recmodels.errors import MissingObject
from recmodels.io.files import MANIFEST, Content, safe_join, store_by_content, store_folder_by_content

PARTS_SUFFIX = ".parts"
"""Of the folder of a table in parts."""
PARTS_ABOVE = 1 << 24
"""Rows from which on a table is stored in parts, and the most of a part."""


class PartFile(BaseModel):
    """A file of a table in parts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    rows: int
    size: int
    sha256: str


class PartsManifest(BaseModel):
    """The files of a table in parts, in the order of its rows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: int
    parts: list[PartFile]


def store_table(folder: Path, frame: pl.DataFrame, *, parts_above: int = PARTS_ABOVE) -> tuple[Path, Content]:
    """
    Store a table in a folder under the name of its content; return its path and the content of its file or manifest.

    Parameters
    ----------
    folder
        Where it goes; made if missing. The table appears whole or not at all.
    frame
        The table.
    parts_above
        Most rows of a file: a table of more becomes a folder ``<digest>.parts``.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> path, _ = store_table(Path(mkdtemp()), pl.DataFrame({"user_id": [0, 1, 2]}), parts_above=2)
    >>> path.suffix, read_table(path, "Store it again.")["user_id"].to_list()
    ('.parts', [0, 1, 2])
    """
    if frame.height <= parts_above:
        return store_by_content(folder, ".parquet", lambda path: _write(frame, path))

    def write(directory: Path) -> None:
        parts: list[PartFile] = []
        for start in range(0, frame.height, parts_above):
            part, path = frame.slice(start, parts_above), directory / f"{len(parts):05}.parquet"
            _write(part, path)
            content = Content.of(path)
            parts.append(PartFile(name=path.name, rows=part.height, size=content.size, sha256=content.sha256))
        manifest = PartsManifest(rows=frame.height, parts=parts)
        (directory / MANIFEST).write_text(manifest.model_dump_json(indent=2), encoding="utf-8")

    return store_folder_by_content(folder, PARTS_SUFFIX, write, is_whole=_is_whole)


def _write(frame: pl.DataFrame, path: Path) -> None:
    frame.write_parquet(path, compression="zstd", statistics=True)


def require_parts(path: Path, action: str) -> None:
    """Raise MissingObject, with what to do, if a part of a table is gone or not what was written; a file has none."""
    if path.suffix != PARTS_SUFFIX:
        return
    for part in _manifest(path, action).parts:
        Content(part.size, part.sha256).require(safe_join(path, part.name), action)


def table_files(path: Path, action: str) -> list[Path]:
    """Return the Parquet files of a stored table in the order of its rows; MissingObject if its manifest is no more."""
    if path.suffix != PARTS_SUFFIX:
        return [path]
    return [safe_join(path, part.name) for part in _manifest(path, action).parts]


def read_table(path: Path, action: str) -> pl.DataFrame:
    """Read a stored table; raises MissingObject, with what to do, if a file is gone or is no whole Parquet file."""
    files = table_files(path, action)
    try:
        return pl.read_parquet(files if len(files) > 1 else files[0])
    except (pl.exceptions.PolarsError, OSError) as error:
        raise MissingObject(
            f"{path}: expected a whole Parquet file, found {' '.join(str(error).split())}. {action}"
        ) from error


def scan_table(path: Path, action: str) -> pl.LazyFrame:
    """Return a stored table to be read as far as it is asked for."""
    return pl.scan_parquet(table_files(path, action))


def _manifest(path: Path, action: str) -> PartsManifest:
    try:
        return PartsManifest.model_validate_json((path / MANIFEST).read_bytes())
    except (OSError, ValidationError) as error:
        found = "something else" if isinstance(error, ValidationError) else error.strerror or str(error)
        raise MissingObject(f"{path / MANIFEST}: expected a manifest of parts, found {found}. {action}") from error


def _is_whole(path: Path) -> bool:
    try:
        require_parts(path, "")
    except MissingObject:
        return False
    return True
