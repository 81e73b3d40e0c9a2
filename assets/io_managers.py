"""
How assets are stored: tables as Parquet, checkpoints as directories, documents as single files.

Every write is whole or absent, and every read checks that what the record promises is still there.
"""

import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from assets.failures import clear_failures
from assets.lineage import latest_materialization
from assets.resources import DataRoot
from recmodels.data.schemas import validated_table
from recmodels.errors import MissingObject, TransientFailure
from recmodels.storage import MANIFEST, Content, atomic_file, read_parquet, safe_join

LAZY = "lazy"
"""Metadata entry of an input that wants `pl.LazyFrame`; the annotation of a single table says the same."""
STORED_AT = "stored_at"
"""Metadata entry with a checkpoint's path below the data root, so that the whole root can be moved."""
STORED_BYTES = "stored_bytes"
"""Metadata entry with the size of the file; of a checkpoint, that of its manifest, which has the other digests."""
STORED_SHA256 = "stored_sha256"
"""Metadata entry with the digest of the same file: what is read later must still have it."""


def partition_parts(partition_key: str | None) -> list[str]:
    """Return the folder names of a partition: the data set and the seed, where there are any."""
    if partition_key is None:
        return []
    if isinstance(partition_key, dg.MultiPartitionKey):
        return [partition_key.keys_by_dimension["dataset"], partition_key.keys_by_dimension["seed"]]
    return [partition_key]


def stored_path(root: Path, kind: str, key: dg.AssetKey, partition_key: str | None, suffix: str) -> Path:
    """Return the path ``<root>/<kind>/<asset>[/<data set>[/<seed>]]<suffix>``, which cannot leave the root."""
    *folders, name = [*key.path, *partition_parts(partition_key)]
    return safe_join(root, kind, *folders, name + suffix)


class _FileIOManager(dg.ConfigurableIOManager):
    """What tables and documents share: one file a partition, and inputs of one or of many partitions."""

    data_root: dg.ResourceDependency[DataRoot]

    def _path(self, key: dg.AssetKey, partition_key: str | None, suffix: str) -> Path:
        raise NotImplementedError

    def _read(self, path: Path, context: dg.InputContext) -> Any:
        raise NotImplementedError

    def _suffix(self, context: dg.InputContext) -> str:
        raise NotImplementedError

    def load_input(self, context: dg.InputContext) -> Any:
        """
        Return the stored object of the one partition, or a dict of those that exist where the input spans several.

        Raises
        ------
        dagster.Failure
            Without retries, if the partition was never materialised or its file is gone or damaged.
        """
        with clear_failures():
            spans = _spans_partitions(context)
            recorded = context.instance.get_materialized_partitions(context.asset_key) if spans else set[str]()
            found: dict[str, Any] = {}
            for key in _input_partitions(context):
                path = self._path(context.asset_key, key, self._suffix(context))
                if not spans or key in recorded or path.exists():
                    require_recorded(context.instance, context.asset_key, key, path)
                    found[key] = self._read(path, context)
            return found if spans else next(iter(found.values()))


def require_recorded(instance: dg.DagsterInstance, key: dg.AssetKey, partition_key: str | None, path: Path) -> None:
    """
    Make sure that a file is the one that the latest record of its asset's partition tells of.

    Raises
    ------
    MissingObject
        If it is gone or holds anything else.
    TransientFailure
        If it differs because a run is just replacing it.
    """
    record = latest_materialization(instance, key, partition_key)
    if record is None and not path.exists():
        raise MissingObject(f"{_named(key, partition_key)} is not stored at {path}: materialise it first.")
    expected = _recorded_content(record)
    try:
        if expected is not None:
            expected.require(path, _again(key, partition_key))
        elif not path.exists():
            raise MissingObject(f"{path} is gone. {_again(key, partition_key)}")
    except MissingObject as error:
        if path.exists() and _is_being_replaced(instance, key, partition_key, expected):
            raise TransientFailure(f"{path} is just being replaced by another run. ({error})") from error
        raise


def _recorded_content(record: dg.AssetMaterialization | None) -> Content | None:
    """Return what a record says of its file; None for the records of versions that said nothing."""
    if record is None or STORED_SHA256 not in record.metadata:
        return None
    return Content(int(str(record.metadata[STORED_BYTES].value)), str(record.metadata[STORED_SHA256].value))


def _content_metadata(content: Content) -> dict[str, Any]:
    return {STORED_BYTES: dg.MetadataValue.int(content.size), STORED_SHA256: content.sha256}


def _is_being_replaced(
    instance: dg.DagsterInstance, key: dg.AssetKey, partition_key: str | None, expected: Content | None
) -> bool:
    """Tell whether there is a newer record by now, or a run that has still to write one."""
    if _recorded_content(latest_materialization(instance, key, partition_key)) != expected:
        return True
    storage = instance.event_log_storage
    planned = storage.get_latest_asset_partition_materialization_attempts_without_materializations(key)
    run_id, _ = planned.get(partition_key or "", ("", 0))
    run = instance.get_run_by_id(run_id) if run_id else None
    return run is not None and run.status == dg.DagsterRunStatus.STARTED


def _named(key: dg.AssetKey, partition_key: str | None) -> str:
    return " of ".join([key.to_user_string(), "/".join(partition_parts(partition_key))]).removesuffix(" of ")


def _again(key: dg.AssetKey, partition_key: str | None) -> str:
    return f"Restore it, or materialise {_named(key, partition_key)} again."


def _input_partitions(context: dg.InputContext) -> Sequence[str]:
    return sorted(context.asset_partition_keys)


