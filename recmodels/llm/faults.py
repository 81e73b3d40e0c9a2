"""Faults that a server reports, sorted by what can be done about them."""

from collections.abc import Generator
from contextlib import contextmanager

from pydantic import ValidationError

from recmodels.errors import InputError, PermanentFailure, TransientFailure
from recmodels.llm.base import Busy, PromptRejected


@contextmanager
def unreadable_replies(address: str) -> Generator[None]:
    """Raise TransientFailure for a reply that is not what its server documents."""
    try:
        yield
    except ValidationError as error:
        raise TransientFailure(f"{address} sent an unreadable reply ({error.errors()[0]['type']})") from error


def raise_for_status(status: int, body: bytes, retry_after: float | None, *, address: str, model: str) -> None:
    """
    Raise the fault that a status of 400 or more stands for.

    Raises
    ------
    Busy
        429.
    TransientFailure
        408, 409, 425 and 5xx.
    InputError
        404: the address or the model is not there.
    PermanentFailure
        401 and 403.
    PromptRejected
        Any other 4xx.
    """
    if status < 400:
        return
    message = f"{address} answered {status}: {' '.join(body.decode(errors='replace').split())[:300]}"
    if status == 429:
        raise Busy(message, retry_after)
    if status in (408, 409, 425) or status >= 500:
        raise TransientFailure(message)
    if status in (401, 403):
        raise PermanentFailure(f"{message}. Check the key in the variable that the setting api_key_variable names.")
    if status == 404:
        raise InputError(
            f"model {model!r}",
            expected=f"a model that {address} serves",
            found=message,
            action="Check the settings server and model, or load the model on the server.",
        )
    raise PromptRejected(message)
