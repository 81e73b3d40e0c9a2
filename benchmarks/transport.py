"""Transport: the structured solver against POT's dense one, whole augmentations, growth to 200 million edges."""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import ot
import polars as pl
import torch
from scipy import sparse

from benchmarks.harness import (
    PUBLISHED_SIZES,
    Report,
    highest_megabytes,
    parse_arguments,
    peak_megabytes,
    published_pairs,
    random_neighbours,
    shared_data,
    time_in_turns,
)
from recmodels.graphs.matrices import interaction_matrix
from recmodels.training.negatives import NegativeSampler
from recmodels.transport.augment import Augmentation, augment
from recmodels.transport.config import TransportConfig
from recmodels.transport.false_negatives import false_negatives
from recmodels.transport.sinkhorn import sinkhorn

TOLERANCE = 1e-8
HUGE_USERS, HUGE_ITEMS, HUGE_ACTIVITY = 5_000_000, 1_000_000, 2.3


def published(name: str) -> tuple[pl.DataFrame, dict[str, pl.DataFrame]] | None:
    """Training pairs and neighbour tables; random neighbours where the published set has none."""
    folder, pairs = shared_data(), published_pairs(name)
    if folder is None or pairs is None:
        return None
    graphs: dict[str, pl.DataFrame] = {}
    for seed, modality in enumerate(("text", "image")):
        path = folder / "mmrec" / name / f"{modality}_knn.parquet"
        if path.exists():
            rank = pl.int_range(pl.len()).over("src").cast(pl.Int16)
            graphs[modality] = pl.read_parquet(path).select("src", "dst", rank=rank, similarity="cosine")
        else:
            graphs[modality] = random_neighbours(PUBLISHED_SIZES[name][1], seed)
    return pairs.filter(split=0).select("user_id", "item_id"), graphs


def synthetic(scale: float) -> tuple[pl.DataFrame, dict[str, pl.DataFrame], int, int]:
    """A share of the huge problem: sparse users, items of uneven popularity, two random item graphs."""
    rng = np.random.default_rng(0)
    n_users, n_items = round(HUGE_USERS * scale), round(HUGE_ITEMS * scale)
    activity = 1 + rng.poisson(HUGE_ACTIVITY - 1, n_users)
    users = np.repeat(np.arange(n_users, dtype=np.int32), activity)
    items = (n_items * rng.random(users.size) ** 1.5).astype(np.int32)
    graphs = {name: random_neighbours(n_items, seed) for seed, name in enumerate(("text", "image"))}
    return pl.DataFrame({"user_id": users, "item_id": items}), graphs, n_users, n_items


def marginal_error(plan: Any, a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(plan.sum(axis=1) - a).sum() + np.abs(plan.sum(axis=0) - b).sum())


def compare_with_pot(
    report: Report,
    name: str,
    train: pl.DataFrame,
    graphs: dict[str, pl.DataFrame],
    n_users: int,
    n_items: int,
    rounds: int,
) -> None:
    users, items = train["user_id"], train["item_id"]
    positives = interaction_matrix(users, items, n_users, n_items)
    found = false_negatives(users, items, n_users, n_items, graphs)
    a, b = np.full(n_users, 1 / n_users), np.full(n_items, 1 / n_items)

    def sparse_cost() -> sparse.csr_array:
        return sparse.csr_array(positives - found)

    def structured(matrix: sparse.csr_array) -> Any:
        return sinkhorn(matrix, a, b, 1.0, tolerance=TOLERANCE)

    def dense_cost() -> np.ndarray:
        return sparse_cost().toarray().astype(np.float64)

    def dense(matrix: np.ndarray) -> np.ndarray:
        return ot.sinkhorn(a, b, matrix, 1.0, method="sinkhorn", stopThr=TOLERANCE)

    our_memory, result = peak_megabytes(lambda: structured(sparse_cost()))
    pot_memory, plan = peak_megabytes(lambda: dense(dense_cost()))
    kernel = np.exp(-dense_cost())
    kernel *= np.exp(result.log_f)[:, None]
    kernel *= np.exp(result.log_g)
    difference = float(np.abs(kernel - plan).max() / plan.max())
    print(
        f"plans differ by {difference:.1e} of the largest entry; marginal errors {marginal_error(kernel, a, b):.1e} "
        f"(ours), {marginal_error(plan, a, b):.1e} (POT)"
    )
    assert difference < 1e-6
    del kernel, plan
    cost, matrix = sparse_cost(), dense_cost()
    seconds = time_in_turns({"ours": lambda: structured(cost), "pot": lambda: dense(matrix)}, rounds=rounds)
    report.add(
        f"sinkhorn_vs_pot_speed_{name}",
        seconds["pot"] / seconds["ours"],
        unit="x",
        baseline=f"{seconds['ours']:.3f} s against {seconds['pot']:.2f} s, ot.sinkhorn, equal tolerance",
        goal=">= 30 x",
    )
    report.add(
        f"sinkhorn_vs_pot_memory_{name}",
        pot_memory / our_memory,
        unit="x",
        baseline=f"{our_memory:.0f} MB against {pot_memory:.0f} MB, ot.sinkhorn; both with their cost matrix",
        goal=">= 20 x",
    )


