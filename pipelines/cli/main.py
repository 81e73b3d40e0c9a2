"""
The command line `recmodels`: which commands there are, and how errors are shown. A command is a file beside this one.

Modules of commands import Dagster and what computes inside their functions, so that `--help` and completion are fast.
"""

import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated

import typer

from pipelines.cli.compare import compare
from pipelines.cli.datasets import datasets
from pipelines.cli.dev import dev
from pipelines.cli.doctor import doctor
from pipelines.cli.estimate import estimate
from pipelines.cli.explore import explore
from pipelines.cli.leaderboard import leaderboard
from pipelines.cli.models import models
from pipelines.cli.new_dataset import new_dataset
from pipelines.cli.output import beside_json, print_error
from pipelines.cli.recommend import recommend
from pipelines.cli.results import results
from pipelines.cli.run import run
from pipelines.cli.similar import similar
from pipelines.cli.status import status
from pipelines.cli.study import study
from pipelines.cli.tune import tune
from recmodels.errors import RecmodelsError

_ENVIRONMENT = """\b
Environment variables:
  RECMODELS_DATA       where everything is stored, ./data by default
  RECMODELS_CATALOGUE  a file with data sets and settings beside the packaged ones
  RECMODELS_STUDIES    a file with variants and studies beside the packaged ones
  RECMODELS_SEEDS      the seeds there are, 0,1,2,3,4 by default
  RECMODELS_CACHE      where the caches are, <data root>/cache by default
  RECMODELS_EXPLORER   where browsers find `recmodels explore`, for links in records
  RECMODELS_LOG        text, or json for one JSON object a line
"""

app = typer.Typer(
    name="recmodels",
    epilog=_ENVIRONMENT,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"recmodels {version('recmodels')}")
        raise typer.Exit


@app.callback()
def recmodels(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """From raw review dumps to multimodal recommendations, on this machine."""


app.command()(run)
app.command()(recommend)
app.command()(explore)
app.command()(similar)
app.command()(leaderboard)
app.command()(compare)
app.command()(datasets)
app.command()(models)
app.command()(study)
app.command()(results)
app.command()(status)
app.command()(tune)
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
        with beside_json("--json" in (sys.argv if arguments is None else arguments)):
            print_error(str(error))
        return 1
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
