"""Ctrl-C stops a search within seconds, and the same command goes on after the tries that had ended."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

SECONDS = 15.0
"""In which it has to stop on a machine with much else to do."""
TRIES = 40
"""Enough that the interrupt comes before the last one also when this process waits for seconds."""
ARGUMENTS = ["tune", "--dataset", "demo", "--models", "bpr", "--trials", str(TRIES), "--json"]


def _ended(root: Path) -> list[int]:
    """Return the numbers of the tries whose outcome is on disk, in order."""
    journals = [file.read_text() for file in root.glob("tuning/demo/bpr/*/tries.jsonl")]
    # What follows the last end of a line is being written.
    entries = [json.loads(line) for journal in journals for line in journal.split("\n")[:-1]]
    numbers = [entry["user_attrs"]["number"] for entry in entries if entry["op_code"] == 4]
    return [numbers[entry["trial_id"]] for entry in entries if "outcome" in entry.get("user_attr", {})]


@pytest.mark.slow
def test_an_interrupted_search_goes_on_after_what_had_ended(tmp_path: Path) -> None:
    root, catalogue = tmp_path / "data", tmp_path / "catalogue.toml"
    catalogue.write_text("[demo.tuning]\nepochs = 25\nstartup_trials = 100\n")
    environment = os.environ | {"RECMODELS_DATA": str(root), "RECMODELS_CATALOGUE": str(catalogue)}
    environment.pop("DAGSTER_HOME", None)

    def command(until: Callable[[], bool] | None) -> tuple[int, str, str]:
        with (tmp_path / "out").open("w") as out, (tmp_path / "err").open("w") as err:
            process = subprocess.Popen(
                [sys.executable, "-u", "-m", "pipelines.cli", *ARGUMENTS],
                stdout=out,
                stderr=err,
                env=environment,
                start_new_session=True,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )
            try:
                while until and not until():
                    assert process.poll() is None, (tmp_path / "err").read_text()
                    time.sleep(0.02)
                if until:
                    os.killpg(process.pid, signal.SIGINT)
                return process.wait(SECONDS if until else None), *((tmp_path / n).read_text() for n in ("out", "err"))
            finally:
                process.kill()

    status, out, err = command(lambda: len(_ended(root)) >= 2)
    assert status == 130, err
    assert "interrupted; run the same command again to go on" in out + err
    assert "Traceback" not in out + err
    before = _ended(root)
    assert 2 <= len(before) < TRIES
    status, out, err = command(None)
    assert status == 0, err
    (row,) = json.loads(out)
    assert (row["model"], row["tries"], row["failed"], row["unfinished"]) == ("bpr", TRIES, 0, 0)
    assert _ended(root) == [*range(TRIES)]
    assert row["valid_recall"] >= row["valid_recall_today"]
