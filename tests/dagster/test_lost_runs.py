"""Runs are lost when, and only when, the process that they recorded has ended."""

import os
import subprocess
import sys

import dagster as dg
from dagster._core.events import EngineEventData
from dagster._core.test_utils import create_run_for_test

from pipelines.lost_runs import process_is_gone


def _run_in_process(instance: dg.DagsterInstance, pid: int) -> dg.DagsterRun:
    run = create_run_for_test(instance, status=dg.DagsterRunStatus.STARTED)
    instance.report_engine_event(f"Started process for run (pid: {pid}).", run, EngineEventData.in_process(pid))
    return run


def test_a_run_whose_process_was_killed_is_lost_and_one_whose_process_lives_is_not(
    instance: dg.DagsterInstance,
) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    run = _run_in_process(instance, child.pid)
    assert not process_is_gone(instance, run)
    child.kill()
    child.communicate()
    assert process_is_gone(instance, run)
    assert not process_is_gone(instance, _run_in_process(instance, os.getpid()))


def test_a_run_that_recorded_no_process_is_left_to_the_timeout_of_its_start(instance: dg.DagsterInstance) -> None:
    assert not process_is_gone(instance, create_run_for_test(instance, status=dg.DagsterRunStatus.STARTED))
