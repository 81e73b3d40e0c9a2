"""What a signal meets where nothing may be raised: it is heard all the same, and no traceback is told."""

import subprocess
import sys

import pytest

RAISING = """
import gc, logging, os, signal, sys, time, weakref
from pipelines.cli import interrupts
signal.signal(signal.SIGTERM, signal.SIG_DFL)  # what a test before this one had ignored is inherited
interrupts.watch()

class Own(BaseException): ...
def own(*_): raise Own
class Thing: ...

def finalised(_):
    os.kill(os.getpid(), signal.SIGTERM)
    [None for _ in range(10**6)]

def logged():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        [None for _ in range(10**6)]
    except BaseException:
        logging.getLogger("pool").error("Exception closing connection", exc_info=True)

with interrupts.ending_orderly():
    if {dagsters!r}: signal.signal(signal.SIGTERM, own)
    if {where!r} == "callback":
        thing = Thing()
        seen = weakref.ref(thing, finalised)
        del thing
    else:
        logged()
    time.sleep(60)
"""


@pytest.mark.parametrize("where", ["callback", "log"])
@pytest.mark.parametrize("dagsters", [False, True], ids=["own handler", "handler of a library"])
def test_an_interruption_that_code_swallows_ends_the_process_without_a_traceback(where: str, dagsters: bool) -> None:
    code = RAISING.format(where=where, dagsters=dagsters)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    assert done.returncode == 128 + 15, done.stderr
    assert (done.stdout, done.stderr) == ("interrupted; run the same command again to go on\n", "")


def test_errors_that_are_no_interruption_are_told_as_before() -> None:
    code = """
import logging
from pipelines.cli import interrupts
interrupts.watch()
class Thing:
    def __del__(self): raise ValueError("lost")
thing = Thing()
del thing
try:
    raise ValueError("logged")
except ValueError:
    logging.getLogger("pool").error("of a library", exc_info=True)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    assert done.returncode == 0
    for word in ("ValueError: lost", "of a library", "ValueError: logged"):
        assert word in done.stderr


INTERRUPTED = """
import os, signal, sys, time
import pipelines.cli.main
from pipelines.cli import interrupts
from pipelines.cli.__main__ import main
{beside}
signal.signal(signal.SIGTERM, signal.SIG_DFL)

def command():
    with interrupts.ending_orderly():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)

pipelines.cli.main.main = command
sys.exit(main())
"""
LIBRARY_THAT_TAKES_LONG_TO_END = """
class Library:
    def __del__(self, sleep=time.sleep): sleep(60)
library = Library()
"""
WRITE_THAT_TAKES_LONG = """
write = os.write
def slow(*given):
    time.sleep(1)
    return write(*given)
os.write = slow
"""


@pytest.mark.parametrize("beside", [LIBRARY_THAT_TAKES_LONG_TO_END, WRITE_THAT_TAKES_LONG], ids=["library", "write"])
def test_the_command_ends_soon_and_not_before_its_line_is_out(beside: str) -> None:
    code = INTERRUPTED.format(beside=beside)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    assert done.returncode == 128 + 15, done.stderr
    assert (done.stdout, done.stderr) == ("interrupted; run the same command again to go on\n", "")


def test_in_the_background_sigint_is_ignored_and_sigterm_is_not() -> None:
    code = """
import os, signal, time
from pipelines.cli import interrupts
signal.signal(signal.SIGTERM, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.SIG_IGN)
interrupts.watch()
try:
    with interrupts.ending_orderly():
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))  # as Dagster does
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(4)
        print("goes on", flush=True)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
except interrupts.Interrupted as ended:  # as the command does
    interrupts.tell()
    os._exit(ended.status)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    assert done.returncode == 128 + 15, done.stderr
    assert done.stdout == "goes on\ninterrupted; run the same command again to go on\n"


def test_where_sigterm_is_ignored_processes_that_a_step_starts_end_by_it_all_the_same() -> None:
    code = """
import signal, subprocess
from pipelines.cli import interrupts
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGINT, signal.SIG_IGN)
interrupts.watch()
with interrupts.ending_orderly():
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))  # as Dagster does
    follower = subprocess.Popen(["tail", "-F", "/dev/null"])
    follower.terminate()
    assert follower.wait(timeout=20) == -signal.SIGTERM
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr
