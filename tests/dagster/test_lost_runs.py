"""Runs are lost when, and only when, the process that they recorded has ended; they end as they were to end."""

import os
import socket
import subprocess
import sys
import time
from typing import Any

import dagster as dg
import pytest
from dagster._core.events import EngineEventData
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteRepositoryOrigin
from dagster._core.storage.tags import GRPC_INFO_TAG, TagType, get_tag_type
from dagster._core.test_utils import create_run_for_test

from pipelines.lost_runs import PROCESS_TAG, end_lost_runs, lost_runs, process_is_gone, process_tag


def _run_in_process(
    instance: dg.DagsterInstance, pid: int, status: dg.DagsterRunStatus = dg.DagsterRunStatus.STARTED, **more: Any
) -> dg.DagsterRun:
    run = create_run_for_test(instance, status=status, **more)
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


def _dead_pid() -> int:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def test_the_sensor_ends_lost_runs_as_failed_or_as_cancelled_where_that_was_asked_for(
    instance: dg.DagsterInstance,
) -> None:
    location = RegisteredCodeLocationOrigin("pipelines.definitions")
    job = RemoteRepositoryOrigin(location, "__repository__").get_job_origin("train")
    started, cancelling, alive = (
        _run_in_process(instance, pid, status, tags={GRPC_INFO_TAG: "{}"}, remote_job_origin=job)
        for pid, status in (
            (_dead_pid(), dg.DagsterRunStatus.STARTED),
            (_dead_pid(), dg.DagsterRunStatus.CANCELING),
            (os.getpid(), dg.DagsterRunStatus.CANCELING),
        )
    )
    lost_runs(dg.SensorEvaluationContext(instance_ref=None, instance=instance, code_location_origin=location))
    statuses = [instance.get_run_by_id(run.run_id).status for run in (started, cancelling, alive)]
    assert statuses == [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED, dg.DagsterRunStatus.CANCELING]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.FAILURE),
        (dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.FAILURE),
        (dg.DagsterRunStatus.CANCELING, dg.DagsterRunStatus.CANCELED),
    ],
)
def test_the_next_command_ends_the_runs_of_a_killed_one(
    instance: dg.DagsterInstance, before: dg.DagsterRunStatus, after: dg.DagsterRunStatus
) -> None:
    dead = {PROCESS_TAG: f"{socket.gethostname()} {_dead_pid()} {time.time():.0f}"}
    lost = create_run_for_test(instance, status=before, tags=dead)
    others = [create_run_for_test(instance, status=before, tags=tags) for tags in (process_tag(), {})]
    assert end_lost_runs(instance) == [lost.run_id]
    assert instance.get_run_by_id(lost.run_id).status == after
    assert all(instance.get_run_by_id(run.run_id).status == before for run in others)


def test_the_tag_with_the_process_is_not_shown_among_those_of_a_run() -> None:
    assert [get_tag_type(tag) for tag in process_tag()] == [TagType.HIDDEN]
