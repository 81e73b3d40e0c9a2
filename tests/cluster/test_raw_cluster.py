"""Raw files read on a Ray cluster: the tables of this process, also where a node dies while blocks are parsed."""

import gzip
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from recmodels.catalogue.entries import DatasetEntry, Source
from recmodels.compute.base import Compute
from recmodels.compute.local import LOCAL
from recmodels.compute.on_ray import OnRay
from recmodels.data.by_user import Limits
from recmodels.data.prepare import Prepared, prepare_tables
from recmodels.data.raw_files import prepare_raw_files
from recmodels.errors import InputError
from recmodels.raw.formats.base import Role
from recmodels.raw.formats.registry import FORMATS
from recmodels.raw.formats.reviews import reviews_in_blocks
from recmodels.raw.lines import LineBlock
from recmodels.raw.rejects import RejectLog

pytestmark = pytest.mark.slow

ENTRY = DatasetEntry(
    key="cluster",
    title="Cluster",
    domain="things",
    sources={"amazon2014": Source(files={Role.REVIEWS: "reviews.json.gz"}, k_core=5)},
)
IN_BLOCKS = reviews_in_blocks("amazon2014", block_bytes=40_000)


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    """A head and two nodes of one processor each, all in this machine."""
    import ray
    from ray.cluster_utils import Cluster

    handler = signal.getsignal(signal.SIGTERM)
    with mock.patch.dict(os.environ, {"PYTHONPATH": os.pathsep.join(sys.path), "RAY_USAGE_STATS_ENABLED": "0"}):
        args = {"num_cpus": 1, "object_store_memory": 100_000_000, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=args)
        for _ in range(2):
            cluster.add_node(num_cpus=1, object_store_memory=100_000_000)
        ray.init(address=cluster.address, log_to_driver=False)
        signal.signal(signal.SIGTERM, handler)
        yield cluster
        ray.shutdown()
        cluster.shutdown()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 6,000 reviews, some of which are repeated, and lines that are none."""
    rng = np.random.default_rng(0)
    lines = [
        json.dumps(
            {
                "reviewerID": f"A{user:05}",
                "asin": f"B{item:09}",
                "overall": float(rating),
                "unixReviewTime": 1_300_000_000 + 86_400 * int(day),
                "reviewText": f"worth {rating} stars &amp; day {day}",
            }
        )
        for user, item, rating, day in zip(
            rng.integers(400, size=6000),
            rng.integers(90, size=6000),
            rng.integers(1, 6, size=6000),
            rng.integers(30, size=6000),
            strict=True,
        )
    ]
    lines[17], lines[4321] = "none", '{"asin": "B000000001"}'
    path = tmp_path_factory.mktemp("raw") / "reviews.json.gz"
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    return path.parent


def slowly(block: LineBlock, log: RejectLog) -> pl.DataFrame:
    """Parse a block, long enough for a node to die meanwhile."""
    time.sleep(0.3)
    return IN_BLOCKS.parse(block, log)


class Watched(Compute):
    """Ray, told of every result before it is handed on."""

    engine = "ray"

    def __init__(self, told: Callable[[int], None]) -> None:
        self.ray = OnRay()
        self.told = told

    def map(
        self, function: Callable[[Any, Any], Any], blocks: Iterable[Any], *, shared: Any = None, gpus: float = 0
    ) -> Iterator[Any]:
        for number, result in enumerate(self.ray.map(function, blocks, shared=shared, gpus=gpus)):
            self.told(number)
            yield result

    def group(self, factory: Callable[[Any, Any], Any], parts: Iterable[Any], *, shared: Any = None) -> Any:
        return self.ray.group(factory, parts, shared=shared)


def read(folder: Path, compute: Compute, *, slow: bool = False) -> Prepared:
    in_blocks = replace(IN_BLOCKS, parse=slowly) if slow else IN_BLOCKS
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FORMATS, "amazon2014", replace(FORMATS["amazon2014"], in_blocks=in_blocks))
        limits = Limits(part_bytes=20_000, held_bytes=100_000, scratch=folder.parent)
        return prepare_tables(prepare_raw_files(ENTRY, folder), ENTRY, compute=compute, limits=limits)


def require_equal(found: Prepared, expected: Prepared) -> None:
    for table in ("items", "users", "reviews", "interactions", "rejects"):
        assert_frame_equal(getattr(found.dump, table), getattr(expected.dump, table))
    assert_frame_equal(found.interactions, expected.interactions)
    assert found.dump.counts == expected.dump.counts


def test_tables_are_those_of_this_process(nodes: Any, folder: Path) -> None:
    local, compute = read(folder, LOCAL), OnRay()
    require_equal(read(folder, compute), local)
    assert local.dump.rejects["line"].to_list() == [18, 4322]
    assert local.dump.reviews.height == local.interactions.height > 3000
    record = compute.record()
    assert int(record["blocks"]) > 10
    assert (record["nodes"], record["repeated"]) == (3, 0)


def test_a_node_that_dies_while_blocks_are_parsed_changes_nothing(nodes: Any, folder: Path) -> None:
    dying = nodes.add_node(num_cpus=1, object_store_memory=100_000_000)

    def killed(number: int) -> None:
        if number == 3:
            nodes.remove_node(dying, allow_graceful=False)

    compute = Watched(killed)
    require_equal(read(folder, compute, slow=True), read(folder, LOCAL))
    assert int(compute.ray.record()["repeated"]) >= 1


def test_a_refusal_is_the_same(nodes: Any, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "reviews.json.gz").write_bytes(gzip.compress(b"none\n{}\n"))
    texts: list[str] = []
    for compute in (LOCAL, OnRay()):
        with pytest.raises(InputError) as caught:
            read(tmp_path, compute)
        texts.append(str(caught.value))
    assert texts[0] == texts[1]
    assert "2 unreadable lines" in texts[0]
