"""A value that is looked up again when it is old, without anybody having to wait for it."""

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Fresh(Generic[T]):
    """
    A value that several threads ask for.

    The first to ask waits until it is looked up. When it is older than `seconds`, the next to ask looks it up again,
    and the others get the last one meanwhile. After an error it is looked up anew. `look_up` is called with the
    last value, None at first, and may return it again.
    """

    def __init__(self, look_up: Callable[[T | None], T], seconds: float) -> None:
        self._look_up = look_up
        self._seconds = seconds
        self._lock = threading.Lock()
        self._known: tuple[float, T] | None = None

    @property
    def last(self) -> T | None:
        """The value as it was last looked up."""
        return self._known[1] if self._known else None

    def get(self) -> T:
        """Return the value; raises what looking it up raises."""
        known = self._known
        if known is not None and (time.monotonic() - known[0] < self._seconds or self._lock.locked()):
            return known[1]
        with self._lock:
            known = self._known
            if known is not None and time.monotonic() - known[0] < self._seconds:
                return known[1]
            try:
                value = self._look_up(known[1] if known else None)
            except BaseException:
                self._known = None
                raise
            self._known = (time.monotonic(), value)
            return value
