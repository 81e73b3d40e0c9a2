"""`recmodels explore`: recommendations of all models side by side, in a browser."""

import os
import signal
import threading
import time
from typing import Annotated

import typer

from pipelines.cli.options import Dataset, data_set
from pipelines.cli.ports import LAST_PORT, require_free_port
from pipelines.cli.rows import say

DEFAULT_PORT = 3100  # `assets.support.links.EXPLORER_PORT`, which would import Dagster; a test compares them


def explore(
    dataset: Dataset = "demo",
    port: Annotated[int, typer.Option(min=1, max=LAST_PORT, help="Port to listen on.")] = DEFAULT_PORT,
    host: Annotated[str, typer.Option(help="Address to listen on; whoever reaches it reads everything.")] = "127.0.0.1",
    beside_parent: Annotated[bool, typer.Option("--beside-parent", hidden=True)] = False,
) -> None:
    """
    Open the explorer: users, what all models recommend to them, and why; with a JSON API.

    It shows what is stored, and new results as they come. Nothing is loaded from elsewhere, apart from pictures where
    the page is told to.
    """
    if beside_parent:
        threading.Thread(target=_end_with, args=(os.getppid(),), name="parent", daemon=True).start()
    key = data_set(dataset).key
    require_free_port(host, port, "Choose another: `recmodels explore --port {port}`.")
    # A request has one thread: more would wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import uvicorn

    from assets.support.links import EXPLORER_VARIABLE
    from assets.support.resources import DataRoot
    from pipelines.explorer.app import explorer_app, is_loopback, own_names
    from pipelines.explorer.results import Results
    from pipelines.instance import open_instance, require_own_home

    require_own_home()
    with open_instance() as instance:
        app = explorer_app(Results(instance, DataRoot()), own_names(host, os.environ.get(EXPLORER_VARIABLE, "")))
        named = f"[{host}]" if ":" in host else host
        say(f"explorer  http://{named}:{port}/?dataset={key}   its API  http://{named}:{port}/docs   (Ctrl-C ends it)")
        if not is_loopback(host):
            say(f"note: everybody who reaches {host} can read all results of this data root.")
        uvicorn.run(app, host=host, port=port, log_level="warning", access_log=False, timeout_graceful_shutdown=2)


def _end_with(parent: int) -> None:
    """End this process when another one has become its parent: its own is gone, however that ended."""
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)
