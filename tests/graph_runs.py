"""Jobs of the asset graph executed in the test's own process, and what came of them."""

from collections.abc import Callable, Mapping
from typing import Any

import dagster as dg
import polars as pl

from assets.support.io_managers import recorded_path
from assets.support.resources import DataRoot
from pipelines.definitions import build_definitions

Run = Callable[..., dg.ExecuteInProcessResult]


def runner(data_root: DataRoot, instance: dg.DagsterInstance) -> Run:
    """Return a function that executes a job in this process and returns its result, failed or not."""
    definitions = build_definitions({"data_root": data_root})

    def execute(
        job: str,
        partition: str | Mapping[str, str] = "demo",
        *,
        assets: list[dg.AssetKey] | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> dg.ExecuteInProcessResult:
        return definitions.resolve_job_def(job).execute_in_process(
            run_config=dg.RunConfig(ops=dict(config or {}), loggers={"progress": {}}),
            instance=instance,
            partition_key=partition if isinstance(partition, str) else dg.MultiPartitionKey(partition),
            asset_selection=assets,
            raise_on_error=False,
        )

    return execute


def stored_table(instance: dg.DagsterInstance, data_root: DataRoot, asset: str, partition: str | None) -> pl.DataFrame:
    """Return the table that the latest record of an asset names."""
    return pl.read_parquet(recorded_path(instance, data_root, dg.AssetKey(asset.split("/")), partition))


def data_versions(result: dg.ExecuteInProcessResult) -> dict[str, str]:
    """Return the data version of every asset that a run materialised."""
    return {
        event.asset_key.to_user_string(): (event.materialization.tags or {})["dagster/data_version"]
        for event in result.get_asset_materialization_events()
        if event.asset_key is not None
    }


def failure_texts(result: dg.ExecuteInProcessResult) -> list[str]:
    """Return the descriptions of the failed steps."""
    failures = [event.step_failure_data.user_failure_data for event in result.all_events if event.is_step_failure]
    return [failure.description or "" for failure in failures if failure]
