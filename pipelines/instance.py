"""The Dagster instance of this machine: it lives under the data root, so that the UI shows what `make run` did."""

import contextlib
import fcntl
import os
import shutil
import sqlite3
from collections.abc import Generator
from importlib.resources import files
from pathlib import Path

import dagster as dg
from sqlalchemy.exc import DBAPIError

from recmodels.errors import InputError
from recmodels.io.files import INSTANCE_FOLDER, atomic_file, data_root, instance_home

_SCARCE_BYTES = 10_000_000


def prepare_home() -> Path:
    """
    Create the instance's directory and point ``DAGSTER_HOME`` at it, unless that variable is set already.

    Raises InputError if the data root cannot be written.
    """
    root = data_root()
    home = instance_home(root)
    try:
        home.mkdir(parents=True, exist_ok=True)
        settings = home / "dagster.yaml"
        if not settings.exists():
            with atomic_file(settings) as temporary:
                temporary.write_bytes(files("pipelines").joinpath("local_dagster.yaml").read_bytes())
    except OSError as error:
        raise InputError(
            f"data root {root}",
            expected="a directory that can be written",
            found=error.strerror or str(error),
            action="Name another with RECMODELS_DATA.",
        ) from error
    if not os.access(root, os.W_OK) or not os.access(home, os.W_OK):
        raise InputError(f"data root {root}", expected="a directory that can be written", found="a read-only one")
    os.environ["DAGSTER_HOME"] = str(home)
    return home


def require_own_home() -> None:
    """Raise InputError if ``DAGSTER_HOME`` lies in another data root, whose tables would be shown with runs of this."""
    root = data_root()
    home = instance_home(root).resolve()
    other = home.parent
    if home == other / INSTANCE_FOLDER and other != root and (other / "tables").is_dir():
        raise InputError(
            f"DAGSTER_HOME {home}",
            expected=f"the instance of the data root {root}",
            found=f"that of the data root {other}",
            action=f"Unset DAGSTER_HOME, or set RECMODELS_DATA={other}.",
        )


@contextlib.contextmanager
def open_instance() -> Generator[dg.DagsterInstance]:
    """
    Yield the persistent instance, created on first use.

    One process at a time: Dagster's own creation notes the schema's version twice if two create the same database at
    once, and refuses to open it ever after. Raises InputError if its database cannot be read or written, now or later.
    """
    home = prepare_home()
    try:
        with (home / ".creation.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            instance = dg.DagsterInstance.get()
        with instance:
            yield instance
    except Exception as error:
        if (found := _database_error(error)) is None:
            raise
        free = shutil.disk_usage(home).free
        action = "Restore that directory from a backup (docs/operating.md); `recmodels doctor` looks at it."
        if free < _SCARCE_BYTES:
            action = f"Make room, {free:,} bytes are free (docs/operating.md, Disk), and run the same command again."
        expected = "a database that can be read and written"
        raise InputError(f"Dagster's instance in {home}", expected=expected, found=found, action=action) from error


def _database_error(error: BaseException | None) -> str | None:
    """Return what the database complained about, if that is what an error comes from."""
    while error is not None:
        if isinstance(error, DBAPIError):
            return str(error.orig)
        if isinstance(error, sqlite3.Error):
            return str(error)
        error = error.__cause__ or error.__context__
    return None
