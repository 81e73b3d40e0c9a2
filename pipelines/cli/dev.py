"""`recmodels dev`: Dagster's user interface."""

import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.ports import LAST_PORT, require_free_port

_HOST = "127.0.0.1"
_NO_WARNING = "ignore:Function `dev_command` is superseded"
"""`dg dev` takes its place where `dagster-dg-cli` is installed; a run of this project needs no more than Dagster."""


def dev(port: Annotated[int, typer.Option(min=1, max=LAST_PORT, help=f"Port on {_HOST}.")] = 3000) -> None:
    """Open the Dagster UI with its daemon."""
    from pipelines.instance import prepare_home, require_own_home

    # Dagster itself would go on without its UI.
    require_free_port(_HOST, port, "Choose another: `recmodels dev --port {port}`, or `make dev ARGS='--port {port}'`.")
    require_own_home()
    prepare_home()
    workspace = Path(__file__).resolve().parents[2] / "workspace.yaml"
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, [os.environ.get("PYTHONWARNINGS"), _NO_WARNING]))
    command = [str(Path(sys.executable).with_name("dagster")), "dev", "-w", str(workspace)]
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})  # by which Dagster ends its processes
    os.execv(command[0], [*command, "-h", _HOST, "-p", str(port)])  # noqa: S606 a list of arguments, no shell
