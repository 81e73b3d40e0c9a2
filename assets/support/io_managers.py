"""
How assets are stored: tables as Parquet, large ones in parts, checkpoints as directories, documents as single files.

Every write is whole or absent and has a name of its own, which the record of the materialisation tells. So a reader
gets the version that the record speaks of, also while another run stores the next one, and every read checks that it is
still there.
"""

import shutil
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from assets.support.failures import as_dagster_failures
from assets.support.lineage import latest_materialization
from assets.support.resources import DataRoot
from recmodels.errors import MissingObject
from recmodels.io.files import MANIFEST, Content, safe_join, store_by_content
from recmodels.io.tables import PARTS_ABOVE, require_parts, scan_table, store_table
from recmodels.io.tables import read_table as read_stored
from recmodels.schemas.tables import validated_table

LAZY = "lazy"
"""Metadata entry of an input that wants `pl.LazyFrame`; the annotation of a single table says the same."""
STORED_AT = "stored_at"
"""Metadata entry with the path below the data root, so that the whole root can be moved."""
STORED_BYTES = "stored_bytes"
"""Metadata entry with the size of the file, or of all files of a checkpoint or a table in parts."""
MANIFEST_BYTES = "manifest_bytes"
"""Metadata entry with the size of a manifest, of a checkpoint or a table in parts; earlier records of checkpoints have
that as `STORED_BYTES`."""
STORED_SHA256 = "stored_sha256"
"""Metadata entry with the digest of the file, or of the manifest, which has the other digests: what is read later must
still have it."""


def partition_parts(partition_key: str | None) -> list[str]:
    """Return the folder names of a partition: the data set and the seed, where there are any."""
    if isinstance(partition_key, dg.MultiPartitionKey):
        return [partition_key.keys_by_dimension[dimension] for dimension in ("dataset", "seed")]
    return [] if partition_key is None else [partition_key]


def stored_folder(root: Path, kind: str, key: dg.AssetKey, partition_key: str | None) -> Path:
    """Return the folder ``<root>/<kind>/<asset>[/<data set>[/<seed>]]`` of a partition, which cannot leave the root."""
    return safe_join(root, kind, *key.path, *partition_parts(partition_key))


def recorded_path(
    instance: dg.DagsterInstance, data_root: DataRoot, key: dg.AssetKey, partition_key: str | None
) -> Path:
    """
    Return the file or directory that the latest record of an asset's partition names.

    Raises MissingObject if there is no record, or what it names is gone or holds anything else.
    """
    record = latest_materialization(instance, key, partition_key)
    name = " of ".join([key.to_user_string(), "/".join(partition_parts(partition_key))]).removesuffix(" of ")
    if record is None:
        of = "".join(f", as `recmodels run --dataset {dataset}` does" for dataset in partition_parts(partition_key)[:1])
        raise MissingObject(f"{name} was never materialised: materialise it first{of}.")
    if STORED_AT not in record.metadata:
        raise MissingObject(
            f"{name} was stored by an earlier version of recmodels, which did not record where: materialise it again."
        )
    path = safe_join(data_root.root, *str(record.metadata[STORED_AT].value).split("/"))
    again = f"Restore it, or materialise {name} again."
    if not path.exists():
        raise MissingObject(f"{path}: expected what the record of {name} names, found nothing. {again}")
    if STORED_SHA256 in record.metadata:
        size = record.metadata.get(MANIFEST_BYTES, record.metadata[STORED_BYTES]).value
        content = Content(int(str(size)), str(record.metadata[STORED_SHA256].value))
        content.require(path / MANIFEST if path.is_dir() else path, again)
        require_parts(path, again)
    return path


def read_table(
    instance: dg.DagsterInstance, data_root: DataRoot, asset: dg.AssetKey | str, partition_key: str | None
) -> pl.DataFrame:
    """
    Return the stored table of one partition, None for an asset without any.

    Raises MissingObject if it is gone, or not the one that its latest record tells of.
    """
    key = dg.AssetKey(asset) if isinstance(asset, str) else asset
    path = recorded_path(instance, data_root, key, partition_key)
    return read_stored(path, f"Restore it, or materialise {key.to_user_string()} again.")


def _stored_metadata(root: Path, path: Path, content: Content | None) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if content is not None:
        found = {STORED_BYTES: dg.MetadataValue.int(content.size), STORED_SHA256: content.sha256}
        if path.is_dir():
            found[MANIFEST_BYTES] = dg.MetadataValue.text(str(content.size))
            found[STORED_BYTES] = dg.MetadataValue.int(sum(f.stat().st_size for f in path.rglob("*") if f.is_file()))
    return {STORED_AT: path.relative_to(root).as_posix(), **found}


