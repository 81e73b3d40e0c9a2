"""`recmodels run` on a disk that is full again and again: one clear line each time, and in the end nothing differs."""

import sqlite3
from pathlib import Path

import polars as pl
import pytest
from forked_runs import forking_server
from small_disk import enlarge, small_disk

from recmodels.raw.demo import write_demo_dump

pytestmark = pytest.mark.slow

FIRST_SIZE = 256 * 1024
GROWTH = 2.5
ENOUGH = 64 * 1024 * 1024
ROOM = ("make room", "free")


def _board(root: Path) -> pl.DataFrame:
    (path,) = (root / "tables" / "leaderboard" / "demo").iterdir()
    return pl.read_parquet(path)


def test_a_run_goes_on_whenever_room_was_made_on_a_full_disk(tmp_path: Path) -> None:
    write_demo_dump(tmp_path / "raw", n_users=60, n_items=40)
    (tmp_path / "catalogue.toml").write_text("[demo.models.bpr.training]\nepochs = 2\n")
    arguments = ["run", "--raw-dir", str(tmp_path / "raw"), "--models", "bpr", "--seeds", "0"]
    variables = {"RECMODELS_CATALOGUE": str(tmp_path / "catalogue.toml"), "RECMODELS_SEEDS": "0"}
    with forking_server(variables) as runs, small_disk(tmp_path / "disk", FIRST_SIZE) as disk:

        def run(root: Path) -> tuple[int, str]:
            (status,) = runs([{"arguments": arguments, "root": str(root), "log": str(tmp_path / "log")}])
            return status, (tmp_path / "log").read_text()

        size, refusals, stages = FIRST_SIZE, 0, set[str]()
        status, told = run(disk / "data")
        while status:
            refusals += 1
            stages.add(_stage(told))
            assert status == 1, told
            assert "Traceback" not in told, told
            errors = [line.lower() for line in told.splitlines() if line.startswith("error: ")]
            assert errors, told
            assert any(all(word in line for word in ROOM) for line in errors), told
            assert size < ENOUGH, told
            size = int(size * GROWTH)
            enlarge(disk, size)
            status, told = run(disk / "data")
        assert refusals >= 3
        assert len(stages) >= 2, stages
        assert not [left for kind in ("tables", "documents") for left in (disk / "data" / kind).rglob("*.tmp")]
        with sqlite3.connect(next((disk / "data" / "dagster").rglob("runs.db"))) as records:
            assert {state for (state,) in records.execute("SELECT status FROM runs")} <= {"SUCCESS", "FAILURE"}

        status, told = run(tmp_path / "undisturbed")
        assert status == 0, told
        assert _board(disk / "data").equals(_board(tmp_path / "undisturbed"))


def _stage(told: str) -> str:
    """Return which job a run was at."""
    jobs = [line.split()[0] for line in told.splitlines() if line.split()[:1] in (["prepare"], ["train"], ["evaluate"])]
    return jobs[-1] if jobs else "start"
