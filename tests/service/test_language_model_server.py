"""A real language model behind a real server writes the profiles of a whole data set; the server dies in the middle."""

import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from deployment import PATIENCE
from llama import MODEL, SLOTS, LlamaServer, running_llama

from recmodels.catalogue.entries import load_catalogue
from recmodels.data.dump import load_dump
from recmodels.data.raw_files import prepare_raw_files
from recmodels.data.split import split_interactions
from recmodels.llm.runner import Progress
from recmodels.profiles.config import ProfileConfig
from recmodels.profiles.write import item_task, write

pytestmark = pytest.mark.slow


def _answers(cache: Path) -> int:
    with sqlite3.connect(cache) as connection:
        return connection.execute("SELECT count(*) FROM answers").fetchone()[0]


def _kill_and_restart(server: LlamaServer, due: threading.Event) -> None:
    assert due.wait(3 * PATIENCE)
    server.kill()
    time.sleep(2.0)
    server.start()


def test_profiles_of_gift_cards_by_a_server_that_dies_in_the_middle(shared_data: Path, tmp_path: Path) -> None:
    entry = load_catalogue()["gift_cards"]
    dump = load_dump(prepare_raw_files(entry, shared_data / "raw" / "gift_cards", fetch=False), entry)
    interactions = split_interactions(dump.interactions, "random", seed=0)
    cache = tmp_path / "profiles.sqlite"
    with running_llama(tmp_path) as server:
        config = ProfileConfig.model_validate(
            {
                "backend": "openai", "model": MODEL, "server": server.address, "answer_tokens": 220,
                "prompt_tokens": 600, "in_flight": 2 * SLOTS,
            }
        )  # fmt: skip
        task = item_task(dump.items, dump.reviews, interactions, domain=entry.domain, config=config)
        due = threading.Event()

        def watch(progress: Progress) -> None:
            if progress.done >= task.rows // 3:
                due.set()

        with ThreadPoolExecutor(1) as aside:
            disturbance = aside.submit(_kill_and_restart, server, due)
            result = write(task, cache, watch)
            disturbance.result()
        stats = {name: value for name, value in result.stats.items() if isinstance(value, int)}

        # Every row has a profile, every call its end, and every answer that came is in the cache.
        assert (result.table["profile"] != "").all()
        assert stats["rows"] == stats["answered"] + stats["fallback"] == task.rows
        assert stats["calls"] == sum(stats[end] for end in ("replies", "faults", "busy", "rejected", "cancelled"))
        assert stats["replies"] == _answers(cache)
        assert stats["outages"] == 1
        assert 1 <= stats["faults"] <= config.in_flight + 1
        assert stats["dead_letters"] == 0
        assert stats["answered"] >= 0.95 * task.rows, result.unusable

        again = write(task, cache)
        assert again.stats["calls"] == 0
        assert again.table.equals(result.table)
