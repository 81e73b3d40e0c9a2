"""Checks of the raw files and of what could not be read from them."""

import dagster as dg

from assets.checks.declare import Verdict, recorded_check, recorded_json
from assets.failures import clear_failures
from assets.io_managers import stored_path
from assets.partitions import DATASETS
from assets.raw import MANIFEST_SUFFIX
from assets.resources import DataRoot
from recmodels.data.checks import rejected_shares
from recmodels.data.raw import RawFile, RawManifest

MAX_REJECTED_SHARE = 0.01


@dg.asset_check(
    asset="raw_dumps",
    description="Every raw file is still there with the size and date it had when it was hashed.",
    blocking=True,
    partitions_def=DATASETS,
)
def raw_files_unchanged(context: dg.AssetCheckExecutionContext, data_root: DataRoot) -> dg.AssetCheckResult:
    """Compare the files with the manifest."""
    with clear_failures():
        key = dg.AssetKey("raw_dumps")
        path = stored_path(data_root.root, "documents", key, context.partition_key, MANIFEST_SUFFIX)
        changed = [file.path.name for file in RawManifest.load(path).files.values() if _has_changed(file)]
    return dg.AssetCheckResult(passed=not changed, metadata={"changed": ", ".join(changed) or "nothing"})


def _has_changed(file: RawFile) -> bool:
    if not file.path.exists():
        return True
    status = file.path.stat()
    return (status.st_size, status.st_mtime_ns) != (file.size, file.mtime_ns)


@recorded_check("rejects", "At most 1 % of the lines of each raw file could not be read.", blocking=True)
def few_rejects(records: list[dg.AssetMaterialization]) -> Verdict:
    """Compare the rejected lines of each file with all of its lines."""
    shares = rejected_shares(recorded_json(records[0], "counts"))
    return all(share <= MAX_REJECTED_SHARE for share in shares.values()), {
        f"rejected_share_of_{kind}": share for kind, share in shares.items()
    }


CHECKS = [raw_files_unchanged, few_rejects]
