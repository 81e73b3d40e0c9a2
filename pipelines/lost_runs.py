"""Runs that nobody would end: their process is gone, and so is the code server that would have noticed."""

import dagster as dg
import psutil
from dagster._core.storage.tags import GRPC_INFO_TAG

CLOCK_TOLERANCE_SECONDS = 2
PROCESS_GONE = (
    "The process of this run is gone: it was killed together with its code server. Re-execute the run from failure."
)


@dg.sensor(
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Marks runs failed whose process was killed together with the code server, so that they can be executed again "
        "and give back what they hold in the pools. Runs that outlived their code server go on."
    ),
)
def lost_runs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Mark the lost runs of this code location failed; sensors are evaluated beside the processes of the runs."""
    origin = context.code_location_origin
    lost = [
        run
        for run in context.instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
        if GRPC_INFO_TAG in run.tags
        and origin is not None
        and run.remote_job_origin is not None
        and run.remote_job_origin.location_name == origin.location_name
        and process_is_gone(context.instance, run)
    ]
    for run in lost:
        context.log.error(f"run {run.run_id[:8]} of {run.tags.get('dagster/partition', run.job_name)} lost its process")
        context.instance.report_run_failed(run, PROCESS_GONE)
    return dg.SkipReason(f"{len(lost)} runs had lost their process.")


def process_is_gone(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Tell whether the process that a run said it started in has ended."""
    events = instance.event_log_storage.get_logs_for_run(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)
    for event in events:
        told = event.dagster_event
        metadata = told.engine_event_data.metadata if told else {}
        if told and (told.message or "").startswith("Started process for run") and "pid" in metadata:
            try:
                process = psutil.Process(int(str(metadata["pid"].value)))
                # A younger process has the number of the one that is gone.
                return process.create_time() > event.timestamp + CLOCK_TOLERANCE_SECONDS
            except psutil.NoSuchProcess:
                return True
    return False
