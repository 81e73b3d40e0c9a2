"""
What every materialisation records: rows, columns, a preview, its data version, and what it was made from.

That is the versions of what it read, the settings that held, and the digest of the split.
"""

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import dagster as dg
import polars as pl

from assets.support.partitions import dataset_of, entry_of
from assets.support.stage import declaration
from recmodels.catalogue.entries import DatasetEntry
from recmodels.io.digest import frame_digest
from recmodels.reporting.tables import shortened
from recmodels.schemas.tables import column_descriptions
from recmodels.settings import Settings

PREVIEW_ROWS = 5
PREVIEW_CHARACTERS = 120
WIDEST_PREVIEW = 6
"""Columns that the user interface has room for; of a table with more, they stand one below the other."""
ROWS_ACROSS = 2
LONGEST_WORD = 18
"""Of a preview, in characters: the interface breaks lines between words alone."""
SPLIT_DIGEST = "split_digest"
CONSOLE = "console"
"""Metadata entry with a line for people, which the progress display of a run prints below the asset's own."""
SETTINGS = "settings"
"""Metadata entry with the settings that the catalogue gave, resolved, by dotted name."""
OVERRIDES = "overrides"
"""Metadata entry with the settings that the run had in place of the catalogue's."""
SETTINGS_DIGEST = "settings_digest"
"""Metadata entry with the digest of the settings that held."""


