"""The command line: `recmodels run` materialises one data set, `dev` opens the UI, `doctor` looks at the machine."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from recmodels.errors import RecmodelsError
from recmodels.models.registry import DEFAULT_MODELS

DEFAULT_SEEDS = ("0", "1", "2")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    options = _parser().parse_args(arguments)
    # Threads that spin while they wait make small models many times slower wherever another process wants the cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    console = Console(highlight=False)
    try:
        # Definitions hold the data sets and seeds there are, so that a mistake in their settings shows on import.
        from pipelines.cli.commands import COMMANDS

        return COMMANDS[options.command](options, console)
    except RecmodelsError as error:
        console.print(f"error: {error}", style="red", markup=False, soft_wrap=True)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="recmodels", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    run = commands.add_parser("run", help="make one data set up to date and print the leaderboard")
    run.add_argument("--dataset", default="demo", help="a key of the catalogue (default: demo)")
    run.add_argument("--raw-dir", type=Path, help="folder with the raw files (default: <data root>/raw/<data set>)")
    run.add_argument(
        "--models", default="", help=f"comma-separated names or 'all' (default: {','.join(DEFAULT_MODELS)})"
    )
    run.add_argument("--seeds", default=",".join(DEFAULT_SEEDS), help="comma-separated seeds (default: %(default)s)")
    run.add_argument(
        "--no-download", action="store_true", help="fail where raw files are missing instead of fetching them"
    )
    run.add_argument("--force", action="store_true", help="make everything anew, also what is up to date")
    _add_profile_options(run)
    run.set_defaults(command="run")
    status = commands.add_parser("status", help="say of every asset whether it is up to date, and why not")
    status.add_argument("--dataset", default="", help="a key of the catalogue (default: all)")
    status.add_argument("--json", action="store_true", help="print a list of asset, partition, state and reasons")
    status.set_defaults(command="status")
    estimate = commands.add_parser("estimate", help="say what profiles would take and cost, without a call")
    estimate.add_argument("--dataset", default="demo", help="a key of the catalogue, with its tables materialised")
    _add_profile_options(estimate)
    estimate.set_defaults(command="estimate")
    check = commands.add_parser("doctor", help="say what this machine has for a run, and what it lacks")
    check.add_argument("--dataset", default="demo", help="a key of the catalogue (default: %(default)s)")
    _add_profile_options(check)
    check.set_defaults(command="doctor")
    dev = commands.add_parser("dev", help="open the Dagster UI with its daemon")
    dev.add_argument("--port", default="3000", help="port on 127.0.0.1 (default: %(default)s)")
    dev.set_defaults(command="dev")
    return parser


def _add_profile_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--profiles", default="", help="profile back-end (default: the catalogue's)")
    command.add_argument(
        "--profile-setting",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting of the back-end such as answer_tokens=96; may be repeated",
    )


if __name__ == "__main__":
    sys.exit(main())