def _spans_partitions(context: dg.InputContext) -> bool:
    """Whether the input is a data set's view of something partitioned by data set and seed."""
    own = context.partition_key if context.has_partition_key else ""
    return not isinstance(own, dg.MultiPartitionKey) and any(
        isinstance(key, dg.MultiPartitionKey) for key in context.asset_partition_keys
    )


class ParquetIOManager(_FileIOManager):
    """Tables: polars frames or lazy frames in and out."""

    def _path(self, key: dg.AssetKey, partition_key: str | None, suffix: str) -> Path:
        return stored_path(self.data_root.root, "tables", key, partition_key, suffix)

    def _suffix(self, context: dg.InputContext) -> str:
        return ".parquet"

    def _read(self, path: Path, context: dg.InputContext) -> pl.DataFrame | pl.LazyFrame:
        lazy = (context.definition_metadata or {}).get(LAZY) or context.dagster_type.typing_type is pl.LazyFrame
        return pl.scan_parquet(path) if lazy else read_parquet(path, "Materialise its asset again.")

    def handle_output(self, context: dg.OutputContext, obj: pl.DataFrame | pl.LazyFrame) -> None:
        """Write the table to one Parquet file, atomically."""
        partition_key = context.partition_key if context.has_partition_key else None
        path = self._path(context.asset_key, partition_key, ".parquet")
        with clear_failures(), atomic_file(path) as temporary:
            frame = validated_table(context.asset_key.path[0], obj.collect() if isinstance(obj, pl.LazyFrame) else obj)
            frame.write_parquet(temporary, compression="zstd", statistics=True)
            content = Content.of(temporary)
        context.add_output_metadata({"path": dg.MetadataValue.path(str(path)), **_content_metadata(content)})


class DocumentIOManager(_FileIOManager):
    """Documents: text in, one UTF-8 file with the suffix named in the asset's metadata."""

    def _path(self, key: dg.AssetKey, partition_key: str | None, suffix: str) -> Path:
        return stored_path(self.data_root.root, "documents", key, partition_key, suffix)

    def _suffix(self, context: dg.InputContext) -> str:
        return (context.upstream_output.definition_metadata if context.upstream_output else {})["suffix"]

    def _read(self, path: Path, context: dg.InputContext) -> str:
        return path.read_text(encoding="utf-8")

    def handle_output(self, context: dg.OutputContext, obj: str) -> None:
        """Write the text to its file, atomically."""
        path = self._path(context.asset_key, context.partition_key, context.definition_metadata["suffix"])
        with clear_failures(), atomic_file(path) as temporary:
            temporary.write_text(obj, encoding="utf-8")
            content = Content.of(temporary)
        context.add_output_metadata({"path": dg.MetadataValue.path(str(path)), **_content_metadata(content)})


def staging_directory(data_root: DataRoot, run_id: str) -> Path:
    """Return a path, not yet there, for a directory that `DirectoryIOManager` will move to its place."""
    return safe_join(data_root.root, "staging", run_id, uuid.uuid4().hex)


def recorded_directory(instance: dg.DagsterInstance, data_root: DataRoot, key: dg.AssetKey, partition_key: str) -> Path:
    """
    Return the directory that the latest record of an asset's partition names.

    Raises
    ------
    MissingObject
        If there is no record, or what it names is gone or has another manifest.
    """
    materialization = latest_materialization(instance, key, partition_key)
    name = _named(key, partition_key)
    if materialization is None:
        raise MissingObject(f"{name} was never materialised: materialise it first.")
    path = safe_join(data_root.root, *str(materialization.metadata[STORED_AT].value).split("/"))
    if not path.is_dir():
        raise MissingObject(f"{path}, which the record of {name} names, is gone. {_again(key, partition_key)}")
    if expected := _recorded_content(materialization):
        expected.require(path / MANIFEST, _again(key, partition_key))
    return path


class DirectoryIOManager(dg.ConfigurableIOManager):
    """
    Checkpoints: a finished staging directory in, moved to ``checkpoints/<asset>/<data set>/<seed>/<run id>``.

    A new run never overwrites an older checkpoint; reading goes to the one that the latest record names.
    """

    data_root: dg.ResourceDependency[DataRoot]

    def handle_output(self, context: dg.OutputContext, obj: Path) -> None:
        """Move the directory to its place with one rename (staging lies under the same data root)."""
        with clear_failures():
            folder = stored_path(self.data_root.root, "checkpoints", context.asset_key, context.partition_key, "")
            target = safe_join(folder, context.run_id)
            target.parent.mkdir(parents=True, exist_ok=True)
            manifest = obj / MANIFEST
            content = _content_metadata(Content.of(manifest)) if manifest.exists() else {}
            if target.exists():  # a retried step of the same run
                shutil.rmtree(target)
            obj.rename(target)
        context.add_output_metadata(
            {
                "path": dg.MetadataValue.path(str(target)),
                STORED_AT: target.relative_to(self.data_root.root).as_posix(),
                **content,
            }
        )

    def load_input(self, context: dg.InputContext) -> Path | dict[str, Path]:
        """Return the directory (or, over all seeds, directories by partition key) that the latest records name."""
        with clear_failures():
            keys = _input_partitions(context)
            if _spans_partitions(context):
                keys = [key for key in keys if latest_materialization(context.instance, context.asset_key, key)]
            found = {key: recorded_directory(context.instance, self.data_root, context.asset_key, key) for key in keys}
            return found if _spans_partitions(context) else found[keys[0]]
