"""Whether a process that was once seen has ended."""

import socket
from pathlib import Path

import psutil

CLOCK_TOLERANCE_SECONDS = 2


def host() -> str:
    """Return a name under which process numbers are comparable: the host and, on Linux, the process id namespace."""
    try:
        return f"{socket.gethostname()} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return socket.gethostname()


def has_ended(pid: int, seen: float) -> bool:
    """
    Tell whether the process that had a number on this machine at a time, in seconds since the epoch, has ended.

    A younger process may have the number by now. A clock that was set back makes no living process look ended.
    """
    try:
        process = psutil.Process(pid)
        younger = process.create_time() > seen + CLOCK_TOLERANCE_SECONDS
        return younger or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
