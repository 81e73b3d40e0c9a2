"""Where the command `recmodels` begins: with what has to be there before everything else is imported."""

import os
import sys

from pipelines.cli import interrupts


def main() -> int:
    """Run the command line, which SIGINT and SIGTERM end at any moment, and return its exit status."""
    interrupts.watch()
    try:
        from pipelines.cli.main import main as run_command_line

        return run_command_line()
    except interrupts.Interrupted as ended:
        interrupts.tell()
        os._exit(ended.status)  # all work is unwound; to take down the libraries can need more seconds than that


if __name__ == "__main__":
    sys.exit(main())
