"""Everything Dagster shows, in one object; tests build their own with other resources."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from assets import (
    embeddings,
    evaluation,
    graphs,
    interactions,
    profiles,
    raw,
    recommendations,
    reports,
    status,
    training,
    transport,
)
from assets.checks import graphs as graph_checks
from assets.checks import interactions as interaction_checks
from assets.checks import models as model_checks
from assets.checks import profiles as profile_checks
from assets.checks import raw as raw_checks
from assets.checks import reports as report_checks
from assets.checks import status as status_checks
from assets.checks import transport as transport_checks
from assets.checks.tables import schema_checks
from assets.io_managers import DirectoryIOManager, DocumentIOManager, ParquetIOManager
from assets.resources import DataRoot
from pipelines.automation import follow_inputs
from pipelines.jobs import ALL_JOBS
from pipelines.logs import console_logger
from pipelines.lost_runs import lost_runs
from pipelines.progress import progress_logger
from pipelines.retention import retention, weekly_retention
from pipelines.schedules import ALL_SCHEDULES
from pipelines.sensors import ALL_SENSORS

STAGES = (
    raw, interactions, profiles, embeddings, graphs, transport, training, evaluation, recommendations, reports
)  # fmt: skip
CHECKED_STAGES = (
    raw_checks, interaction_checks, profile_checks, graph_checks, transport_checks, model_checks, report_checks,
    status_checks,
)  # fmt: skip


def build_definitions(overrides: Mapping[str, Any] | None = None) -> dg.Definitions:
    """
    Return the definitions.

    Parameters
    ----------
    overrides
        Resources to put in place of the usual ones, by name; ``data_root`` alone moves everything that is stored.
    """
    data_root = (overrides or {}).get("data_root", DataRoot())
    resources: dict[str, Any] = {
        "data_root": data_root,
        "parquet_io": ParquetIOManager(data_root=data_root),
        "directory_io": DirectoryIOManager(data_root=data_root),
        "document_io": DocumentIOManager(data_root=data_root),
    }
    stages = [
        *follow_inputs(dg.load_assets_from_modules(STAGES)),
        status.pipeline_status_asset(lambda: definitions.resolve_asset_graph()),
    ]
    definitions = dg.Definitions(
        assets=stages,
        asset_checks=[*(check for stage in CHECKED_STAGES for check in stage.CHECKS), *schema_checks(stages)],
        jobs=[*ALL_JOBS, retention],
        schedules=[*ALL_SCHEDULES, weekly_retention],
        sensors=[*ALL_SENSORS, lost_runs],
        loggers={"console": console_logger, "progress": progress_logger},
        resources=resources | dict(overrides or {}),
        executor=dg.in_process_executor,
    )
    return definitions


defs = build_definitions()
