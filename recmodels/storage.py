"""Files under one data root: paths that cannot leave it, and writes that are whole or absent."""

import contextlib
import os
import re
import shutil
import uuid
from collections.abc import Generator
from pathlib import Path

from recmodels.errors import InputError

DATA_ROOT_VARIABLE = "RECMODELS_DATA"
_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def data_root() -> Path:
    """
    Return the absolute directory that holds everything the product writes.

    It is named by the environment variable ``RECMODELS_DATA``; the default is ``./data``.
    """
    return Path(os.environ.get(DATA_ROOT_VARIABLE) or "data").resolve()


def safe_join(root: Path, *parts: str) -> Path:
    """
    Join names below a root.

    Raises
    ------
    InputError
        If a part is not a plain name (letters, digits, ``.``, ``_``, ``-``, not starting with a dot), so that no
        partition key or asset name can reach outside the root.
    """
    for part in parts:
        if not _SAFE_NAME.fullmatch(part):
            raise InputError(
                f"path part {part!r}",
                expected="a plain name of letters, digits, '.', '_' and '-' that does not start with a dot",
                found=repr(part),
            )
    return root.joinpath(*parts)


@contextlib.contextmanager
def atomic_file(path: Path) -> Generator[Path]:
    """
    Yield a temporary path in the folder of `path`; move it over `path` if the block succeeds, delete it if not.

    The content is flushed to disk before the move, so that a crash leaves the old file or the new one, never a part.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_directory(path: Path) -> Generator[Path]:
    """Yield a temporary directory beside `path`; rename it to `path` if the block succeeds, delete it if not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    temporary.mkdir()
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                with file.open("rb") as handle:
                    os.fsync(handle.fileno())
        temporary.rename(path)
    finally:
        if temporary.exists():
            shutil.rmtree(temporary)
