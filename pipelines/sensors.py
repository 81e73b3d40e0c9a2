"""What watches: the raw files, the inputs of every stage, and runs that fail."""

import json

import dagster as dg

from assets.raw import last_manifest, raw_dumps, usual_folder
from assets.support.failures import failure_of_step
from assets.support.partitions import DATASETS
from assets.support.resources import DataRoot
from assets.support.stage import JOB, POOL, STUDY_JOB
from recmodels.catalogue.entries import load_catalogue
from recmodels.data.raw_files import stat_fingerprint

PROFILE_ASSETS = dg.AssetSelection.tag(POOL, "llm")
TABLE_ASSETS = dg.AssetSelection.tag(JOB, "prepare") - PROFILE_ASSETS
REPORT_ASSETS = dg.AssetSelection.tag(JOB, "evaluate")
STUDY_ASSETS = dg.AssetSelection.tag(JOB, STUDY_JOB)
MODEL_ASSETS = dg.AssetSelection.tag(JOB, "train")
TUNING_ASSETS = dg.AssetSelection.tag(JOB, "tune")

TICK_SECONDS = 30


@dg.sensor(
    target=[raw_dumps],
    minimum_interval_seconds=TICK_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Watches sizes and dates of the raw files and has those of a data set verified again when they change. A "
        "change counts once it has stood still from one look to the next, so that files may be copied at leisure."
    ),
)
def raw_files(context: dg.SensorEvaluationContext, data_root: DataRoot) -> dg.SensorResult:
    """Request `raw_dumps` of the data sets whose files are not those of the last manifest."""
    before: dict[str, dict[str, str]] = json.loads(context.cursor or "{}")
    now: dict[str, dict[str, str]] = {}
    changed: list[str] = []
    for dataset, entry in load_catalogue().items():
        if not DATASETS.has_partition_key(dataset):
            continue
        manifest = last_manifest(context.instance, data_root, dataset)
        fingerprint = stat_fingerprint(entry, usual_folder(data_root, dataset, manifest))
        known = before.get(dataset, {})
        if fingerprint is None or (manifest is not None and fingerprint == manifest.fingerprint):
            continue
        if known.get("seen") == fingerprint and known.get("requested") != fingerprint:
            changed.append(dataset)
            now[dataset] = {"seen": fingerprint, "requested": fingerprint}
        else:
            now[dataset] = {**known, "seen": fingerprint}
    return dg.SensorResult(
        run_requests=[dg.RunRequest(asset_selection=[raw_dumps.key], partition_key=dataset) for dataset in changed],
        cursor=json.dumps(now, sort_keys=True),
    )


def _automation(
    name: str, target: dg.AssetSelection, description: str, *, on: bool
) -> dg.AutomationConditionSensorDefinition:
    return dg.AutomationConditionSensorDefinition(
        name,
        target=target,
        description=description,
        minimum_interval_seconds=TICK_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING if on else dg.DefaultSensorStatus.STOPPED,
        # One run a partition, and evaluation where the conditions are defined: the daemon knows only Dagster's own.
        emit_backfills=False,
        use_user_code_server=True,
    )


cheap_automation = _automation(
    "automate_preparation",
    TABLE_ASSETS | REPORT_ASSETS | STUDY_ASSETS,
    "Keeps tables, embeddings, graphs, the augmented training set, the leaderboard and the report up to date, and the "
    "tables of studies that were made before.",
    on=True,
)
profile_automation = _automation(
    "automate_profiles",
    PROFILE_ASSETS,
    "Writes profiles again when items, reviews or the split change. Off until somebody turns it on: a language model "
    "may cost hours or money. While it is off, what reads profiles waits for a run by hand.",
    on=False,
)
model_automation = _automation(
    "automate_training",
    MODEL_ASSETS | TUNING_ASSETS,
    "Trains again the models and seeds that were trained before, when what they read changes, evaluates them, and "
    "repeats searches for settings. Off until somebody turns it on: training may take hours.",
    on=False,
)


@dg.run_failure_sensor(
    name="report_failures",
    minimum_interval_seconds=TICK_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Logs one line for each failed run: what failed, for which partition, and why.",
)
def report_failures(context: dg.RunFailureSensorContext) -> None:
    """Log the failure of a run in one line."""
    context.log.error(failure_line(context))


def failure_line(context: dg.RunFailureSensorContext) -> str:
    """Return what failed, for which partition and why, in one line."""
    run = context.dagster_run
    reasons = [failure_of_step(event) for event in context.get_step_failure_events()]
    why = "; ".join(reasons) or " ".join((context.failure_event.message or "no step failed").split())
    return f"run {run.run_id[:8]} of {run.tags.get('dagster/partition', run.job_name)} failed: {why}"


ALL_SENSORS = (raw_files, cheap_automation, profile_automation, model_automation, report_failures)
