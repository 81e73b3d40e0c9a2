"""Checks of the raw files and of what could not be read from them."""

import dagster as dg

from assets.checks.declare import Verdict, recorded_check, recorded_json
from assets.failures import clear_failures
from assets.io_managers import recorded_path
from assets.partitions import DATASETS
from assets.resources import DataRoot
from recmodels.data.checks import rejected_shares
from recmodels.data.raw import RawFile, RawManifest, as_hashed
from recmodels.errors import InputError

MAX_REJECTED_SHARE = 0.01


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
        changed = [file.path.name for file in RawManifest.load(path).files.values() if _has_changed(file)]
    return dg.AssetCheckResult(passed=not changed, metadata={"changed": ", ".join(changed) or "nothing"})


def _has_changed(file: RawFile) -> bool:
    try:
        with as_hashed(file):
            return False
    except InputError:
        return True


@recorded_check("rejects", "At most 1 % of the lines of each raw file could not be read.", blocking=True)
def few_rejects(records: list[dg.AssetMaterialization]) -> Verdict:
    """Compare the rejected lines of each file with all of its lines."""
    shares = rejected_shares(recorded_json(records[0], "counts"))
    return all(share <= MAX_REJECTED_SHARE for share in shares.values()), {
        f"rejected_share_of_{kind}": share for kind, share in shares.items()
    }


CHECKS = [raw_files_unchanged, few_rejects]
