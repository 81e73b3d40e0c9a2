"""
Runs that nobody would end: the process that executed them is gone, and so is whatever would have noticed.

Runs of the command line are ended by the next command, those of a code server by a sensor.
"""

import socket

import dagster as dg
import psutil

from assets.support.dagster_internals import GRPC_INFO_TAG, free_pool_slots, started_process
from recmodels.io.processes import has_ended

PROCESS_TAG = "recmodels/process"
UNFINISHED = (dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING)
"""States of a run that has a process."""


def process_tag() -> dict[str, str]:
    """Return the tag of a run that this process executes itself, by which `end_lost_runs` knows it again."""
    process = psutil.Process()
    return {PROCESS_TAG: f"{socket.gethostname()} {process.pid} {process.create_time():.0f}"}


def end_lost_runs(instance: dg.DagsterInstance) -> list[str]:
    """
    Mark the runs failed whose command line is gone, free what they hold in the pools, and return their ids.

    A killed process cannot say that its run is over, and no daemon watches runs of the command line: without this the
    next run would wait for its pool slot for ever.
    """
    unfinished = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTING, *UNFINISHED]))
    lost = [run for run in unfinished if _command_is_gone(run.tags.get(PROCESS_TAG))]
    for run in lost:
        _end(instance, run, "The process that executed this run was killed.")
        free_pool_slots(instance, run.run_id)
    return [run.run_id for run in lost]


@dg.sensor(
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Marks runs failed whose process was killed together with the code server, or cancelled if that was asked for, "
        "so that they can be executed again and give back what they hold in the pools. Runs that outlived their code "
        "server go on."
    ),
)
def lost_runs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Mark the lost runs of this code location as ended; sensors are evaluated beside the processes of the runs."""
    origin = context.code_location_origin
    lost = [
        run
        for run in context.instance.get_runs(dg.RunsFilter(statuses=list(UNFINISHED)))
        if GRPC_INFO_TAG in run.tags
        and origin is not None
        and run.remote_job_origin is not None
        and run.remote_job_origin.location_name == origin.location_name
        and process_is_gone(context.instance, run)
    ]
    for run in lost:
        context.log.error(f"run {run.run_id[:8]} of {run.tags.get('dagster/partition', run.job_name)} lost its process")
        told = "The process of this run is gone: it was killed together with its code server. Re-execute from failure."
        _end(context.instance, run, told)
    return dg.SkipReason(f"{len(lost)} runs had lost their process.")


def process_is_gone(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Tell whether the process that a run said it started in has ended."""
    for event in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT):
        if pid := started_process(event):
            return has_ended(pid, event.timestamp)
    return False


def _command_is_gone(process: str | None) -> bool:
    host, pid, created = process.split() if process else ("", "", "")
    return host == socket.gethostname() and has_ended(int(pid), float(created))


def _end(instance: dg.DagsterInstance, run: dg.DagsterRun, message: str) -> None:
    """Say that a run has ended of which there is no process any more: cancelled if that was asked for, else failed."""
    if run.status == dg.DagsterRunStatus.CANCELING:
        instance.report_run_canceled(run, message)
    else:
        instance.report_run_failed(run, message)