def _spans_partitions(context: dg.InputContext) -> bool:
    """Whether the input is a data set's view of something partitioned by data set and seed."""
    own = context.partition_key if context.has_partition_key else ""
    return not isinstance(own, dg.MultiPartitionKey) and any(
        isinstance(key, dg.MultiPartitionKey) for key in context.asset_partition_keys
    )


class _StoredIOManager(dg.ConfigurableIOManager):
    """What tables, documents and checkpoints share: inputs of one or of many partitions, found by their records."""

    data_root: dg.ResourceDependency[DataRoot]

    def _read(self, path: Path, context: dg.InputContext) -> Any:
        raise NotImplementedError

    def load_input(self, context: dg.InputContext) -> Any:
        """
        Return the stored object of the one partition, or a dict of those that exist where the input spans several.

        Fails for good if the partition was never materialised or what was stored is gone or damaged.
        """
        with as_dagster_failures():
            keys, spans = sorted(context.asset_partition_keys), _spans_partitions(context)
            if spans:
                recorded = context.instance.get_materialized_partitions(context.asset_key)
                keys = [key for key in keys if key in recorded]
            found = {
                key: self._read(recorded_path(context.instance, self.data_root, context.asset_key, key), context)
                for key in keys
            }
            return found if spans else found[keys[0]]

    def _store(self, context: dg.OutputContext, kind: str, store: Callable[[Path], tuple[Path, Content]]) -> None:
        partition_key = context.partition_key if context.has_partition_key else None
        root = self.data_root.root
        path, content = store(stored_folder(root, kind, context.asset_key, partition_key))
        context.add_output_metadata(_stored_metadata(root, path, content))


class ParquetIOManager(_StoredIOManager):
    """Tables: polars frames or lazy frames in and out."""

    parts_above: int = PARTS_ABOVE
    """Rows above which a table is stored as a folder of parts of at most so many rows."""

    def _read(self, path: Path, context: dg.InputContext) -> pl.DataFrame | pl.LazyFrame:
        lazy = (context.definition_metadata or {}).get(LAZY) or context.dagster_type.typing_type is pl.LazyFrame
        return (scan_table if lazy else read_stored)(path, "Materialise its asset again.")

    def handle_output(self, context: dg.OutputContext, obj: pl.DataFrame | pl.LazyFrame) -> None:
        """Write the table to one Parquet file, or to a folder of them, atomically, under the name of its content."""
        with as_dagster_failures():
            frame = validated_table(context.asset_key.path[0], obj.collect() if isinstance(obj, pl.LazyFrame) else obj)
            self._store(context, "tables", lambda folder: store_table(folder, frame, parts_above=self.parts_above))


class DocumentIOManager(_StoredIOManager):
    """Documents: text in, one UTF-8 file with the suffix named in the asset's metadata."""

    def _read(self, path: Path, context: dg.InputContext) -> str:
        return path.read_text(encoding="utf-8")

    def handle_output(self, context: dg.OutputContext, obj: str) -> None:
        """Write the text to its file, atomically, under the name of its content."""
        with as_dagster_failures():
            suffix = context.definition_metadata["suffix"]
            write = partial(Path.write_text, data=obj, encoding="utf-8")
            self._store(context, "documents", lambda folder: store_by_content(folder, suffix, write))


def staging_directory(data_root: DataRoot, run_id: str) -> Path:
    """Return a path, not yet there, for a directory that `DirectoryIOManager` will move to its place."""
    return safe_join(data_root.staging, run_id, uuid.uuid4().hex)


class DirectoryIOManager(_StoredIOManager):
    """
    Checkpoints: a finished staging directory in, moved to ``checkpoints/<asset>/<data set>/<seed>/<run id>``.

    A new run never overwrites an older checkpoint; reading goes to the one that the latest record names.
    """

    def _read(self, path: Path, context: dg.InputContext) -> Path:
        return path

    def handle_output(self, context: dg.OutputContext, obj: Path) -> None:
        """Move the directory to its place with one rename (staging lies under the same data root)."""
        root = self.data_root.root
        with as_dagster_failures():
            folder = stored_folder(root, "checkpoints", context.asset_key, context.partition_key)
            target = safe_join(folder, context.run_id)
            target.parent.mkdir(parents=True, exist_ok=True)
            manifest = obj / MANIFEST
            content = Content.of(manifest) if manifest.exists() else None
            if target.exists():  # a retried step of the same run
                shutil.rmtree(target)
            obj.rename(target)
            if not any(obj.parent.iterdir()):
                obj.parent.rmdir()
        context.add_output_metadata(_stored_metadata(root, target, content))
