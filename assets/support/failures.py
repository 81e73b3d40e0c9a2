"""How errors of the library become Dagster failures, permanent ones never retried, and how a failure is told."""

import contextlib
from collections.abc import Generator

import dagster as dg

from recmodels.errors import PermanentFailure
from recmodels.io.files import data_root, disk_errors_told

_CHECK_FAILED = "DagsterAssetCheckFailedError"


@contextlib.contextmanager
def as_dagster_failures() -> Generator[None]:
    """Turn a `PermanentFailure`, or a disk that refuses, into a `dagster.Failure` that no retry policy repeats."""
    try:
        with disk_errors_told(data_root()):
            yield
    except PermanentFailure as error:
        raise dg.Failure(description=str(error), allow_retries=False) from error


def failure_of_step(event: dg.DagsterEvent) -> str:
    """
    Return which step failed and why, in one line.

    An intended failure says why itself; of any other it is the error that caused all others.
    """
    failure = event.step_failure_data
    reason = failure.user_failure_data.description if failure.user_failure_data else None
    error = failure.error
    while error and error.cause:
        error = error.cause
    return " ".join(f"{event.step_key}: {reason or (error.message if error else 'failed')}".split())


def is_permanent(event: dg.DagsterEvent) -> bool:
    """Tell whether a failed step fails again until its input or its settings are changed."""
    return event.step_failure_data.user_failure_data is not None or is_of_a_check(event)


def is_of_a_check(event: dg.DagsterEvent) -> bool:
    """Tell whether a step failed because of a blocking check, whose own event says what it found."""
    error = event.step_failure_data.error
    return error is not None and error.cls_name == _CHECK_FAILED
