"""`recmodels dev`: Dagster's user interface."""

import os
import socket
import sys
from pathlib import Path
from typing import Annotated

import psutil
import typer

from recmodels.errors import InputError

_HOST = "127.0.0.1"
_LAST_PORT = 65535
_NO_WARNING = "ignore:Function `dev_command` is superseded"
"""`dg dev` takes its place where `dagster-dg-cli` is installed; a run of this project needs no more than Dagster."""


def dev(port: Annotated[int, typer.Option(min=1, max=_LAST_PORT, help=f"Port on {_HOST}.")] = 3000) -> None:
    """Open the Dagster UI with its daemon."""
    from pipelines.instance import prepare_home, require_own_home

    require_free_port(port)
    require_own_home()
    prepare_home()
    workspace = Path(__file__).resolve().parents[2] / "workspace.yaml"
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, [os.environ.get("PYTHONWARNINGS"), _NO_WARNING]))
    command = [str(Path(sys.executable).with_name("dagster")), "dev", "-w", str(workspace)]
    os.execv(command[0], [*command, "-h", _HOST, "-p", str(port)])  # noqa: S606 a list of arguments, no shell


def require_free_port(port: int) -> None:
    """
    Raise InputError if another process has a port, which it names if it can, or this user may not have it.

    Dagster would go on without its UI.
    """
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
        try:
            server.bind((_HOST, port))
            server.listen()
        except OSError as error:
            other = port + 1 if port < _LAST_PORT else port - 1
            raise InputError(
                f"--port {port}",
                expected=f"a port of {_HOST} that this user can listen on",
                found=_listener(port) or error.strerror or str(error),
                action=f"Choose another: `recmodels dev --port {other}`, or `make dev ARGS='--port {other}'`.",
            ) from error


def _listener(port: int) -> str:
    """Return which process listens on a port, empty if the system does not tell."""
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and tuple(connection.laddr)[1:2] == (port,) and connection.pid:
                process = psutil.Process(connection.pid)
                return f"that process {process.pid} ({' '.join(process.cmdline()[:4])}) listens on it"
    except (psutil.Error, OSError):
        pass
    return ""
