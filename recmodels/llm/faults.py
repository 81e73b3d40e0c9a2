"""Faults of HTTP servers, sorted by what can be done about them."""

import json
from collections.abc import Generator
from contextlib import contextmanager

import aiohttp
import httpx
from pydantic import ValidationError

from recmodels.errors import InputError, PermanentFailure, TransientFailure
from recmodels.io.retry_after import retry_after_seconds
from recmodels.llm.base import Busy, PromptRejected, Unreachable


@contextmanager
def transport_faults(address: str) -> Generator[None]:
    """Raise TransientFailure for whatever goes wrong before a reply is decoded; Unreachable if the connection broke."""
    try:
        yield
    except (TimeoutError, httpx.ReadTimeout, httpx.WriteTimeout) as error:
        raise TransientFailure(f"{address} did not answer in time") from error
    except (ConnectionError, aiohttp.ClientError, httpx.TransportError) as error:
        raise Unreachable(f"{address} cannot be reached: {error or type(error).__name__}") from error
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError, ValidationError, httpx.DecodingError) as error:
        raise TransientFailure(f"{address} sent an unreadable reply ({type(error).__name__})") from error


async def raise_for_status(response: httpx.Response, *, address: str, model: str) -> None:
    """
    Raise the fault that a response of status 400 or more stands for.

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
    status = response.status_code
    if status < 400:
        return
    body = (await response.aread()).decode(errors="replace")
    message = f"{address} answered {status}: {' '.join(body.split())[:300]}"
    if status == 429:
        raise Busy(message, retry_after_seconds(response.headers.get("retry-after")))
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
