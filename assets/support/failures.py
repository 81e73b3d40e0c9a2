"""How errors of the library become Dagster failures, permanent ones never retried, and how a failure is told."""

import contextlib
from collections.abc import Generator, Iterator

import dagster as dg

from assets.support.dagster_internals import ToldError
from recmodels.errors import PermanentFailure
from recmodels.io.files import data_root, disk_errors_told

_OWN = "recmodels."
"""How the message of an error of this project begins: with its class."""
_CHECK_FAILED = "DagsterAssetCheckFailedError"
_INTERRUPTED = "DagsterExecutionInterruptedError"


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

    An intended failure says why itself, and so does an error of this project; of any other it is the error that caused
    all others.
    """
    failure = event.step_failure_data
    reason = failure.user_failure_data.description if failure.user_failure_data else None
    return " ".join(f"{event.step_key}: {reason or _reason(failure.error)}".split())


def retry_of_step(event: dg.DagsterEvent) -> str:
    """Return which step is tried again, when, and why, in one line; empty where the run is ended in its middle."""
    retry = event.step_retry_data
    if any(error.cls_name == _INTERRUPTED for error in _chain(retry.error, also_handled=True)):
        return ""
    wait = f" in {retry.seconds_to_wait:.0f} s" if retry.seconds_to_wait else ""
    return " ".join(f"{event.step_key}: is tried again{wait}: {_reason(retry.error)}".split())


def _reason(error: ToldError | None) -> str:
    messages = [each.message for each in _chain(error)]
    own = (message.partition(": ")[2] for message in messages if message.startswith(_OWN))
    return next(own, messages[-1] if messages else "failed")


def _chain(error: ToldError | None, *, also_handled: bool = False) -> Iterator[ToldError]:
    """Yield an error and what caused it, or what was handled when it was raised, one after the other."""
    while error:
        yield error
        error = error.cause or (error.context if also_handled else None)


def is_permanent(event: dg.DagsterEvent) -> bool:
    """Tell whether a failed step fails again until its input or its settings are changed."""
    return event.step_failure_data.user_failure_data is not None or is_of_a_check(event)


def is_of_a_check(event: dg.DagsterEvent) -> bool:
    """Tell whether a step failed because of a blocking check, whose own event says what it found."""
    error = event.step_failure_data.error
    return error is not None and error.cls_name == _CHECK_FAILED
