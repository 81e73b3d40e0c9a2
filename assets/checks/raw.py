"""Checks of the raw files."""

import dagster as dg

from assets.checks.declare import Verdict
from assets.failures import clear_failures
from assets.io_managers import recorded_path
from assets.partitions import DATASETS
from assets.resources import DataRoot
from recmodels.data.raw import RawFile, RawManifest, as_hashed
from recmodels.errors import InputError


@dg.asset_check(
    asset="raw_dumps",
    description="Every raw file is still the one that was hashed.",
    blocking=True,
    partitions_def=DATASETS,
)
def raw_files_unchanged(context: dg.AssetCheckExecutionContext, data_root: DataRoot) -> dg.AssetCheckResult:
    """Compare the files with the manifest; those of another date are hashed again."""
    with clear_failures():
        path = recorded_path(context.instance, data_root, dg.AssetKey("raw_dumps"), context.partition_key)
        files = list(RawManifest.load(path).files.values())
        changed = [file.path for file in files if _has_changed(file)]
    measured = {"changed": ", ".join(path.name for path in changed) or "nothing"}
    problem = (
        f"{len(changed)} of {len(files)} raw files are not those that were hashed, expected none; the first is "
        f"{changed[0]}. Restore it, or materialise raw_dumps again to take it as it is."
        if changed
        else ""
    )
    return Verdict(measured, problem).result(blocking=True)


def _has_changed(file: RawFile) -> bool:
    try:
        with as_hashed(file):
            return False
    except InputError:
        return True


CHECKS = [raw_files_unchanged]
