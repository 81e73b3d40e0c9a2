"""
Recall and NDCG of the models on the published data sets: trains what is asked for, keeps every result, renders tables.

A result belongs to a data set, a row of rows.toml and a seed. Finished ones are in docs/results.json and are never run
again; an interrupted one goes on where it stopped. Without `--run` the script only renders docs/results.md.

    python experiments/results.py --run baby                 every unfinished result of a data set
    python experiments/results.py --run sports/freedom/0     one result
"""

import argparse
import itertools
import json
import platform
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from experiments.dataset import Dataset, results_folder
from experiments.render import ACTIVITY, COMPARISONS, FIGURES, PAGE, RESULTS, read, rendered, runs_of
from experiments.rows import HERE, ROWS
from recmodels.data.split import split_digest
from recmodels.evaluation.evaluator import EvaluationResult, evaluate
from recmodels.evaluation.leaderboard import paired_test
from recmodels.evaluation.non_personalised import popularity_embeddings
from recmodels.io.digest import frame_digest
from recmodels.io.files import atomic_file
from recmodels.models.inputs import training_data
from recmodels.models.registry import build_model, resolve_config
from recmodels.ranking.ranker import EmbeddingScorer
from recmodels.reporting.tables import figure_name
from recmodels.training.state import discard
from recmodels.training.trainer import EpochRecord, fit


def trained(dataset: Dataset, key: str, seed: int) -> tuple[dict[str, Any], EvaluationResult]:
    """Train a row with a seed and evaluate it on the test rows, once."""
    row, dump = ROWS.rows[key], dataset.dump
    train, test = dataset.pairs("train"), dataset.pairs("test")
    result = {
        "commit": commit(),
        "dataset_digest": dataset.manifest.digest,
        "split_digest": split_digest(dump.interactions),
    }
    if not row.model:
        popularity = popularity_embeddings(train[1], dump.users.height, dump.items.height)
        return result, evaluate(EmbeddingScorer(*popularity), train, test)
    config = resolve_config(row.model, row.settings)
    tables = dataset.tables(row, config)
    data = training_data(dump.interactions, n_users=dump.users.height, n_items=dump.items.height, **tables)
    state = state_folder(dataset.name, key, seed)
    model = build_model(row.model, config, data, seed)
    fitted = fit(model, data, seed=seed, on_epoch=[_shown], state_directory=state)
    result |= {
        "settings": config.model_dump(mode="json"),
        "epochs": fitted.history.height,
        "best_epoch": fitted.best_epoch,
        "valid_recall@20": fitted.best_valid_recall,
        "training_seconds": float(fitted.history["training_seconds"].sum()),
        "seconds": float(fitted.history["seconds"].sum()),
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "read": {name: frame_digest(table) for name, table in tables.items()},
    }
    return result, evaluate(fitted.ranker, train, test)


def _shown(record: EpochRecord) -> None:
    if record.epoch % 10 == 0:
        print(f"epoch {record.epoch}: validation recall@20 {record.valid_recall:.4f}, best epoch {record.best_epoch}")


def commit() -> str:
    """Return the commit that is checked out, marked where the code differs from it."""
    head = _git("rev-parse", "HEAD")
    return f"{head}-dirty" if _git("status", "--porcelain", "--", "../recmodels", ".") else head


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=HERE, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def run(patterns: list[str]) -> None:
    """Train and evaluate what is unfinished of ``data set[/row[/seed]]``; keep each result as it comes."""
    for name, row, seed in wanted(patterns):
        key = f"{name}/{row}/{seed}"
        if key in read(RESULTS):
            continue
        dataset = Dataset(name)
        result, evaluation = trained(dataset, row, seed)
        figures = {figure_name(metric, k): value for metric, k, value in evaluation.summary.iter_rows()}
        activity = evaluation.groups.filter(
            (pl.col("grouping") == "user_activity") & (pl.col("metric") == "recall") & (pl.col("k") == 20)
        )
        groups = dict(activity.select("group", "value").iter_rows())
        with atomic_file(per_user_path(name, row, seed)) as temporary:
            evaluation.per_user.write_parquet(temporary)
        write(RESULTS, read(RESULTS) | {key: {"test": figures, ACTIVITY: groups, **result}})
        discard(state_folder(name, row, seed))
        render()
        print(key, {figure: round(figures[figure], 4) for figure in FIGURES})


def wanted(patterns: list[str]) -> Iterator[tuple[str, str, int]]:
    for pattern in patterns:
        name, *rest = pattern.split("/")
        rows = [rest[0]] if rest else ROWS.data_sets[name].rows
        for seed in [int(rest[1])] if len(rest) > 1 else ROWS.data_sets[name].seeds:
            yield from ((name, row, seed) for row in rows if ROWS.rows[row].model or seed == 0)


def state_folder(name: str, row: str, seed: int) -> Path:
    return results_folder(name) / "state" / f"{row}-{seed}"


def per_user_path(name: str, row: str, seed: int) -> Path:
    return results_folder(name) / "per_user" / f"{row}-{seed}.parquet"


def write(path: Path, values: dict[str, Any]) -> None:
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(dict(sorted(values.items())), indent=1) + "\n")


def render() -> None:
    """Write docs/results.md, and docs/comparisons.json before it."""
    results = read(RESULTS)
    write(COMPARISONS, read(COMPARISONS) | compared(results))
    with atomic_file(PAGE) as temporary:
        temporary.write_text(rendered(results, read(COMPARISONS)))


def compared(results: dict[str, Any]) -> dict[str, Any]:
    """Test the pairs of rows whose per-user values are at hand: the values themselves are not in docs."""
    found: dict[str, Any] = {}
    for name, pair in itertools.product(ROWS.data_sets, ROWS.comparisons):
        first, second = (runs_of(results, name, row) for row in pair)
        seeds = sorted(first.keys() & second.keys())
        if not seeds or not all(per_user_path(name, row, seed).exists() for row in pair for seed in seeds):
            continue
        found["/".join([name, *pair])] = {"seeds": seeds}
        for column in ("recall@20", "ndcg@20"):
            frames = [_mean_of_users(name, row, seeds, column) for row in pair]
            test = paired_test(*frames, column)
            found["/".join([name, *pair])][column] = {
                "difference": test.difference,
                "relative": test.difference / frames[1][column].mean(),
                "t_p_value": test.t_p_value,
                "wilcoxon_p_value": test.wilcoxon_p_value,
            }
    return found


def _mean_of_users(name: str, row: str, seeds: list[int], column: str) -> pl.DataFrame:
    frames = [pl.read_parquet(per_user_path(name, row, seed), columns=["user_id", column]) for seed in seeds]
    return pl.concat(frames).group_by("user_id", maintain_order=True).agg(pl.col(column).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", nargs="+", default=[], metavar="DATASET[/ROW[/SEED]]", help="train unfinished results")
    parser.add_argument("--quick", action="store_true", help="accepted and without effect: rendering is quick")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the mean test figures to this file")
    arguments = parser.parse_args()
    run(arguments.run)
    render()
    if arguments.json is not None:
        values: dict[str, list[float]] = defaultdict(list)
        for key, result in read(RESULTS).items():
            name, row, _ = key.split("/")
            for figure in FIGURES:
                values[f"{name}_{row}_{figure}"].append(result["test"][figure])
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        means = {figure: float(np.mean(of_seeds)) for figure, of_seeds in values.items()}
        arguments.json.write_text(json.dumps(means, indent=2) + "\n")


if __name__ == "__main__":
    main()
