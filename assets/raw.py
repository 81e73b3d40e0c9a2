"""Raw files: found, fetched or generated, verified and hashed."""

from collections.abc import Callable, Mapping
from pathlib import Path

import dagster as dg

from assets.support.checks import Verdict, stored_check
from assets.support.io_managers import recorded_path
from assets.support.lineage import materialized
from assets.support.partitions import dataset_of, entry_of
from assets.support.resources import DataRoot
from assets.support.stage import stage_asset
from recmodels.catalogue.entries import DatasetEntry
from recmodels.data.raw_files import named_folder, prepare_raw_files, stat_fingerprint
from recmodels.errors import InputError, MissingObject
from recmodels.raw.manifest import RawFile, RawManifest, as_hashed
from recmodels.settings import raw_settings

MANIFEST_SUFFIX = ".json"
FOLDER = "folder"
"""Metadata entry with the folder of the raw files."""
FINGERPRINT = "fingerprint"
"""Metadata entry with names, sizes and dates of the raw files in one digest (see `stat_fingerprint`)."""


class RawDumpsConfig(dg.Config):
    """Where the raw files of a run are."""

    raw_dir: str = ""
    """
    Folder with the raw files, which must exist; empty for the one used last, or else `raw/<data set>` under the data
    root.
    """
    download: bool = True
    """Whether missing files may be fetched from the addresses of the catalogue."""
    refresh: bool = False
    """Whether to ask the servers for newer versions of files that were fetched."""
    mirrors: list[str] = []
    """Folders or addresses (`http(s)://`, `file://`) that hold the files, asked before the catalogue's."""


def _changed_files(entry: DatasetEntry, recorded: Mapping[str, str]) -> str:
    """Return that raw files changed since they were hashed; files that are gone have not."""
    if FOLDER not in recorded:
        return ""
    folder = recorded[FOLDER]
    found = stat_fingerprint(entry, Path(folder))
    return "" if found in (None, recorded[FINGERPRINT]) else f"raw files in {folder} changed"


@stage_asset(
    group_name="raw",
    settings=raw_settings,
    outside=_changed_files,
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
    previous = last_manifest(context.instance, data_root, dataset)
    folder = named_folder(config.raw_dir) if config.raw_dir else usual_folder(data_root, dataset, previous)
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
            FOLDER: dg.MetadataValue.path(str(folder)),
            FINGERPRINT: manifest.fingerprint,
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


def last_manifest(instance: dg.DagsterInstance, data_root: DataRoot, dataset: str) -> RawManifest | None:
    """Return the manifest stored last for a data set, None if there is none that can be read."""
    try:
        return RawManifest.load(recorded_path(instance, data_root, raw_dumps.key, dataset))
    except MissingObject:
        return None


def usual_folder(data_root: DataRoot, dataset: str, previous: RawManifest | None) -> Path:
    """Return where the raw files are unless a run names a folder: where they were last, or below the data root."""
    if previous is not None:
        folder = next(iter(previous.files.values())).path.parent
        if folder.is_dir():
            return folder
    return data_root.raw(dataset)


@stored_check("raw_dumps", "Every raw file is still the one that was hashed.", blocking=True)
def raw_files_unchanged(context: dg.AssetCheckExecutionContext, data_root: DataRoot) -> Verdict:
    """Compare the files with the manifest; those of another date are hashed again."""
    path = recorded_path(context.instance, data_root, dg.AssetKey("raw_dumps"), context.partition_key)
    files = list(RawManifest.load(path).files.values())
    changed = [file.path for file in files if _has_changed(file)]
    measured = {"changed": ", ".join(path.name for path in changed) or "nothing"}
    if not changed:
        return Verdict(measured)
    return Verdict(
        measured,
        f"{len(changed)} of {len(files)} raw files are not those that were hashed, expected none; the first is "
        f"{changed[0]}. Restore it, or materialise raw_dumps again to take it as it is.",
    )


def _has_changed(file: RawFile) -> bool:
    try:
        with as_hashed(file):
            return False
    except InputError:
        return True