def augment_and_sample(
    train: pl.DataFrame, graphs: dict[str, pl.DataFrame], n_users: int, n_items: int
) -> tuple[Augmentation, NegativeSampler]:
    """Everything the stage gives a trainer: added pairs, the sampler, and one epoch of negatives."""
    result = augment(train, graphs, TransportConfig(), n_users=n_users, n_items=n_items)
    positives = interaction_matrix(train["user_id"], train["item_id"], n_users, n_items)
    sampler = NegativeSampler(positives, result.false_negatives)
    users = torch.from_numpy(result.interactions["user_id"].to_numpy().astype(np.int64))
    sampler.sample(users, torch.Generator().manual_seed(0))
    return result, sampler


def measure_augmentation(
    report: Report, name: str, train: pl.DataFrame, graphs: dict[str, pl.DataFrame], n_users: int, n_items: int
) -> None:
    def run() -> Any:
        return augment_and_sample(train, graphs, n_users, n_items)

    memory, (result, _) = peak_megabytes(run)
    seconds = time_in_turns({"ours": run}, rounds=3)["ours"]
    sizes = f"{n_users:,} x {n_items:,}, {result.diagnostics['n_false_negatives']:,} false negatives, sampler included"
    report.add(f"augment_{name}_s", seconds, unit="s", baseline=sizes, goal="< 3 s")
    report.add(f"augment_{name}_peak_mb", memory, unit="MB", goal="< 2000 MB")


