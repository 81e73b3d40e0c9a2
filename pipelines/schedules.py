"""What happens by the clock: evaluation, status, and the nightly second look at what is still out of date."""

from collections.abc import Iterator

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from assets.evaluation import leaderboard
from assets.partitions import DATASETS
from pipelines.jobs import PREPARE_GROUPS, evaluate, prepare, status, train
from pipelines.sensors import CHEAP_ASSETS, MODEL_ASSETS, PROFILE_ASSETS

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


def _reconciliation(
    job: UnresolvedAssetJobDefinition, target: dg.AssetSelection, what: str, *, on: bool
) -> dg.ScheduleDefinition:
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
        # They load a part of Dagster that nothing else here needs.
        from dagster._core.definitions.asset_daemon_cursor import AssetDaemonCursor
        from dagster._core.definitions.automation_tick_evaluation_context import AutomationTickEvaluationContext

        requests, _, _ = AutomationTickEvaluationContext(
            evaluation_id=0,
            instance=context.instance,
            asset_graph=context.repository_def.asset_graph,
            cursor=AssetDaemonCursor.empty(),
            materialize_run_tags={},
            observe_run_tags={},
            auto_observe_asset_keys=set(),
            asset_selection=target,
            asset_job_keys=set(),
            emit_backfills=False,
            logger=context.log,
        ).evaluate()
        yield from requests
        if not requests:
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
    _reconciliation(prepare, CHEAP_ASSETS & dg.AssetSelection.groups(*PREPARE_GROUPS), "tables", on=True),
    _reconciliation(prepare, PROFILE_ASSETS, "profiles", on=False),
    _reconciliation(train, MODEL_ASSETS, "models", on=False),
    _reconciliation(evaluate, dg.AssetSelection.assets("leaderboard", "report"), "reports", on=True),
)
