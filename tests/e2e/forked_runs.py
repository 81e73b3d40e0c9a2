"""
Runs of the command line that import their libraries once: a process that forks them as its input says.

A line is a JSON list of runs at once: the data root, `arguments` of `recmodels`, a file for the output, perhaps further
variables of the `environment`, and, to have the run killed, the `path` that it is to be moving into place, and whether
that is `before` or `after` the move. The answer is a list of the statuses they ended with, negative for signals.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Runs = Callable[[list[dict[str, Any]]], list[int]]
IMPORTED_ONCE = (
    "pipelines.cli.main",
    "pipelines.definitions",
    "recmodels.serving.recommender",
    "sentence_transformers",
)


@contextmanager
def forking_server(environment: Mapping[str, str]) -> Generator[Runs]:
    """Yield a function that has a server with these variables execute runs at once and returns their statuses."""
    variables = {name: value for name, value in os.environ.items() if name != "DAGSTER_HOME"} | dict(environment)
    with subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=variables
    ) as server:
        orders, answers = server.stdin, server.stdout
        assert orders
        assert answers

        def execute(runs: list[dict[str, Any]]) -> list[int]:
            orders.write(json.dumps(runs) + "\n")
            orders.flush()
            return json.loads(answers.readline())

        yield execute
        orders.close()


def killed_while_moving(path: str, moment: str, move: Callable[[Path, Path], Path]) -> Callable[[Path, Path], Path]:
    """Return a move of files that ends this process at a path, leaving half a file if it was not there yet."""

    def moved(source: Path, target: Path) -> Path:
        hit = path in str(target)
        if hit and moment == "before":
            if source.is_file():
                os.truncate(source, source.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        result = move(source, target)
        if hit:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return moved


def run(order: dict[str, Any]) -> int:
    """Run the command line in this process, with its output in a file."""
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update({"RECMODELS_DATA": order["root"], **order.get("environment", {})})
    if "path" in order:
        for name in ("replace", "rename"):
            setattr(Path, name, killed_while_moving(order["path"], order["moment"], getattr(Path, name)))
    from pipelines.cli.main import main

    return main(order["arguments"])


def serve() -> None:
    """Fork the runs of each line."""
    # Nothing is computed before the forks: they would lack the threads that polars and torch then start.
    for module in IMPORTED_ONCE:
        importlib.import_module(module)
    for line in sys.stdin:
        children = [forked(order) for order in json.loads(line)]
        print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]), flush=True)


def forked(order: dict[str, Any]) -> int:
    """Start a run in a process of its own and return the number of that."""
    child = os.fork()
    if child == 0:
        status = 99
        try:
            status = run(order)
        finally:
            sys.stdout.flush()
            os._exit(status)
    return child


if __name__ == "__main__":
    serve()
