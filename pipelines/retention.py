"""Deleting superseded checkpoints: a job, and a weekly schedule that is off until somebody starts it."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
from pydantic import Field

from assets.io_managers import STORED_AT
from assets.lineage import latest_materialization, latest_materializations
from assets.resources import DataRoot
from recmodels.storage import safe_join
from recmodels.training.retention import (
    finish_removals,
    remove_checkpoint,
    stored_checkpoints,
    superseded_checkpoints,
)

RECORDS_READ = 1000
"""Newest records of a model, data set and seed that tell the order of its checkpoints."""
DELETED = dg.TableSchema(
    [
        dg.TableColumn("checkpoint", "string"),
        dg.TableColumn("written", "string"),
        dg.TableColumn("megabytes", "float"),
    ]
)


class RetentionConfig(dg.Config):
    """How long superseded checkpoints stay."""

    keep_days: float = Field(default=30.0, ge=1.0)
    """Days since a newer checkpoint of the same model, data set and seed replaced it. At least 1, so that no run in
    progress loses what it reads."""

    dry_run: bool = False
    """Report what would be deleted, and delete nothing."""


@dg.op(out=dg.Out(dg.Nothing))
def delete_superseded_checkpoints(
    context: dg.OpExecutionContext, config: RetentionConfig, data_root: DataRoot
) -> dg.Output[None]:
    """
    Delete checkpoints that are neither current, nor what a current result was made from, nor recently replaced.

    A model, data set and seed without a record in this instance, or whose current checkpoint is gone, is left alone.
    """
    latest = list(_latest_records(context.instance))
    in_use = {version for record in latest for version in _versions_read(record)}
    rows: list[dg.TableRecord] = []
    freed = 0
    for record in latest:
        recorded = _recorded_directories(context.instance, data_root, record)
        if not recorded:
            continue
        current = recorded[-1]
        if not current.is_dir():
            context.log.warning(f"{current}, which the latest record names, is gone: nothing beside it is deleted")
            continue
        if not config.dry_run:
            finish_removals(current.parent)
        for checkpoint in superseded_checkpoints(
            stored_checkpoints(current.parent),
            recorded=recorded,
            versions_in_use=in_use,
            now=datetime.now(UTC),
            keep_days=config.keep_days,
        ):
            name, size = checkpoint.path.relative_to(data_root.root).as_posix(), checkpoint.size_bytes()
            if not config.dry_run:
                remove_checkpoint(checkpoint)
            context.log.info(f"{'would delete' if config.dry_run else 'deleted'} {name} ({size / 1e6:,.1f} MB)")
            freed += size
            rows.append(
                dg.TableRecord(
                    {"checkpoint": name, "written": checkpoint.written.isoformat(), "megabytes": round(size / 1e6, 1)}
                )
            )
    return dg.Output(
        None,
        metadata={
            "dry_run": config.dry_run,
            "deleted": dg.MetadataValue.table(rows, schema=DELETED),
            "megabytes": round(freed / 1e6, 1),
        },
    )


def _latest_records(instance: dg.DagsterInstance) -> Iterator[dg.AssetMaterialization]:
    """Yield the latest record of every partition of every asset, also of those that no longer are in the graph."""
    for key in instance.all_asset_keys():
        for partition in sorted(instance.get_materialized_partitions(key)):
            if record := latest_materialization(instance, key, partition):
                yield record


def _recorded_directories(
    instance: dg.DagsterInstance, data_root: DataRoot, latest: dg.AssetMaterialization
) -> list[Path]:
    """Return the directories that the records of a partition name, in the order of the records; none for tables."""
    if STORED_AT not in latest.metadata or latest.partition is None:
        return []
    records = latest_materializations(instance, latest.asset_key, latest.partition, RECORDS_READ)
    names = [str(record.metadata[STORED_AT].value) for record in reversed(records) if STORED_AT in record.metadata]
    return [safe_join(data_root.root, *name.split("/")) for name in names]


def _versions_read(record: dg.AssetMaterialization) -> list[str]:
    read = record.metadata.get("read")
    value = read.value if isinstance(read, dg.JsonMetadataValue) else None
    return [str(version) for version in value.values()] if isinstance(value, dict) else []


@dg.job(
    description="Deletes checkpoints that newer ones replaced long ago; never a current one, nor one that a current "
    "result was made from.",
)
def checkpoint_retention() -> None:
    """Delete superseded checkpoints."""
    delete_superseded_checkpoints()


weekly_checkpoint_retention = dg.ScheduleDefinition(
    name="weekly_checkpoint_retention",
    job=checkpoint_retention,
    cron_schedule="30 4 * * 0",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="Sunday night. Off until it is started: it deletes files.",
)
