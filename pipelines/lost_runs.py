"""Runs that nobody would end: their process is gone, and so is the code server that would have noticed."""

import dagster as dg

from assets.support.dagster_internals import GRPC_INFO_TAG, started_process
from pipelines.instance import UNFINISHED, report_lost_run
from recmodels.io.processes import has_ended

PROCESS_GONE = (
    "The process of this run is gone: it was killed together with its code server. Re-execute the run from failure."
)


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
        report_lost_run(context.instance, run, PROCESS_GONE)
    return dg.SkipReason(f"{len(lost)} runs had lost their process.")


def process_is_gone(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Tell whether the process that a run said it started in has ended."""
    for event in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT):
        if pid := started_process(event):
            return has_ended(pid, event.timestamp)
    return False
