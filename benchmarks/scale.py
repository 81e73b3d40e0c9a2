"""
What a row costs at each stage: bytes held and core seconds, at two sizes a factor 10 apart, so that growth shows.

Every measurement is a process of its own with one thread a library. Its bytes are the highest resident memory of the
work, input included, beyond what the process held after a tiny problem; its core seconds are those of the work alone.
Imports are those of a stage alone. `benchmarks/scale_page.py` makes the tables of docs/scale.md of the JSON file.
"""

import gc
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import psutil

from benchmarks.harness import Report, highest_megabytes, parse_arguments, peak_megabytes, peak_of_process

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    import torch

    from benchmarks.transport import Problem
    from recmodels.models.inputs import TrainingData
    from recmodels.training.trainer import EpochRecord

ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS", "RAYON_NUM_THREADS")
PER_USER, PER_ITEM = 9, 40
"""Interactions a user and an item, as the benchmark of ingestion has them."""
FACTOR = 10
WIDTH, ENCODED_WIDTH, LAYERS, STEPS, RANKED_USERS = 64, 384, 2, 10, 2_000


class Done(NamedTuple):
    """
    What a piece of work went through.

    Attributes
    ----------
    rows, units
        What its bytes and its core seconds are counted by.
    core_seconds
        Of the part that counts; None where all of it does.
    """

    rows: float
    units: float
    core_seconds: float | None = None


class Stage(NamedTuple):
    """
    A stage as it is measured.

    Attributes
    ----------
    title, row, unit
        Its name, and those of `Done.rows` and `Done.units`.
    prepare, work
        From a size to the input, and what is measured.
    size
        Of the small problem; the large one is `FACTOR` times that, a hundredth of it is tiny.
    """

    title: str
    row: str
    unit: str
    prepare: Callable[[int], Any]
    work: Callable[[Any], Done]
    size: int


class Cost(NamedTuple):
    """Rows, units, bytes and core seconds of a measurement."""

    rows: float
    units: float
    bytes: float
    core_seconds: float


def measured(stage: Stage, size: int, tiny: int) -> Cost:
    """Return what a problem costs in this process, once a tiny one has loaded what the work needs."""
    stage.work(stage.prepare(tiny))
    peak_megabytes(gc.collect)  # gives back what is free
    start = psutil.Process().memory_info().rss
    problem = stage.prepare(size)

    def work() -> tuple[Done, float]:
        began = time.process_time()
        return stage.work(problem), time.process_time() - began

    # What making the input took for a moment does not count: the mark is reset before the work.
    _, (done, spent) = peak_megabytes(work)
    seconds = spent if done.core_seconds is None else done.core_seconds
    return Cost(done.rows, done.units, max(1e6 * highest_megabytes() - start, 0.0), seconds)


def measured_by_name(name: str, size: int, tiny: int) -> Cost:
    """Return what a problem of a stage costs."""
    return measured(STAGES[name], size, tiny)


