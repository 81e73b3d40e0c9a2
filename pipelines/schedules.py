"""What happens by the clock: evaluation, status, and the nightly second look at what is still out of date."""

from collections.abc import Iterator

import dagster as dg

from assets.evaluation import leaderboard
from assets.support.dagster_internals import AssetJob
from assets.support.partitions import DATASETS
from assets.support.staleness import survey
from pipelines.jobs import evaluate, prepare, status, train
from pipelines.sensors import MODEL_ASSETS, PROFILE_ASSETS, REPORT_ASSETS, TABLE_ASSETS

WEEKLY = "0 5 * * 1"
NIGHTLY = "0 3 * * *"
HOURLY = "0 * * * *"


@dg.schedule(
    job=evaluate,
    cron_schedule=WEEKLY,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Leaderboard and report of every data set that has a leaderboard, on Monday mornings.",
)
def weekly_evaluation(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """Request the job `evaluate` of the data sets that were evaluated before."""
    made = context.instance.get_materialized_partitions(leaderboard.key)
    known = [dataset for dataset in DATASETS.get_partition_keys() if dataset in made]
    for dataset in known:
        yield dg.RunRequest(partition_key=dataset, run_key=f"{dataset} {context.scheduled_execution_time:%Y-%m-%d}")
    if not known:
        yield dg.SkipReason("No data set has a leaderboard yet: run the jobs prepare, train and evaluate once.")


def _reconciliation(job: AssetJob, target: dg.AssetSelection, what: str, *, on: bool) -> dg.ScheduleDefinition:
    @dg.schedule(
        name=f"reconcile_{what}",
        job=job,
        cron_schedule=NIGHTLY,
        default_status=dg.DefaultScheduleStatus.RUNNING if on else dg.DefaultScheduleStatus.STOPPED,
        description=(
            f"Every night, asks once more for the {what} that are out of date although they were asked for before: a "
            "run failed, was cancelled or was lost. The rule is that of the automation sensors, without their memory."
        ),
    )
    def reconcile(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        graph = context.repository_def.asset_graph
        found = survey(context.instance, graph)
        wanted: dict[str, set[dg.AssetKey]] = {}
        for key in target.resolve(graph):
            for partition in found.ready(key):
                # What is made together is asked for together.
                wanted.setdefault(partition, set()).update(graph.get(key).execution_set_asset_keys)
        for partition, keys in sorted(wanted.items()):
            yield dg.RunRequest(partition_key=partition, asset_selection=sorted(keys))
        if not wanted:
            yield dg.SkipReason("Everything is up to date, is being made, or waits for something that is.")

    return reconcile


hourly_status = dg.ScheduleDefinition(
    name="hourly_status",
    job=status,
    cron_schedule=HOURLY,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Looks up what is stale, failed or missing. Reads the event log alone and starts nothing.",
)

ALL_SCHEDULES = (
    weekly_evaluation,
    hourly_status,
    _reconciliation(prepare, TABLE_ASSETS, "tables", on=True),
    _reconciliation(prepare, PROFILE_ASSETS, "profiles", on=False),
    _reconciliation(train, MODEL_ASSETS, "models", on=False),
    _reconciliation(evaluate, REPORT_ASSETS, "reports", on=True),
)
