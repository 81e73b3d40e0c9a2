"""
How fast profiles are written: against a server that takes 50 ms a call, and from a full cache.

The ideal rate is calls in flight / latency. The server runs in a process of its own, so that CPU time is the client's.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import polars as pl

from benchmarks.harness import Report, parse_arguments
from recmodels.profiles.config import ProfileConfig
from recmodels.profiles.write import ProfileResult, item_task
from recmodels.profiles.write import write as write_profiles
from recmodels.schemas.tables import INTERACTIONS, ITEMS, REVIEWS

LATENCY = 0.05
IN_FLIGHT = 64
MODEL = "llama3.1:8b"
DOMAIN = "garden tools"
SERVER = Path(__file__).resolve().parents[1] / "tests" / "loopback_llm.py"

Tables = tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]


def shop(n_items: int) -> Tables:
    """Items, reviews and interactions; every other item has a description, the others two reviews."""
    item = pl.int_range(n_items, dtype=pl.Int32, eager=True)
    number = item.cast(pl.String)
    description = "Spade " + number + " is forged from one piece of steel and digs heavy soil. " * 10
    items = pl.DataFrame(
        {
            "item_id": item,
            "asin": "B" + number,
            "title": "Forged spade number " + number + " with an ash handle",
            "description": pl.select(pl.when(item % 2 == 0).then(description).otherwise(pl.lit(""))).to_series(),
            "brand": ["Digwell"] * n_items,
            "categories": [["Garden", "Tools", "Spades"]] * n_items,
            "price": [None] * n_items,
            "image_url": [""] * n_items,
        },
        schema=ITEMS,
    )
    reviews = pl.concat(
        pl.DataFrame(
            {
                "user_id": (item + user).cast(pl.Int32),
                "item_id": item,
                "rating": [5.0] * n_items,
                "timestamp": [1_000_000 + user] * n_items,
                "summary": ["Does what it should"] * n_items,
                "text": "I have dug with spade " + number + " for a year and the handle has never come loose. " * 4,
            },
            schema=REVIEWS,
        )
        for user in range(2)
    )
    interactions = reviews.select("user_id", "item_id", "rating", "timestamp").with_columns(split=pl.lit("train"))
    return items, reviews, interactions.cast(INTERACTIONS)


@contextmanager
def loopback_server() -> Iterator[str]:
    """Yield the address of a server in a process of its own."""
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, SERVER, "--latency", str(LATENCY)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


def write(tables: Tables, config: ProfileConfig, cache: Path) -> tuple[ProfileResult, float, float]:
    """Return the result, its wall time and its CPU time in seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = write_profiles(item_task(*tables, domain=DOMAIN, config=config), cache)
    return result, time.perf_counter() - wall, time.process_time() - cpu


def measure_calls(report: Report, address: str, n_items: int, rounds: int) -> None:
    configs = {
        "ollama": ProfileConfig(backend="ollama", server=address, model=MODEL, in_flight=IN_FLIGHT),
        "openai": ProfileConfig(backend="openai", server=f"{address}/v1", model=MODEL, in_flight=IN_FLIGHT),
    }
    tables = shop(n_items)
    warm_up = shop(IN_FLIGHT)
    rates: dict[str, list[float]] = {name: [] for name in configs}
    cpu_ms: dict[str, list[float]] = {name: [] for name in configs}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(rounds + 1):
            for name, config in configs.items():
                cache = Path(folder) / f"{name}{turn}.sqlite"
                result, wall, cpu = write(tables if turn else warm_up, config, cache)
                assert result.stats["answered"] == result.stats["calls"] == result.table.height
                if turn:
                    rates[name].append(n_items / wall / (IN_FLIGHT / LATENCY))
                    cpu_ms[name].append(1000 * cpu / n_items)
    ideal = f"ideal {IN_FLIGHT / LATENCY:,.0f} a second"
    for name, suffix in (("ollama", ""), ("openai", "_openai")):
        report.add(f"profile_rate_vs_ideal{suffix}", median(rates[name]), baseline=ideal, goal=">= 0.85")
        report.add(f"profile_cpu_ms{suffix}", median(cpu_ms[name]), unit="ms", baseline="a profile", goal="<= 1")


def measure_cache(report: Report, address: str, n_items: int, rounds: int) -> None:
    """Time a run that finds every answer."""
    tables = shop(n_items)
    config = ProfileConfig(backend="ollama", server=address, model=MODEL, in_flight=1024)
    seconds: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cache.sqlite"
        write(tables, config, path)
        for _ in range(rounds):
            result, wall, _ = write(tables, config, path)
            assert result.stats["from_cache"] == n_items
            assert result.stats["calls"] == 0
            seconds.append(wall)
    report.add("cache_50k_s", median(seconds) * 50_000 / n_items, unit="s", baseline=f"{n_items:,} rows", goal="<= 5")


def main() -> None:
    arguments = parse_arguments(__doc__)
    report = Report("Profiles")
    with loopback_server() as address:
        measure_calls(report, address, 300 if arguments.quick else 5_000, 1 if arguments.quick else 3)
        measure_cache(report, address, 1_000 if arguments.quick else 50_000, 1 if arguments.quick else 3)
    report.finish(arguments.json)


if __name__ == "__main__":
    main()