def review_file(n: int) -> Path:
    """Write a gzip file of n generated reviews of about 600 bytes."""
    import numpy as np

    from benchmarks.ingest import ENTRY, FULL, review_lines, write_gzip
    from recmodels.raw.formats.base import Role

    path = Path(tempfile.mkdtemp()) / ENTRY.sources["amazon2014"].files[Role.REVIEWS]
    sizes = FULL._replace(reviews=n, items=n // PER_ITEM + 1, users=n // PER_USER + 1)
    write_gzip(path, review_lines(sizes, np.random.default_rng(0)))
    return path


def review_table(path: Path) -> "pl.DataFrame":
    """Return the reviews of a file."""
    from recmodels.raw.formats.registry import format_named

    return format_named("amazon2014").read_interactions(path).table


def parsed(path: Path) -> Done:
    """Parse a file of reviews."""
    n = review_table(path).height
    return Done(n, n)


def distinct(reviews: "pl.DataFrame") -> Done:
    """Keep one review a pair."""
    from recmodels.data.by_user import one_row_a_pair

    one_row_a_pair(None, reviews)
    return Done(reviews.height, reviews.height)


def interactions(n: int) -> "tuple[np.ndarray, np.ndarray, np.ndarray]":
    """Draw users, items of uneven popularity and times."""
    import numpy as np

    rng = np.random.default_rng(0)
    n_users, n_items = n // PER_USER + 1, n // PER_ITEM + 1
    items = (n_items * rng.random(n) ** 2).astype(np.int32)
    return rng.integers(n_users, size=n, dtype=np.int32), items, rng.integers(1_200_000_000, 1_400_000_000, size=n)


def split(raw: "tuple[np.ndarray, np.ndarray, np.ndarray]") -> Done:
    """Split the 5-core."""
    from benchmarks.ingest import core_and_split

    core_and_split(*raw)
    return Done(raw[0].size, raw[0].size)


def encoded(profiles: list[str]) -> Done:
    """Encode texts that no store has."""
    from benchmarks.embeddings import ENCODER
    from recmodels.embeddings.encode import encode_texts

    with tempfile.TemporaryDirectory() as folder:
        encode_texts(profiles, ENCODER, Path(folder) / "vectors.sqlite")
    return Done(len(profiles), len(profiles))


def vectors(n: int) -> "np.ndarray":
    """Draw rows of the encoder's width."""
    import numpy as np

    return np.random.default_rng(0).standard_normal((n, ENCODED_WIDTH), dtype=np.float32)


def neighbours(x: "np.ndarray") -> Done:
    """Find the ten nearest rows of every row."""
    from recmodels.graphs.knn import knn_table

    knn_table(x, 10)
    return Done(len(x), float(len(x)) ** 2)


def transported(problem: "Problem") -> Done:
    """Find false negatives, solve the transport and select."""
    from benchmarks.transport import augmented

    found = float(augmented(problem).diagnostics["n_false_negatives"])
    return Done(found, found)


def training_data(n: int) -> "TrainingData":
    """Four fifths of n interactions to train on, and a hundred pairs to validate by."""
    import numpy as np

    from recmodels.models.inputs import TrainingData

    users, items, _ = interactions(n * 4 // 5)
    n_users, n_items = n // PER_USER + 1, n // PER_ITEM + 1
    keys = np.unique(users.astype(np.int64) * n_items + items)
    some = np.arange(min(100, n_users))
    return TrainingData(n_users, n_items, keys // n_items, keys % n_items, some, some % n_items)


def trained(data: "TrainingData") -> Done:
    """Train LightGCN for two epochs; the core seconds are those of the second one."""
    from recmodels.models.config import TrainingConfig
    from recmodels.models.zoo import lightgcn
    from recmodels.training.trainer import fit

    n = data.train_users.size
    training = TrainingConfig(epochs=2, batch_size=-(-n // STEPS), device="cpu")
    config = lightgcn.Config(embedding_size=WIDTH, n_layers=LAYERS, training=training)
    ends: list[float] = []

    def note(_: "EpochRecord") -> None:
        ends.append(time.process_time())

    fit(lightgcn.Model(config, data, torch_generator()), data, seed=0, on_epoch=[note])
    return Done(data.n_users + data.n_items, n * STEPS, ends[1] - ends[0])


def torch_generator() -> "torch.Generator":
    """Return a seeded generator of PyTorch."""
    import torch

    return torch.Generator().manual_seed(0)


def embeddings(n_items: int) -> "tuple[torch.Tensor, torch.Tensor]":
    """Draw embeddings of users and of items."""
    import torch

    generator = torch_generator()
    users, items = (torch.randn(n, WIDTH, generator=generator) for n in (RANKED_USERS, n_items))
    return users, items


def ranked(drawn: "tuple[torch.Tensor, torch.Tensor]") -> Done:
    """Evaluate the users by full ranking, of whose items some were trained on and others are held out."""
    import numpy as np

    from recmodels.evaluation.evaluator import evaluate
    from recmodels.ranking.ranker import EmbeddingScorer

    n_items = len(drawn[1])
    rng = np.random.default_rng(0)
    ids = np.repeat(np.arange(RANKED_USERS), 10)
    pairs = rng.integers(n_items // 2, size=ids.size)
    evaluate(EmbeddingScorer(*drawn), (ids, pairs), (ids[::5], n_items // 2 + pairs[::5]))
    return Done(n_items, float(RANKED_USERS) * n_items)


def reviews(n: int) -> "pl.DataFrame":
    """Generate, write and parse reviews."""
    return review_table(review_file(n))


def profiles(n: int) -> list[str]:
    """Generate texts of about 65 words."""
    from benchmarks.embeddings import texts

    return texts(n)


def transport_problem(n_users: int) -> "Problem":
    """Generate training pairs and item graphs."""
    from benchmarks.transport import HUGE_USERS, synthetic

    return synthetic(n_users / HUGE_USERS)


STAGES = {
    "parse": Stage("parsing raw reviews", "review", "review", review_file, parsed, 40_000),
    "distinct": Stage("one review a pair", "review", "review", reviews, distinct, 40_000),
    "split": Stage("5-core and split", "interaction", "interaction", interactions, split, 1_000_000),
    "embed": Stage("embedding of texts, 65 words", "text", "text", profiles, encoded, 32),
    "neighbours": Stage("exact neighbours, 384 wide", "row", "pair of rows", vectors, neighbours, 8_200),
    "transport": Stage("transport", "false negative", "false negative", transport_problem, transported, 50_000),
    "train": Stage("LightGCN, 2 layers, d = 64", "node", "training row and step", training_data, trained, 200_000),
    "rank": Stage("full ranking, d = 64", "item", "user-item pair", embeddings, ranked, 20_000),
}


def main() -> None:
    arguments = parse_arguments(__doc__ or "")
    os.environ.update((name, "1") for name in ONE_THREAD)
    report = Report("Costs of a row")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TMPDIR"] = folder  # what the children write goes with it
        for name, stage in STAGES.items():
            tiny = max(stage.size // 100, 4)
            small = tiny if arguments.quick else stage.size
            for label, size in (("small", small), ("large", FACTOR * small)):
                _, cost = peak_of_process(measured_by_name, name, size, tiny)
                for part, value in cost._asdict().items():
                    report.add(f"{name}_{label}_{part}", value, baseline=stage.title)
    report.finish(arguments.json)


if __name__ == "__main__":
    main()