def materialized(
    context: dg.AssetExecutionContext,
    value: Any,
    *,
    data_version: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    key: dg.AssetKey | None = None,
    inputs: Sequence[dg.AssetMaterialization] | None = None,
    split: str | None = None,
    entry: DatasetEntry | None = None,
    used: Settings | None = None,
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
    inputs
        The records of what was read, of an asset that has looked them up; else they are looked up here.
    split
        Digest of the split that this was made from; by default what its inputs recorded.
    entry, used
        The catalogue's entry as it was read, and the settings of this run, where they may differ from the catalogue's.
    """
    entries: dict[str, Any] = {}
    if isinstance(value, pl.DataFrame):
        data_version = data_version or frame_digest(value)
        entries |= table_metadata(value, (key or context.asset_key).path[0])
    if data_version is None:
        raise ValueError("a data version must be given for anything that is not a table")
    inputs = records_read(context) if inputs is None else inputs
    entries["data_version"] = data_version
    entries["read"] = dg.MetadataValue.json(versions_read(context, inputs))
    if split := split or split_of(inputs):
        entries[SPLIT_DIGEST] = split
    if asset := declaration(key or context.asset_key):
        declared = asset.settings(entry or entry_of(context.partition_key))
        entries |= settings_metadata(declared, used or declared)
    return dg.MaterializeResult(
        asset_key=key, value=value, data_version=dg.DataVersion(data_version), metadata={**(metadata or {}), **entries}
    )


def settings_metadata(declared: Settings, used: Settings) -> dict[str, Any]:
    """Return the entries about settings: the catalogue's, those a run had in their place, and a digest of what held."""
    entries: dict[str, Any] = {
        SETTINGS: dg.MetadataValue.json(dict(declared.values)),
        SETTINGS_DIGEST: used.digest,
    }
    if overrides := used.overrides(declared):
        entries[OVERRIDES] = dg.MetadataValue.json(overrides)
    return entries


def recorded_json(record: dg.AssetMaterialization, entry: str, *, optional: bool = False) -> dict[str, Any]:
    """Return a JSON entry of a record's metadata; nothing where it has none and it is optional, else KeyError."""
    if optional and entry not in record.metadata:
        return {}
    value: Any = record.metadata[entry].value
    return dict(value)


def settings_held(record: dg.AssetMaterialization) -> dict[str, Any]:
    """Return the settings by name that something was made with, those of the run included."""
    return recorded_json(record, SETTINGS) | recorded_json(record, OVERRIDES, optional=True)


def table_metadata(frame: pl.DataFrame, table: str) -> dict[str, Any]:
    """
    Return row count, column schema and a short preview; embedding columns are left out of the preview.

    Parameters
    ----------
    frame
        The table.
    table
        Its name in `recmodels.schemas.tables.TABLES`, whose descriptions of the columns are shown.
    """
    described = column_descriptions(table)
    columns = [dg.TableColumn(name, _type(dtype), described.get(name)) for name, dtype in frame.schema.items()]
    shown = [name for name, dtype in frame.schema.items() if not isinstance(dtype, pl.Array)]
    entries: dict[str, Any] = {
        "dagster/row_count": dg.MetadataValue.int(frame.height),
        "dagster/column_schema": dg.TableSchema(columns=columns),
    }
    if frame.height:
        entries["preview"] = _preview(frame.select(shown))
    return entries


def _preview(frame: pl.DataFrame) -> dg.TableMetadataValue:
    if frame.width <= WIDEST_PREVIEW:
        return inline_table(frame.head(PREVIEW_ROWS))
    rows = {
        f"row {place}": [re.sub(rf"(\S{{{LONGEST_WORD - 1}}})\S{{2,}}", r"\1…", _cell(value)) for value in row]
        for place, row in enumerate(frame.head(ROWS_ACROSS).iter_rows())
    }
    return inline_table(pl.DataFrame({"column": frame.columns, **rows}))


def inline_table(frame: pl.DataFrame, characters: int = PREVIEW_CHARACTERS) -> dg.TableMetadataValue:
    """Return a small table that the user interface shows in place, as plain text; longer cells are cut."""
    rows = (
        {name: shortened(_cell(value), characters) for name, value in row.items()}
        for row in frame.iter_rows(named=True)
    )
    schema = dg.TableSchema(columns=[dg.TableColumn(name, "string") for name in frame.columns])
    return dg.MetadataValue.table([dg.TableRecord(row) for row in rows], schema)


def _cell(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _type(dtype: pl.DataType) -> str:
    return f"one of {', '.join(dtype.categories)}" if isinstance(dtype, pl.Enum) else str(dtype)


def inline_image(png: bytes) -> dg.MarkdownMetadataValue:
    """Return a small picture that the user interface shows in place."""
    return dg.MetadataValue.md(f"![](data:image/png;base64,{base64.b64encode(png).decode('ascii')})")


def records_read(context: dg.AssetExecutionContext) -> list[dg.AssetMaterialization]:
    """Return the newest record of every partition of everything that the running asset depends on."""
    return [event.asset_materialization for event in events_read(context) if event.asset_materialization]


def events_read(context: dg.AssetExecutionContext) -> list[dg.EventLogRecord]:
    """Return the same records with the times at which they were made."""
    inputs = sorted(context.assets_def.keys_by_input_name.items())
    # Of hundreds of models few were trained: those without any record are left out with one question.
    assets = context.instance.get_asset_records([key for _, key in inputs])
    made = {asset.asset_entry.asset_key for asset in assets if asset.asset_entry.last_materialization_record}
    return [
        event
        for input_name, key in inputs
        if key in made
        for partition_key in sorted(context.asset_partition_keys_for_input(input_name))
        for event in _latest_events(context.instance, key, partition_key, 1)
    ]


def versions_read(context: dg.AssetExecutionContext, records: Iterable[dg.AssetMaterialization]) -> dict[str, str]:
    """Return the data versions of records read, by ``asset``, or ``asset[partition]`` where there is a choice."""
    own = context.partition_key
    versions: dict[str, str] = {}
    for record in records:
        name = record.asset_key.to_user_string()
        implied = record.partition in (own, dataset_of(own))
        versions[name if implied else f"{name}[{record.partition}]"] = (record.tags or {})["dagster/data_version"]
    return versions


def split_of(records: Iterable[dg.AssetMaterialization]) -> str | None:
    """Return the digest of the split that records tell of; None where they tell of none, or of several."""
    found = {str(record.metadata[SPLIT_DIGEST].value) for record in records if SPLIT_DIGEST in record.metadata}
    return found.pop() if len(found) == 1 else None


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
    events = _latest_events(instance, key, partition_key, limit)
    return [event.asset_materialization for event in events if event.asset_materialization]


def _latest_events(
    instance: dg.DagsterInstance, key: dg.AssetKey, partition_key: str | None, limit: int
) -> Sequence[dg.EventLogRecord]:
    found = instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=key, asset_partitions=None if partition_key is None else [partition_key]),
        limit=limit,
    )
    return found.records
