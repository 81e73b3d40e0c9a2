"""Which stored versions of a table, a document or a checkpoint are superseded and may go, and their removal."""

import json
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from recmodels.errors import InputError
from recmodels.io.tables import PARTS_SUFFIX

_REMOVED_SUFFIX = ".removed"


@dataclass(frozen=True)
class StoredVersion:
    """
    A file, or a directory (a checkpoint, a table in parts), among those of one partition of an asset.

    It says when it was written, with zone.
    The data version is as its record says, or its provenance; None if that cannot be read, empty for a file or a table
    in parts that no record names.
    """

    path: Path
    written: datetime
    data_version: str | None

    def size_bytes(self) -> int:
        """Return the size of its files."""
        files = self.path.rglob("*") if self.path.is_dir() else [self.path]
        return sum(file.stat().st_size for file in files if file.is_file())


def stored_versions(folder: Path, recorded: Mapping[Path, str]) -> list[StoredVersion]:
    """Return what is stored in the folder of one partition, the oldest first; records tell data versions by path."""
    found = [
        StoredVersion(path, datetime.fromtimestamp(path.stat().st_mtime).astimezone(), _data_version(path, recorded))
        for path in folder.iterdir()
        if not path.is_symlink() and not path.name.startswith(".")
    ]
    return sorted(found, key=lambda version: (version.written, version.path.name))


def _data_version(path: Path, recorded: Mapping[Path, str]) -> str | None:
    if path in recorded or path.is_file() or path.suffix == PARTS_SUFFIX:
        return recorded.get(path, "")
    try:
        version = json.loads((path / "provenance.json").read_text("utf-8"))["data_version"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return version if isinstance(version, str) else None


def superseded_versions(
    stored: Collection[StoredVersion],
    *,
    recorded: Sequence[Path],
    versions_in_use: Collection[str],
    now: datetime,
    keep_days: float,
) -> list[StoredVersion]:
    """
    Return the stored versions of one partition that nothing needs any more.

    Kept are: the current one; the newest of each data version that a current result was made from, unless the current
    one has that version itself; those whose version cannot be read; and those that were written, or replaced
    by a newer one, within the last `keep_days` days, because a run in progress may still read them. If the current
    one is not there, all are kept: an older one is then the best there is.

    Which is newer is told by the order of the records, not by dates: clocks are set back. A version that has a later
    date than all that came after it is kept, as nobody knows how long ago it was replaced.

    Parameters
    ----------
    stored
        As `stored_versions` returns them.
    recorded
        The paths that the records name, in the order of the records: the last one is current. Those that no record
        names, left by killed runs, take their place by date.
    versions_in_use
        Data versions that current results say they read.
    now
        The time, with time zone.
    """
    if not keep_days >= 0:
        raise InputError("keep_days", expected="a number of days, 0 or more", found=str(keep_days))
    ordered = _in_order(stored, recorded)
    current = [checkpoint for checkpoint in ordered if recorded and checkpoint.path == recorded[-1]]
    kept = {checkpoint.path for checkpoint in current}
    if not kept:
        return []
    held = {checkpoint.data_version for checkpoint in current}
    for checkpoint in reversed(ordered):
        if checkpoint.data_version is None:
            kept.add(checkpoint.path)
        elif checkpoint.data_version in versions_in_use and checkpoint.data_version not in held:
            kept.add(checkpoint.path)
            held.add(checkpoint.data_version)
    limit = now - timedelta(days=keep_days)
    superseded: list[StoredVersion] = []
    for position, checkpoint in enumerate(ordered):
        later = (each.written for each in ordered[position + 1 :] if each.written >= checkpoint.written)
        replaced = next(later, None if checkpoint.path in recorded else checkpoint.written)
        if checkpoint.path not in kept and replaced is not None and replaced <= limit:
            superseded.append(checkpoint)
    return superseded


def _in_order(stored: Collection[StoredVersion], recorded: Sequence[Path]) -> list[StoredVersion]:
    """Return versions in the order of their records; each without a record before the first of a later date."""
    position = {path: index for index, path in enumerate(recorded)}
    by_date = sorted(stored, key=lambda checkpoint: (checkpoint.written, checkpoint.path.name))
    ordered = sorted((each for each in by_date if each.path in position), key=lambda each: position[each.path])
    for orphan in (each for each in by_date if each.path not in position):
        later = (index for index, each in enumerate(ordered) if each.written > orphan.written)
        ordered.insert(next(later, len(ordered)), orphan)
    return ordered


def remove_version(version: StoredVersion) -> None:
    """
    Delete a file or a directory.

    A directory is renamed first, so that an interrupted removal leaves none that looks whole; what such an
    interruption left is deleted by `finish_removals`.
    """
    if version.path.is_dir():
        shutil.rmtree(version.path.rename(version.path.with_name(f".{version.path.name}{_REMOVED_SUFFIX}")))
    else:
        version.path.unlink()


def finish_removals(folder: Path) -> None:
    """Delete what interrupted removals left in the folder of a partition."""
    for path in folder.glob(f".*{_REMOVED_SUFFIX}"):
        shutil.rmtree(path)
