"""The one reading of the Retry-After header."""

from email.utils import parsedate_to_datetime
from math import isfinite
from time import time


def retry_after_seconds(header: str | None) -> float | None:
    """
    Return the seconds a Retry-After header asks for, given as a number or an HTTP date; None if it says neither.

    Examples
    --------
    >>> retry_after_seconds("2"), retry_after_seconds("Wed, 21 Oct 2015 07:28:00 GMT"), retry_after_seconds("later")
    (2.0, 0.0, None)
    """
    try:
        seconds = float(header or "")
    except ValueError:
        try:
            seconds = parsedate_to_datetime(header or "").timestamp() - time()
        except ValueError:
            return None
    return max(0.0, seconds) if isfinite(seconds) else None
