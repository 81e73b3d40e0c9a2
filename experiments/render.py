"""Draws docs/results.md from what was measured: results by ``data set/row/seed``, tests by ``data set/row/row``."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from experiments.rows import DOCS, HERE, PUBLISHED, ROWS
from recmodels.catalogue.entries import load_catalogue
from recmodels.evaluation.leaderboard import leaderboard
from recmodels.reporting.tables import HEADLINE, figure_name, leaderboard_figures

RESULTS = DOCS / "results.json"
COMPARISONS = DOCS / "comparisons.json"
PAGE = DOCS / "results.md"
FIGURES = [figure_name(metric, k) for metric, k in HEADLINE]
ACTIVITY = "recall@20 by activity"


def read(path: Path) -> dict[str, Any]:
    """Return what a JSON file holds; nothing where there is none."""
    return json.loads(path.read_text()) if path.exists() else {}


def rendered(results: Mapping[str, Any], comparisons: Mapping[str, Any]) -> str:
    """Return the page: what the rows read, and for each data set figures, paired tests and groups of users."""
    parts = [(HERE / "preface.md").read_text()]
    for name, of_dataset in ROWS.data_sets.items():
        runs = {row: found for row in of_dataset.rows if (found := runs_of(results, name, row))}
        if runs:
            tables = [_figures(name, runs), *_comparisons(comparisons, name), _groups(runs)]
            parts += [f"## {load_catalogue()[name].title}\n", *tables]
    return "\n".join(parts)


def runs_of(results: Mapping[str, Any], name: str, row: str) -> dict[int, Any]:
    """Return the results of a row by seed."""
    return {int(seed): results[key] for key in results for *of, seed in [key.split("/")] if of == [name, row]}


def _figures(name: str, runs: Mapping[str, Mapping[int, Any]]) -> str:
    measured = leaderboard_figures(leaderboard(_long(runs))).rows_by_key("model", named=True, unique=True)
    rows: list[list[str]] = []
    for row, of_row in runs.items():
        published = PUBLISHED[name].get(row, {})
        epochs = ", ".join(str(run["best_epoch"]) for run in of_row.values() if "best_epoch" in run)
        seconds = [run["seconds"] for run in of_row.values() if "seconds" in run]
        rows.append(
            [
                ROWS.rows[row].title,
                str(len(of_row)),
                *(measured[row][figure] for figure in FIGURES),
                f"{published['recall@20']:.4f} {published['ndcg@20']:.4f}" if published else "",
                epochs,
                f"{np.mean(seconds) / 60:.1f}" if seconds else "",
            ]
        )
    columns = ["row", "seeds", "R@10", "R@20", "N@10", "N@20", "published R@20, N@20", "best epoch", "minutes a run"]
    return _table(columns, rows, texts={"row", "published R@20, N@20"})


def _long(runs: Mapping[str, Mapping[int, Any]]) -> pl.DataFrame:
    rows = [
        (row, "", seed, metric, k, run["test"][figure_name(metric, k)])
        for row, of_row in runs.items()
        for seed, run in of_row.items()
        for metric, k in HEADLINE
    ]
    return pl.DataFrame(rows, schema=["model", "provenance", "seed", "metric", "k", "value"], orient="row")


def _comparisons(comparisons: Mapping[str, Any], name: str) -> list[str]:
    rows = [
        [
            f"{ROWS.rows[first].title} against {ROWS.rows[second].title}",
            figure,
            str(len(tests["seeds"])),
            f"{tests[figure]['difference']:+.4f}",
            f"{100 * tests[figure]['relative']:+.1f} %",
            _p_value(tests[figure]["t_p_value"]),
            _p_value(tests[figure]["wilcoxon_p_value"]),
        ]
        for first, second in ROWS.comparisons
        if (tests := comparisons.get(f"{name}/{first}/{second}"))
        for figure in ("recall@20", "ndcg@20")
    ]
    columns = ["comparison", "metric", "seeds", "difference", "relative", "p (paired t)", "p (signed rank)"]
    table = _table(columns, rows, texts={"comparison", "metric"})
    return [f"Per-user means over the seeds, users paired:\n\n{table}"] if rows else []


def _p_value(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else f"{value:.0e}"


def _groups(runs: Mapping[str, Mapping[int, Any]]) -> str:
    groups = list(next(iter(next(iter(runs.values())).values()))[ACTIVITY])
    rows = [
        [
            ROWS.rows[row].title,
            *(f"{np.mean([run[ACTIVITY][group] for run in of_row.values()]):.4f}" for group in groups),
        ]
        for row, of_row in runs.items()
    ]
    users = "R@20 of users with training items"
    return _table([users, *groups], rows, texts={users})


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, texts: set[str]) -> str:
    """Return a Markdown table; columns that are no texts are numbers, on the right."""
    rules = "".join("|---" if column in texts else "|---:" for column in columns)
    return "".join([_line(columns), f"{rules}|\n", *map(_line, rows)])


def _line(values: Sequence[str]) -> str:
    return f"| {' | '.join(values)} |\n"
