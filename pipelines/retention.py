"""Deleting superseded tables, documents and checkpoints: a job, and a weekly schedule that somebody has to start."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
from pydantic import Field

from assets.support.dagster_internals import DATA_VERSION_TAG
from assets.support.io_managers import STORED_AT
from assets.support.lineage import latest_materialization, latest_materializations, recorded_json
from assets.support.resources import DataRoot
from recmodels.io.files import safe_join
from recmodels.io.retention import finish_removals, remove_version, stored_versions, superseded_versions

RECORDS_READ = 1000
"""Newest records of a partition that tell the order of what it has stored."""
COLUMNS = {"stored": "string", "written": "string", "megabytes": "float"}
DELETED = dg.TableSchema([dg.TableColumn(name, kind) for name, kind in COLUMNS.items()])


class RetentionConfig(dg.Config):
    """How long superseded versions stay."""

    keep_days: float = Field(default=30.0, ge=1.0)
    """Days since a newer version of the same partition replaced it. At least 1, so that no run in progress loses what
    it reads."""

    dry_run: bool = False
    """Report what would be deleted, and delete nothing."""


@dg.op(out=dg.Out(dg.Nothing))
def delete_superseded(context: dg.OpExecutionContext, config: RetentionConfig, data_root: DataRoot) -> dg.Output[None]:
    """
    Delete what is neither current, nor what a current result was made from, nor recently replaced.

    A partition without a record in this instance, or whose current version is gone, is left alone.
    """
    latest = list(_latest_records(context.instance))
    in_use = {str(version) for record in latest for version in recorded_json(record, "read", optional=True).values()}
    rows: list[dg.TableRecord] = []
    freed = 0
    for record in latest:
        recorded = _recorded_versions(context.instance, data_root, record)
        if not recorded:
            continue
        current, _ = recorded[-1]
        if not current.exists():
            context.log.warning(f"{current}, which the latest record names, is gone: nothing beside it is deleted")
            continue
        if not config.dry_run:
            finish_removals(current.parent)
        for version in superseded_versions(
            stored_versions(current.parent, dict(recorded)),
            recorded=[path for path, _ in recorded],
            versions_in_use=in_use,
            now=datetime.now(UTC),
            keep_days=config.keep_days,
        ):
            name, size = version.path.relative_to(data_root.root).as_posix(), version.size_bytes()
            if not config.dry_run:
                remove_version(version)
            context.log.info(f"{'would delete' if config.dry_run else 'deleted'} {name} ({size / 1e6:,.1f} MB)")
            freed += size
            values = (name, version.written.isoformat(), round(size / 1e6, 1))
            rows.append(dg.TableRecord(dict(zip(COLUMNS, values, strict=True))))
    deleted = dg.MetadataValue.table(rows, schema=DELETED)
    return dg.Output(None, metadata={"dry_run": config.dry_run, "deleted": deleted, "megabytes": round(freed / 1e6, 1)})


def _latest_records(instance: dg.DagsterInstance) -> Iterator[dg.AssetMaterialization]:
    """Yield the latest record of every partition of every asset, also of those that no longer are in the graph."""
    for key in instance.all_asset_keys():
        for partition in sorted(instance.get_materialized_partitions(key)) or [None]:
            if record := latest_materialization(instance, key, partition):
                yield record


def _recorded_versions(
    instance: dg.DagsterInstance, data_root: DataRoot, latest: dg.AssetMaterialization
) -> list[tuple[Path, str]]:
    """Return what the records of a partition name, with its data version, in the order of the records."""
    if STORED_AT not in latest.metadata:
        return []
    records = latest_materializations(instance, latest.asset_key, latest.partition, RECORDS_READ)
    named = [(str(record.metadata[STORED_AT].value), record) for record in records if STORED_AT in record.metadata]
    return [
        (safe_join(data_root.root, *name.split("/")), (record.tags or {}).get(DATA_VERSION_TAG, ""))
        for name, record in reversed(named)
    ]


@dg.job(
    description="Deletes tables, documents and checkpoints that newer ones replaced long ago; never a current one, nor "
    "one that a current result was made from.",
)
def retention() -> None:
    """Delete superseded versions."""
    delete_superseded()


weekly_retention = dg.ScheduleDefinition(
    name="weekly_retention",
    job=retention,
    cron_schedule="30 4 * * 0",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="Sunday night. Off until it is started: it deletes files.",
)
