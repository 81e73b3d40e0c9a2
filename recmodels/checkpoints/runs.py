"""Which of the runs that trained a model a folder of checkpoints means."""

from pathlib import Path

from recmodels.errors import InputError
from recmodels.io.files import MANIFEST


def run_folder(directory: Path) -> Path:
    """
    Return the folder of a checkpoint: the given one, or the only one in it.

    Raises
    ------
    InputError
        If it holds the checkpoints of several runs.
    """
    if (directory / MANIFEST).exists():
        return directory
    runs = sorted(path.parent.name for path in directory.glob(f"*/{MANIFEST}"))
    if len(runs) > 1:
        raise InputError(
            f"checkpoint {directory}",
            expected="the folder of one run",
            found=f"those of {len(runs)}: {', '.join(runs)}",
            action="Name one of them; docs/operating.md shows how the current one is opened.",
        )
    return directory / runs[0] if runs else directory
