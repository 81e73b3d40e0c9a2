"""A process has ended when it is gone, or when a younger one has its number; clocks that go back do not matter."""

import os
import subprocess
import sys
import time

import psutil

from recmodels.io.processes import has_ended


def test_a_process_has_ended_when_it_was_killed_even_if_nobody_asked_for_its_status() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    seen = time.time()
    assert not has_ended(child.pid, seen)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE
    assert has_ended(child.pid, seen)
    child.communicate()
    assert has_ended(child.pid, seen)


def test_a_younger_process_of_the_same_number_is_another_one() -> None:
    started = psutil.Process().create_time()
    assert has_ended(os.getpid(), started - 3600)
    assert not has_ended(os.getpid(), started)


def test_a_clock_that_was_set_back_ends_no_process() -> None:
    assert not has_ended(os.getpid(), time.time() + 365 * 86400)
