"""Everything Dagster shows, in one object; tests build their own with other resources."""

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any

import dagster as dg

import assets
from assets.status import pipeline_status_asset
from assets.support.io_managers import DirectoryIOManager, DocumentIOManager, ParquetIOManager
from assets.support.resources import ComputeResource, DataRoot
from assets.support.schema_checks import schema_checks
from pipelines.automation import follow_inputs
from pipelines.jobs import ALL_JOBS
from pipelines.logs import console_logger
from pipelines.lost_runs import lost_runs
from pipelines.progress import progress_logger
from pipelines.retention import retention, weekly_retention
from pipelines.schedules import ALL_SCHEDULES
from pipelines.sensors import ALL_SENSORS

ENTRY_POINTS = "recmodels.assets"
"""Group of the entry points by which an installed package adds assets and checks: each names a module that has some."""


def build_definitions(overrides: Mapping[str, Any] | None = None) -> dg.Definitions:
    """
    Return the definitions.

    `overrides` are resources to put in place of the usual ones; ``data_root`` alone moves everything that is stored.
    """
    data_root = (overrides or {}).get("data_root", DataRoot())
    resources: dict[str, Any] = {
        "data_root": data_root,
        "compute": ComputeResource(),
        "parquet_io": ParquetIOManager(data_root=data_root),
        "directory_io": DirectoryIOManager(data_root=data_root),
        "document_io": DocumentIOManager(data_root=data_root),
    }
    others = [entry.load() for entry in entry_points(group=ENTRY_POINTS)]
    stages = [
        *follow_inputs([*dg.load_assets_from_package_module(assets), *dg.load_assets_from_modules(others)]),
        pipeline_status_asset(lambda: definitions.resolve_asset_graph()),
    ]
    definitions = dg.Definitions(
        assets=stages,
        asset_checks=[
            *dg.load_asset_checks_from_package_module(assets),
            *dg.load_asset_checks_from_modules(others),
            *schema_checks(stages),
        ],
        jobs=[*ALL_JOBS, retention],
        schedules=[*ALL_SCHEDULES, weekly_retention],
        sensors=[*ALL_SENSORS, lost_runs],
        loggers={"console": console_logger, "progress": progress_logger},
        resources=resources | dict(overrides or {}),
        executor=dg.in_process_executor,
    )
    return definitions


defs = build_definitions()
