"""Training and evaluation against a textbook loop on Baby's size; peak memory of every model on Clothing's size."""

import contextlib
import random
import tempfile
import time
from collections.abc import Iterable
from multiprocessing import get_context
from statistics import median
from typing import Any

import numpy as np
import polars as pl
import torch
import torch.distributed as dist

from benchmarks import textbook_training as textbook
from benchmarks.harness import (
    PUBLISHED_SIZES,
    Report,
    parse_arguments,
    peak_megabytes,
    peak_of_process,
    published_pairs,
    random_neighbours,
    time_in_turns,
)
from recmodels.calibration.calibrate import calibrate
from recmodels.calibration.config import CalibrationConfig
from recmodels.evaluation.evaluator import evaluate
from recmodels.graphs.matrices import interaction_matrix
from recmodels.models.base import Batch
from recmodels.models.inputs import TrainingData
from recmodels.models.layers import columns
from recmodels.models.layers.dimension_transport import column_cost
from recmodels.models.registry import MODELS, build_model, resolve_config
from recmodels.ranking.ranker import EmbeddingScorer
from recmodels.training.negatives import NegativeSampler
from recmodels.training.trainer import fit
from recmodels.transport.false_negatives import false_negatives

SIZES = {**PUBLISHED_SIZES, "quick": (800, 400, 6_000)}
IMAGE_WIDTH, TEXT_WIDTH = 4096, 384
GOALS = {"lightgcn": 4, "freedom": 5, "blast": 5, "bm3": 3, "layergcn": 3}
ROUNDS = 3
SHARDED = ("bpr", "lightgcn", "layergcn")
SHARD_SIZES = {"large": (100_000, 60_000, 650_000), "quick": (2_000, 1_000, 10_000)}
"""Users, items and training pairs."""
SHARD_STEPS = 10


