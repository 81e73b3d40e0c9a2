"""Which commit of the code is running."""

import functools
import subprocess
from pathlib import Path

_CODE = Path(__file__).resolve().parents[2]


@functools.cache
def current_commit() -> str:
    """Return the commit that is checked out, with ``-dirty`` where the code differs; empty without a checkout."""
    try:
        top = _git("rev-parse", "--show-toplevel")
        head = _git("rev-parse", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return ""
    if Path(top).resolve() != _CODE:  # installed inside somebody else's repository
        return ""
    return f"{head}-dirty" if changed else head


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(_CODE), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)  # noqa: S603 all are constants
    return done.stdout.strip()
