"""One SQLite file that several runs write to at once, opened and closed the same way whatever it keeps."""

import re
import sqlite3
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from recmodels.errors import InputError
from recmodels.io.files import raise_if_disk_refuses

MEMORY = Path(":memory:")
"""A file that is none: what is stored is gone when it is closed."""

_KEYS_IN_A_QUERY = 500
_SHARED_FILE_SYSTEM = re.compile(
    r"nfs4?|cifs|smb3|smbfs|9p|virtiofs|lustre|ceph|glusterfs|beegfs|gpfs|afs|ocfs2|gfs2|fuse\.(?!fuse-overlayfs).+"
)


class SqliteFile:
    """
    An open file in write-ahead mode, made if missing, with its folders; a context manager that closes it.

    Parameters
    ----------
    what
        What to call it in an error message.
    tables
        Statements that make its tables where they are missing.

    Raises
    ------
    InputError
        If the file is no SQLite file or cannot be opened, or would lie on a file system that several machines can
        write to: SQLite's write-ahead log works on one machine only. At the end, if an error was that of a full disk.
    """

    def __init__(self, path: Path, what: str, tables: str) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path != MEMORY:
                require_local(path, what)
            self._connection = sqlite3.connect(path, timeout=60.0, isolation_level=None)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=NORMAL")
            # Writers wait while the log is copied into the file: every 32 MB instead of every 4.
            self._connection.execute("PRAGMA wal_autocheckpoint=8000")
            self._connection.executescript(tables)
        except (sqlite3.DatabaseError, OSError) as error:
            raise InputError(
                f"{what} {path}",
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
            raise_if_disk_refuses(self._path, error)

    @contextmanager
    def _transaction(self) -> Generator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def _among(self, query: str, keys: Sequence[bytes], *before: Any) -> list[Any]:
        """Return the rows of a query that ends in IN, for at most a block of keys; `before` fills its other marks."""
        marks = ",".join("?" * len(keys))
        return self._connection.execute(f"{query} ({marks})", (*before, *keys)).fetchall()


def require_local(path: Path, what: str) -> None:
    """Raise InputError if a path is on a file system that several machines can write to, by the type of its mount."""
    mounts = [mount for mount in psutil.disk_partitions(all=True) if path.resolve().is_relative_to(mount.mountpoint)]
    mount = max(reversed(mounts), key=lambda mount: len(mount.mountpoint), default=None)
    if mount and _SHARED_FILE_SYSTEM.fullmatch(mount.fstype):
        raise InputError(
            f"{what} {path}",
            expected="a disk of this machine, as several machines would damage an SQLite file that they share",
            found=f"the file system {mount.fstype} at {mount.mountpoint}",
            action="Name a folder on a local disk, or on a volume that one machine mounts, with RECMODELS_CACHE.",
        )


def key_blocks(keys: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Cut keys into blocks that one query can ask for."""
    return (keys[start : start + _KEYS_IN_A_QUERY] for start in range(0, len(keys), _KEYS_IN_A_QUERY))