def measure_sampler(
    report: Report, train: pl.DataFrame, graphs: dict[str, pl.DataFrame], n_users: int, n_items: int, rounds: int
) -> None:
    positives = interaction_matrix(train["user_id"], train["item_id"], n_users, n_items)
    found = false_negatives(train["user_id"], train["item_id"], n_users, n_items, graphs)
    sampler = NegativeSampler(positives, found)
    forbidden = sparse.csr_array(positives + found)
    rng = np.random.default_rng(0)
    # By user, as a trainer draws an epoch before it shuffles; and in any order.
    users = torch.from_numpy(np.repeat(np.arange(n_users), 4_000_000 // n_users))
    shuffled = users[torch.from_numpy(rng.permutation(users.numel()))]
    generator = torch.Generator().manual_seed(0)

    keys = torch.from_numpy(np.repeat(np.arange(n_users), np.diff(forbidden.indptr)) * n_items + forbidden.indices)

    def rejection() -> torch.Tensor:
        """Draw anything, draw again while forbidden: the usual way, with the forbidden pairs in a sorted array."""
        drawn = torch.randint(n_items, users.shape, generator=generator)
        open_places = torch.arange(users.numel())
        while open_places.numel():
            wanted = users[open_places] * n_items + drawn[open_places]
            at = torch.searchsorted(keys, wanted).clamp_(max=keys.numel() - 1)
            open_places = open_places[keys[at] == wanted]
            drawn[open_places] = torch.randint(n_items, open_places.shape, generator=generator)
        return drawn

    drawn = sampler.sample(users, generator)
    assert interaction_matrix(users.numpy(), drawn.numpy(), n_users, n_items).multiply(forbidden).nnz == 0
    seconds = time_in_turns(
        {
            "ours": lambda: sampler.sample(users, generator),
            "shuffled": lambda: sampler.sample(shuffled, generator),
            "rejection": rejection,
        },
        rounds=rounds,
    )
    rates = {name: users.numel() / value / 1e6 for name, value in seconds.items()}
    usual = f"{rates['rejection']:.1f} M/s, rejection in the same order"
    report.add("sampler_mdraws_s", rates["ours"], unit="M/s", baseline=usual, goal=">= 10 M/s")
    report.add("sampler_shuffled_mdraws_s", rates["shuffled"], unit="M/s", baseline="users in any order")


def run_synthetic(scale: float) -> dict[str, float]:
    """Augment a synthetic problem in a process of its own, so that its memory is its own."""
    with tempfile.NamedTemporaryFile(suffix=".json") as output:
        subprocess.run(  # noqa: S603
            [sys.executable, __file__, "--synthetic", str(scale), "--json", output.name], check=True
        )
        return json.loads(Path(output.name).read_text())


def synthetic_child(scale: float, output: Path) -> None:
    train, graphs, n_users, n_items = synthetic(scale)

    def run() -> Augmentation:
        return augment(train, graphs, TransportConfig(), n_users=n_users, n_items=n_items)

    start, start_cpu = time.perf_counter(), time.process_time()
    memory, result = peak_megabytes(run)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
    figures = {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "grown_mb": memory,
        "peak_mb": highest_megabytes(),
        "edges": result.diagnostics["n_false_negatives"],
        "iterations": result.diagnostics["iterations"],
        "added": result.diagnostics["n_added"],
    }
    output.write_text(json.dumps(figures))


def measure_growth(report: Report, scales: list[float], plot: Path | None) -> None:
    runs = [run_synthetic(scale) for scale in scales]
    for scale, run in zip(scales, runs, strict=True):
        report.add(
            f"augment_{run['edges'] / 1e6:.1f}m_edges_s",
            run["seconds"],
            unit="s",
            baseline=f"{HUGE_USERS * scale:,.0f} x {HUGE_ITEMS * scale:,.0f}, {run['iterations']:.0f} iterations; "
            f"an edge: {1e9 * run['cpu_seconds'] / run['edges']:.0f} ns of a core, "
            f"{1e6 * run['grown_mb'] / run['edges']:.0f} bytes",
        )
    if plot is not None:
        draw_growth(runs, plot)
        print(f"growth drawn in {plot}")
    if scales[-1] == 1.0:
        report.add("huge_s", runs[-1]["seconds"], unit="s", baseline=f"{runs[-1]['edges']:,.0f} edges")
        report.add("huge_peak_mb", runs[-1]["peak_mb"], unit="MB", baseline="the whole process", goal="<= 20000 MB")


def draw_growth(runs: list[dict[str, float]], plot: Path) -> None:
    from matplotlib.figure import Figure

    edges = np.array([run["edges"] for run in runs]) / 1e6
    figure = Figure(figsize=(8, 3), layout="constrained")
    axes: Any = figure.subplots(1, 2)
    for axis, key, label in ((axes[0], "cpu_seconds", "seconds of a core"), (axes[1], "grown_mb", "memory, MB")):
        values = np.array([run[key] for run in runs])
        slope = float(edges @ values / (edges @ edges))
        axis.plot(edges, values, "o", label="measured")
        axis.plot([0, edges[-1]], [0, slope * edges[-1]], "--", linewidth=1, label="proportional")
        axis.set_xlabel("million false-negative edges")
        axis.set_ylabel(label)
        axis.legend(frameon=False)
    plot.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(plot, dpi=110)


def parse_child() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--synthetic", type=float)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def main() -> None:
    if "--synthetic" in sys.argv:
        child = parse_child()
        synthetic_child(child.synthetic, child.json)
        return
    arguments = parse_arguments(__doc__ or "")
    report = Report("Transport")
    baby = published("baby")
    if arguments.quick:
        train, graphs, n_users, n_items = synthetic(0.0004)
        compare_with_pot(report, "quick", train, graphs, n_users, n_items, rounds=1)
        measure_augmentation(report, "quick", train, graphs, n_users, n_items)
        measure_sampler(report, train, graphs, n_users, n_items, rounds=1)
        measure_growth(report, [0.001, 0.002], None)
    elif baby is None:
        report.skip("sinkhorn_vs_pot_speed_baby and others", "no real data sets beside the repository")
    else:
        compare_with_pot(report, "baby", *baby, *PUBLISHED_SIZES["baby"][:2], rounds=3)
        for name in ("sports", "clothing"):
            data = published(name)
            assert data is not None
            measure_augmentation(report, name, *data, *PUBLISHED_SIZES[name][:2])
            if name == "sports":
                measure_sampler(report, *data, *PUBLISHED_SIZES[name][:2], rounds=5)
    if not arguments.quick:
        plot = arguments.json.with_name("transport_growth.png") if arguments.json else None
        measure_growth(report, [0.0625, 0.125, 0.25, 0.5, 1.0], plot)
    report.finish(arguments.json)


if __name__ == "__main__":
    main()
