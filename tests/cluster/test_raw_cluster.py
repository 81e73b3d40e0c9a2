"""Raw files read on a Ray cluster: the tables of this process, also where a node dies while blocks are parsed."""

import gzip
import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from recmodels.catalogue.entries import DatasetEntry, Source
from recmodels.compute.base import Compute
from recmodels.compute.local import LOCAL
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


def test_tables_are_those_of_this_process(cluster: Any, folder: Path) -> None:
    local, compute = read(folder, LOCAL), cluster.undisturbed()
    require_equal(read(folder, compute), local)
    assert local.dump.rejects["line"].to_list() == [18, 4322]
    assert local.dump.reviews.height == local.interactions.height > 3000
    assert compute.record()["blocks"] > 10
    assert compute.record()["repeated"] == 0


def test_a_node_that_dies_while_blocks_are_parsed_changes_nothing(
    cluster: Any, kill_one_node_after: Callable[[float], threading.Thread], folder: Path
) -> None:
    compute = cluster.compute()
    killing = kill_one_node_after(0.5)
    require_equal(read(folder, compute, slow=True), read(folder, LOCAL))
    killing.join()
    assert compute.record()["repeated"] >= 1


def test_a_refusal_is_the_same(cluster: Any, tmp_path: Path) -> None:
    (tmp_path / "reviews.json.gz").write_bytes(gzip.compress(b"none\n{}\n"))
    texts: list[str] = []
    for compute in (LOCAL, cluster.compute()):
        with pytest.raises(InputError) as caught:
            read(tmp_path, compute)
        texts.append(str(caught.value))
    assert texts[0] == texts[1]
    assert "2 unreadable lines" in texts[0]
