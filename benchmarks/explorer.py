"""
The explorer under load: how long a recommendation takes 16 clients who ask all the time, at the size of Clothing.

The data are generated: only their size matters. Server and clients share the machine, one process each.

    python benchmarks/explorer.py [--quick] [--json PATH]
"""

import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

import dagster as dg
import numpy as np
import polars as pl
import psutil
import torch
from harness import PUBLISHED_SIZES, Report, parse_arguments, served

from assets.serving import seed_partition
from assets.support.io_managers import STORED_AT, STORED_BYTES, STORED_SHA256
from assets.training import checkpoint_key
from pipelines.instance import open_instance
from recmodels.checkpoints.store import Checkpoint, write_checkpoint
from recmodels.io.files import MANIFEST, Content, data_root, store_by_content
from recmodels.models.registry import resolve_config
from recmodels.ranking.ranker import EmbeddingScorer
from recmodels.schemas.tables import INTERACTIONS, ITEMS, REVIEWS

CLIENTS = 16
WIDTH = 64
GOAL_MS = 50.0
PORT = 3199


def main() -> None:
    arguments = parse_arguments(__doc__ or "")
    n_users, n_items, n_pairs = (500, 300, 3000) if arguments.quick else PUBLISHED_SIZES["clothing"]
    requests = 400 if arguments.quick else 20_000
    report = Report(f"Explorer: {n_users:,} users x {n_items:,} items, d = {WIDTH}, {CLIENTS} clients")
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"RECMODELS_DATA": folder, "DAGSTER_HOME": ""}
        _store(n_users, n_items, n_pairs)
        address = f"http://127.0.0.1:{PORT}"
        command = [sys.executable, "-m", "pipelines.cli", "explore", "--port", str(PORT)]
        with served(command, f"{address}/api/datasets") as started_server:
            server = psutil.Process(started_server.pid)
            asyncio.run(_latencies(address, n_users, 8 * CLIENTS))
            started, worked = time.perf_counter(), sum(server.cpu_times()[:2])
            milliseconds = 1000 * asyncio.run(_latencies(address, n_users, requests))
            seconds, worked = time.perf_counter() - started, sum(server.cpu_times()[:2]) - worked
    for name, quantile in (("median", 0.5), ("p95", 0.95), ("p99", 0.99), ("largest", 1.0)):
        goal = f"{GOAL_MS:g} ms" if name == "p99" else ""
        report.add(name, float(np.quantile(milliseconds, quantile)), unit="ms", goal=goal)
    report.add("rate", requests / seconds, unit="a second")
    report.add("processor time of the server", 1000 * worked / requests, unit="ms a request")
    report.add("load", os.getloadavg()[0], baseline="of the whole machine in the last minute")
    report.finish(arguments.json)


def _store(n_users: int, n_items: int, n_pairs: int) -> None:
    """Store tables and a checkpoint of random content under the data root, with their records."""
    rng = np.random.default_rng(0)
    pairs = pl.DataFrame({"user_id": rng.integers(0, n_users, n_pairs), "item_id": rng.integers(0, n_items, n_pairs)})
    pairs = pairs.unique().sort("user_id", "item_id").cast(pl.Int32)
    split = rng.choice(["train", "valid", "test"], pairs.height, p=[0.8, 0.1, 0.1])
    users = pl.DataFrame({"user_id": range(n_users), "reviewer_id": map(_user, range(n_users))}).cast(
        {"user_id": pl.Int32}
    )
    rows = [(item, f"B{item:09}", f"A thing with a title of usual length, number {item}") for item in range(n_items)]
    rated = pairs.with_columns(split=pl.Series(split), rating=None, timestamp=None)
    tables = {
        "interactions": rated.cast(dict(INTERACTIONS)).select(INTERACTIONS.names()),
        "users": users,
        "items": pl.DataFrame(
            [(*row, "", "", [], None, f"https://images.example.com/{row[1]}.jpg") for row in rows], ITEMS, orient="row"
        ),
        "reviews": pl.DataFrame(schema=REVIEWS),
    }
    root = data_root()
    with open_instance() as instance:
        for name, table in tables.items():
            path, content = store_by_content(root / "tables" / name / "demo", ".parquet", table.write_parquet)
            _record(instance, root, dg.AssetKey(name), "demo", path, content)
        generator = torch.Generator().manual_seed(0)
        vectors = [torch.randn(n, WIDTH, generator=generator) for n in (n_users, n_items)]
        seen = tables["interactions"].filter(pl.col("split") != "test").select("user_id", "item_id", "split")
        named = (users, tables["items"].select("item_id", "asin"))
        directory = root / "checkpoints" / "bpr"
        directory.parent.mkdir()
        stored = Checkpoint(
            "bpr", resolve_config("bpr"), 0, {}, EmbeddingScorer(*vectors), pl.DataFrame(), {}, *named, seen
        )
        write_checkpoint(directory, stored)
        content = Content.of(directory / MANIFEST)
        _record(instance, root, checkpoint_key("bpr"), seed_partition("demo", 0), directory, content)


def _user(number: int) -> str:
    return f"A{number:013}"


def _record(
    instance: dg.DagsterInstance, root: Path, key: dg.AssetKey, partition: str, path: Path, content: Content
) -> None:
    stored = {STORED_AT: path.relative_to(root).as_posix(), STORED_BYTES: content.size, STORED_SHA256: content.sha256}
    instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=partition, metadata=stored))


async def _latencies(address: str, n_users: int, requests: int) -> np.ndarray:
    """Return the seconds that each of so many recommendations took, asked by all clients at once."""
    host, _, port = address.removeprefix("http://").partition(":")
    users = iter(np.random.default_rng(1).integers(0, n_users, requests).tolist())
    seconds: list[float] = []

    async def client() -> None:
        # A bare connection that is kept: a client library would take more of the machine than the server does.
        reader, writer = await asyncio.open_connection(host, int(port))
        for user in users:
            path = f"/api/recommendations?dataset=demo&model=bpr&seed=0&n=20&user={_user(user)}"
            started = time.perf_counter()
            writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
            body = await reader.readexactly(length)
            seconds.append(time.perf_counter() - started)
            assert body.count(b'"rank"') == 20
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return np.array(seconds)


if __name__ == "__main__":
    main()