def problem(name: str) -> tuple[TrainingData, tuple[np.ndarray, np.ndarray]]:
    """Training data with random features and neighbours, and test pairs; the published pairs where they are at hand."""
    rng = np.random.default_rng(0)
    n_users, n_items, n_train = SIZES[name]
    pairs = published_pairs(name)
    if pairs is None:
        drawn = {"user_id": rng.integers(n_users, size=2 * n_train), "item_id": rng.zipf(1.3, 2 * n_train) % n_items}
        pairs = pl.DataFrame(drawn).unique(maintain_order=True)
        pairs = pairs.with_columns(split=pl.Series(rng.choice(3, p=[0.74, 0.13, 0.13], size=pairs.height)))
    pairs = pairs.sort("user_id", "item_id")

    def split(label: int) -> tuple[np.ndarray, np.ndarray]:
        chosen = pairs.filter(split=label)
        return chosen["user_id"].to_numpy().astype(np.int64), chosen["item_id"].to_numpy().astype(np.int64)

    def features(n: int, width: int) -> np.ndarray:
        return rng.standard_normal((n, width), dtype=np.float32)

    data = TrainingData(
        n_users,
        n_items,
        *split(0),
        *split(1),
        item_text_features=features(n_items, TEXT_WIDTH),
        item_image_features=features(n_items, IMAGE_WIDTH),
        user_features=features(n_users, TEXT_WIDTH),
        item_text_knn=random_neighbours(n_items, 0),
        item_image_knn=random_neighbours(n_items, 1),
        user_knn=random_neighbours(n_users, 2),
        added_users=rng.integers(n_users, size=n_train // 10),
        added_items=rng.integers(n_items, size=n_train // 10),
        train_times=rng.integers(10**8, size=pairs.filter(split=0).height),
    )
    return data, split(2)


def measure_epochs(report: Report, data: TrainingData, rounds: int) -> None:
    for name, goal in GOALS.items():
        # The same pairs and unrestricted negatives on both sides.
        settings = {"training": {"epochs": 1, "restricted_negatives": False, "augmentation": False}}
        config = resolve_config(name, settings)
        plain = textbook.MODELS[name](data)
        optimiser = torch.optim.Adam(plain.parameters(), lr=1e-3)
        rng = random.Random(0)  # noqa: S311 - not for secrets
        ours: list[float] = []

        def train(name: str = name, config=config, ours=ours) -> None:
            history = fit(build_model(name, config, data, 0), data, seed=0).history
            ours.append(history["training_seconds"].item())

        # What `fit` does beside the epoch (building, validation) is not part of it: its own clock counts.
        seconds = time_in_turns(
            {"ours": train, "textbook": lambda plain=plain, o=optimiser, r=rng: textbook.train_epoch(plain, o, r)},
            rounds=rounds,
        )
        epoch, what = median(ours[1:]), "a textbook's epoch"
        report.compare(f"epoch_vs_textbook_{name}", epoch, seconds["textbook"], what, unit="x", goal=f">= {goal}x")
        report.figures[f"epoch_seconds_{name}"] = epoch


def measure_evaluation(report: Report, data: TrainingData, test: tuple[np.ndarray, np.ndarray], rounds: int) -> None:
    generator = torch.Generator().manual_seed(0)
    users, items = (torch.randn(n, 64, generator=generator) for n in (data.n_users, data.n_items))
    found = evaluate(EmbeddingScorer(users, items), data.train_pairs, test)
    expected = textbook.evaluate(users, items, data.train_pairs, test)
    for name, value in expected.items():
        metric, k = name.split("@")
        np.testing.assert_allclose(found.value(metric, int(k)), value, rtol=1e-4)
    seconds = time_in_turns(
        {
            "ours": lambda: evaluate(EmbeddingScorer(users, items), data.train_pairs, test),
            "theirs": lambda: textbook.evaluate(users, items, data.train_pairs, test),
        },
        rounds=rounds,
    )
    what = "a textbook's 2 metrics; ours are 8, and by group"
    report.compare("eval_vs_textbook", **seconds, what=what, unit="x", goal=">= 3x")


def measure_calibration(report: Report, data: TrainingData) -> None:
    """Every user's validation items stand high in the base ranking, so that the search has every user to look at."""
    generator = torch.Generator().manual_seed(0)
    users, items = (torch.randn(n, 64, generator=generator) for n in (data.n_users, data.n_items))
    users.index_add_(0, torch.from_numpy(data.valid_users), items[torch.from_numpy(data.valid_items)])
    started = time.perf_counter()
    megabytes, _ = peak_megabytes(lambda: calibrate(EmbeddingScorer(users, items), data, CalibrationConfig()))
    report.add("calibration_seconds", time.perf_counter() - started, unit="s", goal="<= 10 s")
    report.add("calibration_mb", megabytes, unit="MB", goal="<= 1,000 MB")


def measure_cost(report: Report, n_items: int, width: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(n_items, width, generator=generator) for _ in range(2))
    column_cost(x[:10], y[:10])
    megabytes, _ = peak_megabytes(lambda: column_cost(x, y))
    broadcast = n_items * width * width * 4 / 1e6
    report.add("recgoat_cost_mb", megabytes, unit="MB", baseline=f"broadcast: {broadcast:,.0f} MB", goal="<= 100 MB")


def train_some(name: str, size: str) -> None:
    """Load data, train some batches, and evaluate."""
    data, test = problem(size)
    # No width is published for RecGOAT on Clothing; that of Sports is its starting point.
    dataset = "sports" if name == "recgoat" else size
    config = resolve_config(name, dataset=dataset)
    model = build_model(name, config, data, 0)
    size_of = (data.n_users, data.n_items)
    positives = interaction_matrix(*data.train_pairs, *size_of)
    barred = None
    if config.training.restricted_negatives:
        barred = false_negatives(*data.train_pairs, *size_of, data.item_knn, k=config.training.restricted_neighbours)
    sampler = NegativeSampler(positives, barred)
    optimiser = torch.optim.Adam(model.parameters(), fused=True)
    generator = torch.Generator().manual_seed(0)
    users, items = (torch.from_numpy(ids) for ids in data.train_pairs)
    model.train()
    model.on_epoch_start(0, generator)
    negatives = sampler.sample(users, generator)
    for batch in torch.randperm(len(users), generator=generator).split(config.training.batch_size)[:3]:
        optimiser.zero_grad(set_to_none=True)
        sum(model.loss(Batch(users[batch], items[batch], negatives[batch])).values()).backward()
        optimiser.step()
    evaluate(model.ranker(), data.train_pairs, test)


def measure_peaks(report: Report, names: Iterable[str], size: str) -> None:
    # A process each: what one model has freed must not hide what the next one needs.
    for name in names:
        report.add(f"peak_mb_{name}", peak_of_process(train_some, name, size)[0], unit="MB", goal="<= 6,000 MB")


def shard_steps(rank: int, shards: int, meeting: str, name: str, size: str, results: Any) -> None:
    """Take steps with 1/shards of the columns; tell CPU seconds a step, and bytes of parameters and their state."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    n_users, n_items, n_pairs = SHARD_SIZES[size]
    users, items = rng.integers(n_users, size=n_pairs), rng.integers(n_items, size=n_pairs)
    data = TrainingData(n_users, n_items, users, items, users[:1], items[:1])
    width = resolve_config(name).embedding_size // shards
    model = build_model(name, resolve_config(name, {"embedding_size": width}), data, 0)
    optimiser = torch.optim.Adam(model.parameters(), fused=True)
    generator = torch.Generator().manual_seed(0)
    with contextlib.ExitStack() as stack:
        if shards > 1:
            dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=shards)
            stack.enter_context(columns.shared())
        for step in range(SHARD_STEPS + 2):
            if step == 2:
                started = time.process_time()
            batch = [torch.randint(n, (8192,), generator=generator) for n in (n_users, n_items, n_items)]
            optimiser.zero_grad(set_to_none=True)
            sum(model.loss(Batch(*batch)).values()).backward()
            optimiser.step()
        seconds = (time.process_time() - started) / SHARD_STEPS
    state = [value for entries in optimiser.state.values() for value in entries.values()]
    n_bytes = sum(tensor.numel() * tensor.element_size() for tensor in [*model.parameters(), *state])
    results.put((rank, seconds, n_bytes))


def measure_shards(report: Report, names: Iterable[str], size: str, rounds: int) -> None:
    """Give what a process needs where two share the columns, over what one needs that has all, in turns."""
    context = get_context("spawn")
    for name in names:
        found: dict[int, list[tuple[float, int]]] = {1: [], 2: []}
        for shards in list(found) * rounds:
            results = context.SimpleQueue()
            with tempfile.TemporaryDirectory() as folder:
                arguments = shards, f"file://{folder}/meeting", name, size, results
                processes = [context.Process(target=shard_steps, args=(rank, *arguments)) for rank in range(shards)]
                for process in processes:
                    process.start()
                for process in processes:
                    process.join()
                    assert process.exitcode == 0
            found[shards] += [results.get()[1:] for _ in range(shards)]
        one, two = (median(seconds for seconds, _ in found[shards]) for shards in (1, 2))
        what = f"a step of one process ({one * 1000:.0f} ms CPU)"
        report.add(f"shards_2_cpu_{name}", two / one, unit="x", baseline=what, goal="<= 0.65x")
        sizes = [found[shards][0][1] / 1e6 for shards in (1, 2)]
        report.add(f"shards_2_state_{name}", sizes[1] / sizes[0], unit="x", baseline=f"{sizes[0]:.0f} MB", goal="0.5x")


def main() -> None:
    arguments = parse_arguments(__doc__ or "")
    report = Report("Training and evaluation")
    data, test = problem("quick" if arguments.quick else "baby")
    rounds = 1 if arguments.quick else ROUNDS
    measure_epochs(report, data, rounds)
    measure_evaluation(report, data, test, rounds)
    measure_calibration(report, data if arguments.quick else problem("clothing")[0])
    measure_cost(report, data.n_items, 64 if arguments.quick else 800)
    stepwise = [name for name, spec in MODELS.items() if not spec.closed_form]
    measure_peaks(report, ("bpr",) if arguments.quick else stepwise, "quick" if arguments.quick else "clothing")
    measure_shards(report, SHARDED, "quick" if arguments.quick else "large", rounds)
    report.finish(arguments.json)


if __name__ == "__main__":
    main()
