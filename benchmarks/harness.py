"""What benchmarks share: options, timing in turns, peak memory, published pairs, the table and the JSON file."""

import argparse
import contextlib
import ctypes
import gc
import json
import os
import platform
import signal
import subprocess
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import TypeVar

import numpy as np
import polars as pl
import psutil
from rich.console import Console
from rich.table import Table

from recmodels.schemas.tables import KNN

T = TypeVar("T")
READY_SECONDS = 180
"""How long a server may take to answer."""
SHARED_DATA_VARIABLE = "RECMODELS_SHARED_DATA"
PUBLISHED_SIZES = {
    "baby": (19_445, 7_050, 118_551),
    "sports": (35_598, 18_357, 218_409),
    "clothing": (39_387, 23_033, 197_338),
}
"""Users, items and training pairs."""


def parse_arguments(description: str) -> argparse.Namespace:
    """Read ``--quick`` (a smoke run on small problems) and ``--json PATH``."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="small problems and few rounds, to see that it runs")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the figures to this file")
    return parser.parse_args()


def shared_data() -> Path | None:
    """Return the folder of real data sets, or None where it is absent."""
    default = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    folder = Path(os.environ.get(SHARED_DATA_VARIABLE) or default)
    return folder if folder.is_dir() else None


def published_pairs(name: str) -> pl.DataFrame | None:
    """Return user_id, item_id and split (0 train, 1 valid, 2 test) of a published set; None where it is absent."""
    folder = shared_data()
    path = folder / "mmrec" / name / f"{name}.inter.gz" if folder else None
    if path is None or not path.exists():
        return None
    return pl.read_csv(path, separator="\t").select(user_id="userID", item_id="itemID", split="x_label")


def random_neighbours(n: int, seed: int, k: int = 10) -> pl.DataFrame:
    """Each node itself and k - 1 others at random, the most false negatives a graph of this degree can give."""
    rng = np.random.default_rng(seed)
    src = np.repeat(np.arange(n, dtype=np.int32), k)
    rank = np.tile(np.arange(k, dtype=np.int16), n)
    # Distances that differ by rank keep the neighbours of a row distinct.
    distance = rng.integers(0, (n - 1) // (k - 1), src.size) * (k - 1) + rank
    dst = np.where(rank == 0, src, (src + distance) % n).astype(np.int32)
    similarity = (1 - rank / (2 * k)).astype(np.float32)
    return pl.DataFrame({"src": src, "dst": dst, "rank": rank, "similarity": similarity}, schema=KNN)


def time_in_turns(
    functions: Mapping[str, Callable[[], object]], *, rounds: int = 5, warm_up: bool = True
) -> dict[str, float]:
    """
    Return the median seconds of each function over several rounds.

    In each round every function runs once, so that a busy moment of the machine falls on all of them alike.
    """
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    if warm_up:
        for function in functions.values():
            function()
    for _ in range(rounds):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - start)
    return {name: median(values) for name, values in seconds.items()}


def peak_megabytes(function: Callable[[], T]) -> tuple[float, T]:
    """
    Return by how many megabytes the process grew at most while a function ran, and what it returned.

    Linux only: the kernel's own high-water mark is reset before the call.
    """
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = psutil.Process().memory_info().rss
    result = function()
    return max(highest_megabytes() - before / 1e6, 0.0), result


def highest_megabytes() -> float:
    """Return the most memory that this process ever held, or since the mark was last reset."""
    # Not getrusage: a child's ru_maxrss starts at what the parent had when it forked.
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024 / 1e6


def peak_of_process(function: Callable[..., T], *arguments: object) -> tuple[float, T]:
    """Return the peak memory in MB of a fresh process that runs a function, libraries included, and its result."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        result = pool.submit(function, *arguments).result()
        return pool.submit(highest_megabytes).result(), result


@contextlib.contextmanager
def served(command: Sequence[str | Path], url: str, log: Path | None = None, **env: str) -> Generator[subprocess.Popen]:
    """Run a web server, and yield its process when a URL of it answers; its output goes into a log, if one is named."""
    with contextlib.ExitStack() as stack:
        output = stack.enter_context(log.open("wb")) if log else None
        server = subprocess.Popen(  # noqa: S603 our own program
            command, env={**os.environ, **env}, stdout=output, stderr=output, start_new_session=True
        )
        try:
            deadline = time.monotonic() + READY_SECONDS
            while not _answers(url):
                in_time = server.poll() is None and time.monotonic() < deadline
                assert in_time, log.read_text()[-3000:] if log else "the server does not answer"
                time.sleep(0.2)
            yield server
        finally:
            if server.poll() is None:
                os.killpg(server.pid, signal.SIGTERM)
            server.wait()


def _answers(url: str) -> bool:
    import httpx

    with contextlib.suppress(httpx.TransportError):
        return httpx.get(url, timeout=READY_SECONDS).is_success
    return False


class Report:
    """The figures of one benchmark, under a title."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.figures: dict[str, float] = {}
        self._rows: list[tuple[str, str, str, str]] = []

    def add(self, name: str, value: float, *, unit: str = "", baseline: str = "", goal: str = "") -> None:
        """Record a figure: its name in the JSON, its value, what it is compared with and what it should be."""
        self.figures[name] = float(value)
        self._rows.append((name, f"{value:,.4g} {unit}".strip(), baseline, goal))

    def compare(
        self, name: str, ours: float, theirs: float, what: str, *, goal: str = "", unit: str = "", faster: bool = True
    ) -> None:
        """Record how many times faster ours is, of seconds; or else how many times as long it takes."""
        ratio = theirs / ours if faster else ours / theirs
        self.add(name, ratio, unit=unit, baseline=f"{ours:.3g} s against {theirs:.3g} s, {what}", goal=goal)

    def skip(self, name: str, reason: str) -> None:
        """Show in the table, and not in the JSON, that a figure could not be measured."""
        self._rows.append((name, "not measured", reason, ""))

    def finish(self, json_path: Path | None) -> None:
        """Print the table and write the JSON file, if one is asked for."""
        memory = psutil.virtual_memory().total / 2**30
        machine = f"{platform.machine()}, {os.cpu_count()} cores, {memory:.0f} GiB, Python {platform.python_version()}"
        table = Table("figure", "value", "compared with", "goal", title=self.title, caption=machine)
        table.columns[1].justify = "right"
        for row in self._rows:
            table.add_row(*row)
        Console(width=140).print(table)
        if json_path is not None:
            json_path.parent.mkdir(parents=True, exist_ok=True)
            json_path.write_text(json.dumps(self.figures, indent=2) + "\n")
