"""
SIGINT and SIGTERM on the command line: told in one line, never lost, and never a traceback.

Dagster sets handlers of its own around a run, forgets signals that come between its steps, and code that runs inside a
step may swallow what a handler raises. So a thread of its own hears of every signal, whoever handles it, and sees to it
that the process ends. Only the standard library is imported here: the first signals may come during all other imports.
"""

import contextlib
import logging
import os
import select
import signal
import sys
import threading
from collections.abc import Generator
from types import FrameType

SECONDS = 2.5
"""How long work may take to unwind. Every write is whole or absent, so that ending it anywhere is safe."""
TOLD = "interrupted; run the same command again to go on"
_SIGNALS = frozenset({signal.SIGINT, signal.SIGTERM})


class Interrupted(BaseException):
    """The process was asked to end, with 128 and the number of the signal; no handler of errors may take it for one."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class _State:
    def __init__(self) -> None:
        self.status = 0
        self.orderly = False
        self.output = -1
        self.telling = threading.Lock()
        self.told = False


_STATE = _State()


def watch() -> None:
    """Have both signals end this process, from now on. To be called once, in the main thread."""
    # Inside a step Dagster leads the standard output to a file.
    _STATE.output = os.dup(sys.stdout.fileno())
    # Where a handler raises in a callback that must not raise, Python or the logging of a library tells a traceback.
    sys.unraisablehook = _tell_errors
    if logging.lastResort:
        logging.lastResort.addFilter(_is_of_errors)
    heard, hears = os.pipe()
    os.set_blocking(hears, False)
    signal.set_wakeup_fd(hears, warn_on_full_buffer=False)
    for number in _SIGNALS:
        if signal.getsignal(number) is signal.SIG_IGN:
            if number != signal.SIGINT:
                continue
            # Shells ask for it in the background. Dagster gives SIGTERM the handler that SIGINT has: to ignore the one
            # would be to ignore both. SIGTERM is never held back: what a step starts inherits that, and ends by it.
            signal.pthread_sigmask(signal.SIG_BLOCK, {number})
        signal.signal(number, _handle)
    threading.Thread(target=_listen, args=(heard,), name="interrupts", daemon=True).start()


@contextlib.contextmanager
def ending_orderly() -> Generator[None]:
    """
    Give the block `SECONDS` to unwind when a signal comes; a second signal ends it at once.

    Where nobody called `watch`, as in a notebook, signals do what they did before.

    Raises
    ------
    Interrupted
        At the end of the block at the latest, if a signal came.
    """
    if _STATE.output < 0:
        yield
        return
    # Processes that are started meanwhile, as those which follow a step's output are, leave Ctrl-C to this one.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    _STATE.orderly = True
    try:
        yield
        raise_if_interrupted()
    except BaseException:
        raise_if_interrupted()
        raise
    finally:
        _STATE.orderly = False
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def raise_if_interrupted() -> None:
    """Raise `Interrupted` if a signal came, also where somebody else handled it."""
    if _STATE.status:
        raise Interrupted(_STATE.status)


def tell() -> None:
    """Say that the process was interrupted and how to go on, once."""
    # Two threads may come here, and whichever returns first ends the process: the second waits for the line of the
    # first, though not for ever, as nobody may be reading it.
    if not _STATE.telling.acquire(timeout=SECONDS):
        return
    try:
        if not _STATE.told:
            _STATE.told = True
            shown_again = "\x1b[?25h" if os.isatty(_STATE.output) else ""  # the cursor, which a progress display hides
            with contextlib.suppress(OSError):
                os.write(_STATE.output, f"{shown_again}{TOLD}\n".encode())
    finally:
        _STATE.telling.release()


def _tell_errors(ignored: "sys.UnraisableHookArgs") -> None:
    if issubclass(ignored.exc_type, Exception):
        sys.__unraisablehook__(ignored)


def _is_of_errors(record: logging.LogRecord) -> bool:
    """Tell whether a record is of anything but an interruption: those derive from BaseException alone."""
    raised = record.exc_info[0] if record.exc_info else None
    return raised is None or issubclass(raised, Exception)


def _handle(number: int, _frame: FrameType | None) -> None:
    if _STATE.orderly:
        _STATE.status = _STATE.status or 128 + number
        raise Interrupted(_STATE.status)


def _listen(heard: int) -> None:
    """End the process after a signal: at once if there is no work to unwind, else when time is up or another comes."""
    while True:
        (number,) = os.read(heard, 1)
        # A server, say, that handles signals in its own way is left to that.
        if number in _SIGNALS and (_STATE.orderly or signal.getsignal(number) is _handle):
            break
    _STATE.status = _STATE.status or 128 + number
    if _STATE.orderly:
        select.select([heard], [], [], SECONDS)
    tell()
    os._exit(_STATE.status)
