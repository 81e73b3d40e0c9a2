"""Which of the runs that trained a model a folder of checkpoints means."""

from pathlib import Path

from recmodels.errors import InputError
from recmodels.io.files import MANIFEST

_DEPTH = 3
"""Model, data set and seed are folders above those of the runs."""
_SHOWN = 5


def run_folder(directory: Path) -> Path:
    """
    Return the folder of a checkpoint: the given one, or the only one in it, up to three folders down.

    Raises
    ------
    InputError
        If it holds the checkpoints of several runs.
    """
    if (directory / MANIFEST).exists():
        return directory
    found = (path for depth in range(1, _DEPTH + 1) for path in directory.glob("*/" * depth + MANIFEST))
    runs = sorted(path.parent.relative_to(directory).as_posix() for path in found)
    if len(runs) > 1:
        raise InputError(
            f"checkpoint {directory}",
            expected="the folder of one run",
            found=f"those of {len(runs)}: {', '.join(runs[:_SHOWN])}{', ...' if len(runs) > _SHOWN else ''}",
            action="Name one of them; docs/operating.md shows how the current one is opened.",
        )
    return directory / runs[0] if runs else directory
