"""Arrays that a step frees are kept for the next step: the one setting of the C library that a training changes."""

import ctypes
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

_TRIM_THRESHOLD, _MAP_THRESHOLD = -1, -3
"""Numbers of the parameters in malloc.h."""
_KEPT = 1 << 30
"""Arrays of up to so many bytes are kept, and as much of the heap's free end."""
_USUAL = 32 << 20
"""Where the C library's own thresholds end up in a process that frees large arrays."""


@contextmanager
def freed_memory_kept() -> Generator[None]:
    """
    Have freed memory stay with this process until the block ends, and give it back then.

    Else the C library of GNU gives a step's arrays back to the operating system, which zeroes their pages anew for the
    next step: with LightGCN on Sports half of a step's time. Elsewhere this does nothing.
    """
    library: Any = ctypes.CDLL(None) if sys.platform == "linux" else None
    if not hasattr(library, "mallopt"):
        yield
        return
    library.mallopt(_MAP_THRESHOLD, _KEPT)
    library.mallopt(_TRIM_THRESHOLD, _KEPT)
    try:
        yield
    finally:
        library.mallopt(_MAP_THRESHOLD, _USUAL)
        library.mallopt(_TRIM_THRESHOLD, 2 * _USUAL)
        library.malloc_trim(0)
