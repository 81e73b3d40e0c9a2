"""Full ranking of 1,000,000 users x 1,000,000 items (for a sample) and of 200,000 x 20,000: time and memory."""

import time

import numpy as np
import torch

from benchmarks.harness import Report, parse_arguments, peak_megabytes, peak_of_process
from recmodels.evaluation.evaluator import evaluate
from recmodels.ranking.ranker import EmbeddingScorer

WIDTH = 64
PAIRS_A_USER = 10
LARGE, WIDE, QUICK = (1_000_000, 1_000_000, 10_000), (200_000, 20_000, 200_000), (2_000, 101_000, 300)
"""Users, items, and how many of the users are evaluated."""


def evaluate_some(n_users: int, n_items: int, n_asked: int) -> tuple[float, float]:
    """Return the core seconds of an evaluation on one thread, and by how many MB the process grew."""
    torch.set_num_threads(1)
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    ranker = EmbeddingScorer(*(torch.randn(n, WIDTH, generator=generator) for n in (n_users, n_items)))
    train = rng.integers(n_users, size=PAIRS_A_USER * n_users), rng.integers(n_items, size=PAIRS_A_USER * n_users)
    asked = rng.choice(n_users, n_asked, replace=False)
    held_out = np.repeat(asked, 2), rng.integers(n_items, size=2 * n_asked)
    started = time.process_time()
    grown, _ = peak_megabytes(lambda: evaluate(ranker, train, held_out))
    return time.process_time() - started, grown


def main() -> None:
    arguments = parse_arguments(__doc__ or "")
    report = Report("Evaluation")
    sizes = {"quick": QUICK} if arguments.quick else {"1m_x_1m": LARGE, "200k_x_20k": WIDE}
    for name, (n_users, n_items, n_asked) in sizes.items():
        megabytes, (seconds, grown) = peak_of_process(evaluate_some, n_users, n_items, n_asked)
        embeddings = 4 * WIDTH * (n_users + n_items) / 1e6
        report.add(f"ns_a_pair_{name}", seconds / (n_asked * n_items) * 1e9, unit="ns of a core", goal="<= 4 ns")
        report.add(f"core_seconds_{name}", seconds, unit="s", baseline=f"{n_asked:,} users asked for")
        report.add(f"grown_mb_{name}", grown, unit="MB", baseline=f"beside embeddings: {embeddings:,.0f} MB")
        report.add(f"peak_mb_{name}", megabytes, unit="MB", baseline="the whole process", goal="<= 2,000 MB")
    report.finish(arguments.json)


if __name__ == "__main__":
    main()
