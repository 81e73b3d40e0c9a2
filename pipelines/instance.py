"""The Dagster instance of this machine: it lives under the data root, so that the UI shows what `make run` did."""

import fcntl
import os
from importlib.resources import files
from pathlib import Path

import dagster as dg

from recmodels.errors import InputError
from recmodels.io.files import atomic_file, data_root


def prepare_home() -> Path:
    """
    Create the instance's directory and point ``DAGSTER_HOME`` at it, unless that variable is set already.

    Raises
    ------
    InputError
        If the data root cannot be written.
    """
    root = data_root()
    home = Path(os.environ.get("DAGSTER_HOME") or root / "dagster")
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


def open_instance() -> dg.DagsterInstance:
    """
    Return the persistent instance, created on first use.

    One process at a time: Dagster's own creation notes the schema's version twice if two create the same database at
    once, and refuses to open it ever after.
    """
    with (prepare_home() / ".creation.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return dg.DagsterInstance.get()
