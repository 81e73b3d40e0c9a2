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
from recmodels.errors import MissingObject
from recmodels.storage import atomic_file, safe_join

LAZY = "lazy"
"""Metadata entry of an input that wants `pl.LazyFrame`; the annotation of a single table says the same."""
STORED_AT = "stored_at"
"""Metadata entry with a checkpoint's path below the data root, so that the whole root can be moved."""


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
            keys = list(_input_partitions(context))
            paths = {key: self._path(context.asset_key, key, self._suffix(context)) for key in keys}
            if _spans_partitions(context):
                return {key: self._read(path, context) for key, path in paths.items() if path.exists()}
            ((key, path),) = paths.items()
            if not path.exists():
                raise MissingObject(
                    f"{context.asset_key.to_user_string()} of {key} is not stored at {path}: materialise it first."
                )
            return self._read(path, context)


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
        try:
            return pl.scan_parquet(path) if lazy else pl.read_parquet(path)
        except (pl.exceptions.PolarsError, OSError) as error:
            raise MissingObject(f"{path} is damaged ({error}): restore it, or materialise its asset again.") from error

    def handle_output(self, context: dg.OutputContext, obj: pl.DataFrame | pl.LazyFrame) -> None:
        """Write the table to one Parquet file, atomically."""
        partition_key = context.partition_key if context.has_partition_key else None
        path = self._path(context.asset_key, partition_key, ".parquet")
        with clear_failures(), atomic_file(path) as temporary:
            frame = obj.collect() if isinstance(obj, pl.LazyFrame) else obj
            frame.write_parquet(temporary, compression="zstd", statistics=True)
            size = temporary.stat().st_size
        context.add_output_metadata(
            {"path": dg.MetadataValue.path(str(path)), "size_bytes": dg.MetadataValue.int(size)}
        )


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
        context.add_output_metadata({"path": dg.MetadataValue.path(str(path))})


def staging_directory(data_root: DataRoot, run_id: str) -> Path:
    """Return a path, not yet there, for a directory that `DirectoryIOManager` will move to its place."""
    return safe_join(data_root.root, "staging", run_id, uuid.uuid4().hex)


def recorded_directory(instance: dg.DagsterInstance, data_root: DataRoot, key: dg.AssetKey, partition_key: str) -> Path:
    """
    Return the directory that the latest record of an asset's partition names.

    Raises
    ------
    MissingObject
        If there is no record, or what it names is gone.
    """
    materialization = latest_materialization(instance, key, partition_key)
    name = f"{key.to_user_string()} of {'/'.join(partition_parts(partition_key))}"
    if materialization is None:
        raise MissingObject(f"{name} was never materialised: materialise it first.")
    path = safe_join(data_root.root, *str(materialization.metadata[STORED_AT].value).split("/"))
    if not path.is_dir():
        raise MissingObject(f"{path}, which the record of {name} names, is gone: restore it, or materialise it again.")
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
            if target.exists():  # a retried step of the same run
                shutil.rmtree(target)
            obj.rename(target)
        context.add_output_metadata(
            {
                "path": dg.MetadataValue.path(str(target)),
                STORED_AT: target.relative_to(self.data_root.root).as_posix(),
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
