"""Transport: the structured solver against POT's dense one, whole augmentations, growth to 200 million edges."""

import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import ot
import polars as pl
import torch
from scipy import sparse

from benchmarks.harness import (
    PUBLISHED_SIZES,
    Report,
    parse_arguments,
    peak_megabytes,
    peak_of_process,
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
PARTS_NEIGHBOURS = 5
HUGE_USERS, HUGE_ITEMS, HUGE_ACTIVITY = 5_000_000, 1_000_000, 2.3


class Problem(NamedTuple):
    """Training pairs, and the neighbours of the items in each modality."""

    train: pl.DataFrame
    graphs: dict[str, pl.DataFrame]
    n_users: int
    n_items: int

    @property
    def pairs(self) -> tuple[pl.Series, pl.Series, int, int]:
        return self.train["user_id"], self.train["item_id"], self.n_users, self.n_items


def published(name: str) -> Problem | None:
    """A published data set; random neighbours where it has none."""
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
    return Problem(pairs.filter(split=0).select("user_id", "item_id"), graphs, *PUBLISHED_SIZES[name][:2])


def synthetic(scale: float, k: int = 10, modalities: tuple[str, ...] = ("text", "image")) -> Problem:
    """A share of the huge problem: sparse users, items of uneven popularity, random item graphs."""
    rng = np.random.default_rng(0)
    n_users, n_items = round(HUGE_USERS * scale), round(HUGE_ITEMS * scale)
    activity = 1 + rng.poisson(HUGE_ACTIVITY - 1, n_users)
    users = np.repeat(np.arange(n_users, dtype=np.int32), activity)
    items = (n_items * rng.random(users.size) ** 1.5).astype(np.int32)
    graphs = {name: random_neighbours(n_items, seed, k) for seed, name in enumerate(modalities)}
    return Problem(pl.DataFrame({"user_id": users, "item_id": items}), graphs, n_users, n_items)


def marginal_error(plan: Any, a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(plan.sum(axis=1) - a).sum() + np.abs(plan.sum(axis=0) - b).sum())


def compare_with_pot(report: Report, name: str, problem: Problem, rounds: int) -> None:
    positives = interaction_matrix(*problem.pairs)
    found = false_negatives(*problem.pairs, problem.graphs)
    a, b = (np.full(n, 1 / n) for n in (problem.n_users, problem.n_items))

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
    seconds = time_in_turns({"ours": lambda: structured(cost), "theirs": lambda: dense(matrix)}, rounds=rounds)
    what = "ot.sinkhorn, equal tolerance"
    report.compare(f"sinkhorn_vs_pot_speed_{name}", **seconds, what=what, unit="x", goal=">= 30 x")
    what = f"{our_memory:.0f} MB against {pot_memory:.0f} MB, ot.sinkhorn; both with their cost matrix"
    report.add(f"sinkhorn_vs_pot_memory_{name}", pot_memory / our_memory, unit="x", baseline=what, goal=">= 20 x")


def augmented(problem: Problem) -> Augmentation:
    sizes = {"n_users": problem.n_users, "n_items": problem.n_items}
    return augment(problem.train, problem.graphs, TransportConfig(), **sizes)


def augment_and_sample(problem: Problem) -> Augmentation:
    """Everything the stage gives a trainer: added pairs, the sampler, and one epoch of negatives."""
    result = augmented(problem)
    sampler = NegativeSampler(interaction_matrix(*problem.pairs), result.false_negatives)
    users = torch.from_numpy(result.interactions["user_id"].to_numpy().astype(np.int64))
    sampler.sample(users, torch.Generator().manual_seed(0))
    return result


def measure_augmentation(report: Report, name: str, problem: Problem) -> None:
    memory, result = peak_megabytes(lambda: augment_and_sample(problem))
    seconds = time_in_turns({"ours": lambda: augment_and_sample(problem)}, rounds=3)["ours"]
    n_found = result.diagnostics["n_false_negatives"]
    sizes = f"{problem.n_users:,} x {problem.n_items:,}, {n_found:,} false negatives, sampler included"
    report.add(f"augment_{name}_s", seconds, unit="s", baseline=sizes, goal="< 3 s")
    report.add(f"augment_{name}_peak_mb", memory, unit="MB", goal="< 2000 MB")


def measure_sampler(report: Report, problem: Problem, rounds: int) -> None:
    n_users, n_items = problem.n_users, problem.n_items
    positives = interaction_matrix(*problem.pairs)
    found = false_negatives(*problem.pairs, problem.graphs)
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


def augment_synthetic(scale: float) -> dict[str, float]:
    problem = synthetic(scale)
    start, start_cpu = time.perf_counter(), time.process_time()
    memory, result = peak_megabytes(lambda: augmented(problem))
    return {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - start_cpu,
        "grown_mb": memory,
        "edges": result.diagnostics["n_false_negatives"],
        "iterations": result.diagnostics["iterations"],
    }


def augment_parts(scale: float, entries_per_part: int) -> dict[str, float]:
    problem = synthetic(scale, PARTS_NEIGHBOURS, ("text",))
    start, start_cpu = time.perf_counter(), time.process_time()
    result = augment(
        problem.train,
        problem.graphs,
        TransportConfig(neighbours=PARTS_NEIGHBOURS),
        n_users=problem.n_users,
        n_items=problem.n_items,
        entries_per_part=entries_per_part,
        keep_false_negatives=False,
    )
    return {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - start_cpu,
        "edges": float(result.diagnostics["n_false_negatives"]),
        "parts": float(result.diagnostics["n_parts"]),
        "added": float(result.added.height),
    }


def measure_parts(report: Report, scale: float, entries_per_part: int) -> None:
    """Users in parts, one after the other in this process: what a part of a cluster would do, and no faster here."""
    peak, run = peak_of_process(augment_parts, scale, entries_per_part)
    what = (
        f"{HUGE_USERS * scale:,.0f} x {HUGE_ITEMS * scale:,.0f} in {run['parts']:.0f} parts, {run['edges']:,.0f} false "
        f"negatives, {run['added']:,.0f} added; {run['cpu_seconds']:.0f} s of a core"
    )
    report.add("parts_s", run["seconds"], unit="s", baseline=what)
    report.add("parts_peak_mb", peak, unit="MB", baseline="the whole process", goal="<= 16000 MB")


def measure_growth(report: Report, scales: list[float], plot: Path | None) -> None:
    runs: list[dict[str, float]] = []
    peak = 0.0
    for scale in scales:
        peak, run = peak_of_process(augment_synthetic, scale)
        runs.append(run)
        what = (
            f"{HUGE_USERS * scale:,.0f} x {HUGE_ITEMS * scale:,.0f}, {run['iterations']:.0f} iterations; an edge: "
            f"{1e9 * run['cpu_seconds'] / run['edges']:.0f} ns of a core, "
            f"{1e6 * run['grown_mb'] / run['edges']:.0f} bytes"
        )
        report.add(f"augment_{run['edges'] / 1e6:.1f}m_edges_s", run["seconds"], unit="s", baseline=what)
    if plot is not None:
        draw_growth(runs, plot)
        print(f"growth drawn in {plot}")
    if scales[-1] == 1.0:
        report.add("huge_s", runs[-1]["seconds"], unit="s", baseline=f"{runs[-1]['edges']:,.0f} edges")
        report.add("huge_peak_mb", peak, unit="MB", baseline="the whole process", goal="<= 20000 MB")


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


def main() -> None:
    arguments = parse_arguments(__doc__ or "")
    report = Report("Transport")
    baby = published("baby")
    if arguments.quick:
        small = synthetic(0.0004)
        compare_with_pot(report, "quick", small, rounds=1)
        measure_augmentation(report, "quick", small)
        measure_sampler(report, small, rounds=1)
        measure_growth(report, [0.001, 0.002], None)
        measure_parts(report, 0.002, 10_000)
    elif baby is None:
        report.skip("sinkhorn_vs_pot_speed_baby and others", "no real data sets beside the repository")
    else:
        compare_with_pot(report, "baby", baby, rounds=3)
        for name in ("sports", "clothing"):
            data = published(name)
            assert data is not None
            measure_augmentation(report, name, data)
            if name == "sports":
                measure_sampler(report, data, rounds=5)
    if not arguments.quick:
        plot = arguments.json.with_name("transport_growth.png") if arguments.json else None
        measure_growth(report, [0.0625, 0.125, 0.25, 0.5, 1.0], plot)
        measure_parts(report, 1.0, 1 << 23)
    report.finish(arguments.json)


if __name__ == "__main__":
    main()
