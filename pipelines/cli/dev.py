"""`recmodels dev`: Dagster's user interface, and the explorer that its records link to."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.explore import DEFAULT_PORT
from pipelines.cli.ports import LAST_PORT, require_free_port
from pipelines.cli.rows import say
from recmodels.errors import InputError

_HOST = "127.0.0.1"
_NO_WARNING = "ignore:Function `dev_command` is superseded"
"""`dg dev` takes its place where `dagster-dg-cli` is installed; a run of this project needs no more than Dagster."""


def dev(port: Annotated[int, typer.Option(min=1, max=LAST_PORT, help=f"Port on {_HOST}.")] = 3000) -> None:
    """Open the Dagster UI with its daemon, and the explorer beside it: reports and lists open from the UI."""
    from pipelines.instance import prepare_home, require_own_home

    # Dagster itself would go on without its UI.
    require_free_port(_HOST, port, "Choose another: `recmodels dev --port {port}`, or `make dev ARGS='--port {port}'`.")
    require_own_home()
    prepare_home()
    workspace = Path(__file__).resolve().parents[2] / "workspace.yaml"
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, [os.environ.get("PYTHONWARNINGS"), _NO_WARNING]))
    command = [str(Path(sys.executable).with_name("dagster")), "dev", "-w", str(workspace)]
    # By these Dagster ends its processes. A script's background job ignores SIGINT or holds both back.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    _start_explorer()
    os.execv(command[0], [*command, "-h", _HOST, "-p", str(port)])  # noqa: S606 a list of arguments, no shell


def _start_explorer() -> None:
    """Start the explorer, which ends with this process, unless the links of records lead elsewhere."""
    if os.environ.get("RECMODELS_EXPLORER"):
        return
    try:
        require_free_port(_HOST, DEFAULT_PORT, "End that process, or set RECMODELS_EXPLORER.")
    except InputError as error:
        say(f"note: no explorer of this data root, links of records lead to another server: {error}")
    else:
        subprocess.Popen([sys.executable, "-m", "pipelines.cli", "explore", "--beside-parent"])
