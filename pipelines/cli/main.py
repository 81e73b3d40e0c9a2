"""
The command line `recmodels`: which commands there are, and how errors are shown. A command is a file beside this one.

Modules of commands import Dagster and what computes inside their functions, so that `--help` and completion are fast.
"""

import os
import sys
from collections.abc import Sequence

import typer

from pipelines.cli.dev import dev
from pipelines.cli.doctor import doctor
from pipelines.cli.estimate import estimate
from pipelines.cli.new_dataset import new_dataset
from pipelines.cli.output import CONSOLE
from pipelines.cli.run import run
from pipelines.cli.status import status
from recmodels.errors import RecmodelsError

app = typer.Typer(
    name="recmodels",
    help="From raw review dumps to multimodal recommendations, on this machine.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command()(run)
app.command()(status)
app.command()(estimate)
app.command()(doctor)
app.command()(dev)
app.command()(new_dataset)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    # Threads that spin while they wait make small models many times slower wherever another process wants the cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        app(arguments, prog_name="recmodels")
    except RecmodelsError as error:
        CONSOLE.print(f"error: {error}", style="red", markup=False, soft_wrap=True)
        return 1
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
