"""How errors of the library become Dagster failures: permanent ones are never retried and read as one line."""

import contextlib
from collections.abc import Generator

import dagster as dg

from recmodels.errors import PermanentFailure
from recmodels.io.files import data_root, disk_errors_told


@contextlib.contextmanager
def as_dagster_failures() -> Generator[None]:
    """Turn a `PermanentFailure`, or a disk that refuses, into a `dagster.Failure` that no retry policy repeats."""
    try:
        with disk_errors_told(data_root()):
            yield
    except PermanentFailure as error:
        raise dg.Failure(description=str(error), allow_retries=False) from error
