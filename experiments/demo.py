"""
The leaderboard of the demo that README shows: what `make run` measured, kept in docs/demo.json.

    make run && python experiments/demo.py
"""

import json
from pathlib import Path

import polars as pl

from assets.support.io_managers import read_table
from assets.support.resources import DataRoot
from pipelines.instance import open_instance
from recmodels.io.digest import frame_digest
from recmodels.io.files import atomic_file
from recmodels.reporting.tables import HEADLINE, figure_name

DEMO = Path(__file__).resolve().parents[1] / "docs" / "demo.json"


def main() -> None:
    with open_instance() as instance:
        board = read_table(instance, DataRoot(), "leaderboard", "demo")
    models: dict[str, dict[str, dict[str, float]]] = {}
    for metric, k in HEADLINE:
        for row in board.filter((pl.col("metric") == metric) & (pl.col("k") == k)).iter_rows(named=True):
            figures = {name: row[name] for name in ("mean", "std", "n_seeds")}
            models.setdefault(row["model"], {})[figure_name(metric, k)] = figures
    with atomic_file(DEMO) as temporary:
        temporary.write_text(json.dumps({"data_version": frame_digest(board), "models": models}, indent=1) + "\n")


if __name__ == "__main__":
    main()
