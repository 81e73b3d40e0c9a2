"""What every materialisation records: rows, columns, a preview, its data version and the versions of what it read."""

import base64
from collections.abc import Mapping
from typing import Any

import dagster as dg
import polars as pl

from assets.partitions import dataset_of
from recmodels.data.digest import digest_of, frame_digest
from recmodels.reporting.tables import shortened

PREVIEW_ROWS = 5
PREVIEW_CHARACTERS = 120
INTERACTIONS_KEY = dg.AssetKey("interactions")
SPLIT_DIGEST = "split_digest"


def materialized(
    context: dg.AssetExecutionContext,
    value: Any,
    *,
    data_version: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    key: dg.AssetKey | None = None,
) -> dg.MaterializeResult[Any]:
    """
    Return the result of an asset with the metadata that all assets share.

    Parameters
    ----------
    value
        What the IO manager stores.
    data_version
        Digest of the content; worked out here if `value` is a table.
    metadata
        What this asset has to say beyond the shared entries, and before them.
    key
        Which asset of a multi-asset this is.
    """
    entries: dict[str, Any] = {}
    if isinstance(value, pl.DataFrame):
        data_version = data_version or frame_digest(value)
        entries |= table_metadata(value)
    if data_version is None:
        raise ValueError("a data version must be given for anything that is not a table")
    entries["data_version"] = data_version
    entries["read"] = dg.MetadataValue.json(versions_read(context))
    digest = recorded_split_digest(context.instance, dataset_of(context.partition_key))
    if digest is not None:
        entries[SPLIT_DIGEST] = digest
    return dg.MaterializeResult(
        asset_key=key, value=value, data_version=dg.DataVersion(data_version), metadata={**(metadata or {}), **entries}
    )


def table_metadata(frame: pl.DataFrame) -> dict[str, Any]:
    """Return row count, column schema and a short preview; embedding columns are left out of the preview."""
    columns = [dg.TableColumn(name, str(dtype)) for name, dtype in frame.schema.items()]
    shown = [name for name, dtype in frame.schema.items() if not isinstance(dtype, pl.Array)]
    entries: dict[str, Any] = {
        "dagster/row_count": dg.MetadataValue.int(frame.height),
        "dagster/column_schema": dg.TableSchema(columns=columns),
    }
    if frame.height:
        entries["preview"] = inline_table(frame.select(shown).head(PREVIEW_ROWS))
    return entries


def inline_table(frame: pl.DataFrame, characters: int = PREVIEW_CHARACTERS) -> dg.TableMetadataValue:
    """Return a small table that the user interface shows in place, as plain text; longer cells are cut."""
    return dg.MetadataValue.table(
        records=[
            dg.TableRecord({name: _short(value, characters) for name, value in row.items()})
            for row in frame.iter_rows(named=True)
        ],
        schema=dg.TableSchema(columns=[dg.TableColumn(name, "string") for name in frame.columns]),
    )


def _short(value: object, characters: int) -> str:
    return shortened(", ".join(map(str, value)) if isinstance(value, list) else str(value), characters)


def inline_image(png: bytes) -> dg.MarkdownMetadataValue:
    """Return a small picture that the user interface shows in place."""
    return dg.MetadataValue.md(f"![](data:image/png;base64,{base64.b64encode(png).decode('ascii')})")


def versions_read(context: dg.AssetExecutionContext) -> dict[str, str]:
    """Return the data version of everything the running asset depends on, by ``asset`` or ``asset[partition]``."""
    versions: dict[str, str] = {}
    for input_name, key in sorted(context.assets_def.keys_by_input_name.items()):
        partition_keys = sorted(context.asset_partition_keys_for_input(input_name))
        for partition_key in partition_keys:
            record = latest_materialization(context.instance, key, partition_key)
            version = record and (record.tags or {}).get("dagster/data_version")
            if version:
                name = key.to_user_string()
                versions[name if len(partition_keys) == 1 else f"{name}[{partition_key}]"] = version
    return versions


def combined_version(context: dg.AssetExecutionContext, *parts: str) -> str:
    """Return a digest of the versions read and of further parts, for results that are not digested by content."""
    read = versions_read(context)
    return digest_of(*(f"{name}={version}" for name, version in read.items()), *parts)


def latest_materialization(
    instance: dg.DagsterInstance, key: dg.AssetKey, partition_key: str | None
) -> dg.AssetMaterialization | None:
    """Return the newest record of one partition of an asset, or of an asset without partitions; None without any."""
    records = latest_materializations(instance, key, partition_key, 1)
    return records[0] if records else None


def latest_materializations(
    instance: dg.DagsterInstance, key: dg.AssetKey, partition_key: str | None, limit: int
) -> list[dg.AssetMaterialization]:
    """Return the newest records of one partition of an asset, the newest first."""
    found = instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=key, asset_partitions=None if partition_key is None else [partition_key]),
        limit=limit,
    )
    return [record.asset_materialization for record in found.records if record.asset_materialization]


def recorded_split_digest(instance: dg.DagsterInstance, dataset: str) -> str | None:
    """Return the digest of the data set's current split, or None before there is one."""
    record = latest_materialization(instance, INTERACTIONS_KEY, dataset)
    value = record and record.metadata.get(SPLIT_DIGEST)
    return str(value.value) if value else None
