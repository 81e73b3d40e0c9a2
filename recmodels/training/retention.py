"""Which checkpoints are superseded and may go, and their removal."""

import json
import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from recmodels.errors import InputError

_REMOVED_SUFFIX = ".removed"


@dataclass(frozen=True)
class StoredCheckpoint:
    """
    A checkpoint's directory among those of one model, data set and seed.

    Parameters
    ----------
    path
        The directory.
    written
        When it was written, with time zone.
    data_version
        As its provenance says; None if that cannot be read.
    """

    path: Path
    written: datetime
    data_version: str | None

    def size_bytes(self) -> int:
        """Return the size of its files."""
        return sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file())


def stored_checkpoints(folder: Path) -> list[StoredCheckpoint]:
    """Return the checkpoints in the folder of one model, data set and seed, the oldest first."""
    found = [
        StoredCheckpoint(path, datetime.fromtimestamp(path.stat().st_mtime).astimezone(), _data_version(path))
        for path in folder.iterdir()
        if path.is_dir() and not path.is_symlink() and not path.name.startswith(".")
    ]
    return sorted(found, key=lambda checkpoint: (checkpoint.written, checkpoint.path.name))


def _data_version(path: Path) -> str | None:
    try:
        version = json.loads((path / "provenance.json").read_text("utf-8"))["data_version"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return version if isinstance(version, str) else None


def superseded_checkpoints(
    stored: Collection[StoredCheckpoint],
    *,
    recorded: Sequence[Path],
    versions_in_use: Collection[str],
    now: datetime,
    keep_days: float,
) -> list[StoredCheckpoint]:
    """
    Return the checkpoints of one model, data set and seed that nothing needs any more.

    Kept are: the current one; the newest of each data version that a current result was made from, unless the current
    checkpoint has that version itself; those whose version cannot be read; and those that were written, or replaced
    by a newer one, within the last `keep_days` days, because a run in progress may still read them. If the current
    one is not there, all are kept: an older one is then the best there is.

    Which is newer is told by the order of the records, not by dates: clocks are set back. A checkpoint that has a later
    date than all that came after it is kept, as nobody knows how long ago it was replaced.

    Parameters
    ----------
    stored
        As `stored_checkpoints` returns them.
    recorded
        The directories that the records name, in the order of the records: the last one is the current checkpoint.
        Directories that no record names, left by killed runs, take their place by date.
    versions_in_use
        Data versions that current results say they read.
    now
        The time, with time zone.
    keep_days
        Days.

    Raises
    ------
    InputError
        If `keep_days` is negative or not a number.
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
    superseded: list[StoredCheckpoint] = []
    for position, checkpoint in enumerate(ordered):
        later = (each.written for each in ordered[position + 1 :] if each.written >= checkpoint.written)
        replaced = next(later, None if checkpoint.path in recorded else checkpoint.written)
        if checkpoint.path not in kept and replaced is not None and replaced <= limit:
            superseded.append(checkpoint)
    return superseded


def _in_order(stored: Collection[StoredCheckpoint], recorded: Sequence[Path]) -> list[StoredCheckpoint]:
    """Return checkpoints in the order of their records; each without a record before the first of a later date."""
    position = {path: index for index, path in enumerate(recorded)}
    by_date = sorted(stored, key=lambda checkpoint: (checkpoint.written, checkpoint.path.name))
    ordered = sorted((each for each in by_date if each.path in position), key=lambda each: position[each.path])
    for orphan in (each for each in by_date if each.path not in position):
        later = (index for index, each in enumerate(ordered) if each.written > orphan.written)
        ordered.insert(next(later, len(ordered)), orphan)
    return ordered


def remove_checkpoint(checkpoint: StoredCheckpoint) -> None:
    """
    Delete a checkpoint's directory.

    It is renamed first, so that an interrupted removal leaves no directory that looks like a checkpoint; what such an
    interruption left is deleted by `finish_removals`.
    """
    shutil.rmtree(checkpoint.path.rename(checkpoint.path.with_name(f".{checkpoint.path.name}{_REMOVED_SUFFIX}")))


def finish_removals(folder: Path) -> None:
    """Delete what interrupted removals left in the folder of one model, data set and seed."""
    for path in folder.glob(f".*{_REMOVED_SUFFIX}"):
        shutil.rmtree(path)
