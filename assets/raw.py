"""Raw files: found, fetched or generated, verified and hashed."""

from collections.abc import Callable
from pathlib import Path

import dagster as dg

from assets.io_managers import stored_path
from assets.lineage import materialized
from assets.partitions import dataset_of, entry_of
from assets.resources import DataRoot
from assets.stage import stage_asset
from recmodels.data.raw import RawManifest, prepare_raw_files
from recmodels.errors import MissingObject

MANIFEST_SUFFIX = ".json"


class RawDumpsConfig(dg.Config):
    """Where the raw files of a run are."""

    raw_dir: str = ""
    """Folder with the raw files; empty for the one used last, or else `raw/<data set>` under the data root."""
    download: bool = True
    """Whether missing files may be fetched from the addresses of the catalogue."""
    refresh: bool = False
    """Whether to ask the servers for newer versions of files that were fetched."""
    mirrors: list[str] = []
    """Folders or addresses (`http(s)://`, `file://`) that hold the files, asked before the catalogue's."""


@stage_asset(
    group_name="raw",
    kinds={"file"},
    code_version="1",
    io_manager_key="document_io",
    metadata={"suffix": MANIFEST_SUFFIX},
)
def raw_dumps(
    context: dg.AssetExecutionContext, config: RawDumpsConfig, data_root: DataRoot
) -> dg.MaterializeResult[str]:
    """
    The raw files of the data set, verified and hashed.

    Stored is a manifest; the files stay where they are. `demo` is generated, other data sets are found in a folder or
    downloaded.
    """
    dataset = dataset_of(context.partition_key)
    previous = last_manifest(data_root, dataset)
    folder = Path(config.raw_dir) if config.raw_dir else usual_folder(data_root, dataset, previous)
    manifest = prepare_raw_files(
        entry_of(context.partition_key),
        folder,
        previous=previous,
        fetch=config.download,
        refresh=config.refresh,
        mirrors=config.mirrors,
        progress=_logged(context),
    )
    size = sum(file.size for file in manifest.files.values())
    return materialized(
        context,
        manifest.model_dump_json(indent=2),
        data_version=manifest.digest,
        metadata={
            "folder": dg.MetadataValue.path(str(folder)),
            "format": manifest.format,
            "files": dg.MetadataValue.json({role: file.path.name for role, file in manifest.files.items()}),
            "sha256": dg.MetadataValue.json({role: file.sha256 for role, file in manifest.files.items()}),
            "size_bytes": size,
            "absent": ", ".join(manifest.absent) or "nothing",
        },
    )


def _logged(context: dg.AssetExecutionContext) -> Callable[[str, int, int | None], None]:
    def log(name: str, done: int, total: int | None) -> None:
        of = f" of {total / 1e6:,.0f}" if total else ""
        context.log.info(f"{name}: {done / 1e6:,.0f}{of} MB")

    return log


def last_manifest(data_root: DataRoot, dataset: str) -> RawManifest | None:
    """Return the manifest stored last for a data set, None if there is none that can be read."""
    path = stored_path(data_root.root, "documents", raw_dumps.key, dataset, MANIFEST_SUFFIX)
    try:
        return RawManifest.load(path) if path.exists() else None
    except MissingObject:
        return None


def usual_folder(data_root: DataRoot, dataset: str, previous: RawManifest | None) -> Path:
    """Return where the raw files are unless a run names a folder: where they were last, or below the data root."""
    if previous is not None:
        folder = next(iter(previous.files.values())).path.parent
        if folder.is_dir():
            return folder
    return data_root.raw(dataset)
