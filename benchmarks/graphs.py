"""Neighbour search, propagation and edge dropping against what the libraries offer by themselves."""

import time

import faiss
import numpy as np
import torch

from benchmarks.harness import PUBLISHED_SIZES, Report, parse_arguments, published_pairs, time_in_turns
from recmodels.graphs.bipartite import BipartiteGraph
from recmodels.graphs.knn import knn_recall, knn_table
from recmodels.graphs.propagation import propagate

EMBEDDING_SIZE = 64


def training_graph(name: str) -> BipartiteGraph:
    """The published training rows where they are at hand, else random pairs of the same number."""
    n_users, n_items, n_pairs = PUBLISHED_SIZES[name]
    pairs = published_pairs(name)
    if pairs is None:
        rng = np.random.default_rng(0)
        return BipartiteGraph(rng.integers(0, n_users, n_pairs), rng.integers(0, n_items, n_pairs), n_users, n_items)
    train = pairs.filter(split=0)
    return BipartiteGraph(train["user_id"], train["item_id"], n_users, n_items)


def measure_propagation(report: Report, name: str, rounds: int) -> None:
    graph = training_graph(name)
    adjacency = graph.adjacency()
    coo = adjacency.matrix.to_sparse_coo().coalesce()
    generator = torch.Generator().manual_seed(0)
    n = graph.n_users + graph.n_items
    x = torch.randn(n, EMBEDDING_SIZE, generator=generator, requires_grad=True)
    weights = torch.randn(n, EMBEDDING_SIZE, generator=generator)

    def ours() -> None:
        x.grad = None
        propagate(adjacency, x).backward(weights)

    def theirs() -> None:
        x.grad = None
        torch.sparse.mm(coo, x).backward(weights)

    ours()
    assert x.grad is not None
    gradient = x.grad
    theirs()
    assert torch.allclose(x.grad, gradient, atol=1e-5)
    seconds = time_in_turns({"ours": ours, "theirs": theirs}, rounds=rounds)
    what = f"torch.sparse.mm on COO, forward and backward, {adjacency.n_edges:,} entries x {EMBEDDING_SIZE}"
    report.compare(f"propagate_vs_coo_{name}", **seconds, what=what, unit="x", goal=">= 5 x")


def measure_edge_drop(report: Report, name: str, rounds: int) -> None:
    graph = training_graph(name)
    generator = torch.Generator().manual_seed(0)
    weights = 1 / torch.sqrt(graph.user_degrees[graph.users].double() * graph.item_degrees[graph.items])
    n_kept = graph.n_edges // 5
    n = graph.n_users + graph.n_items

    def theirs() -> torch.Tensor:
        kept = torch.multinomial(weights, n_kept, generator=generator)
        users, items = graph.users[kept], graph.items[kept] + graph.n_users
        both = torch.stack((torch.cat((users, items)), torch.cat((items, users))))
        degrees = torch.bincount(both[0], minlength=n) + 1e-7
        values = degrees[both[0]].rsqrt() * degrees[both[1]].rsqrt()
        return torch.sparse_coo_tensor(both, values, (n, n)).coalesce()

    graph.adjacency()
    seconds = time_in_turns({"ours": lambda: graph.edge_drop(0.8, generator), "theirs": theirs}, rounds=rounds)
    what = f"{1e3 * seconds['theirs']:.1f} ms, torch.multinomial and a COO matrix; {graph.n_edges:,} edges"
    report.add(f"edge_drop_{name}_ms", 1e3 * seconds["ours"], unit="ms", baseline=what)


def measure_knn(report: Report, n: int, width: int, rounds: int) -> None:
    # Rows near common centres, as the embeddings of products are.
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((max(2, n // 40), width), dtype=np.float32)
    vectors = centres[rng.integers(0, len(centres), n)] + rng.standard_normal((n, width), dtype=np.float32)
    k = 10

    def theirs() -> None:
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        index = faiss.IndexFlatIP(width)
        index.add(unit)
        index.search(unit, k)

    seconds = time_in_turns({"ours": lambda: knn_table(vectors, k), "theirs": theirs}, rounds=rounds, warm_up=False)
    what = f"bare IndexFlatIP search, {n:,} x {width}"
    report.compare("knn_vs_faiss", **seconds, what=what, unit="x the time", goal="<= 1.3 x", faster=False)
    for index in ("ivf", "hnsw"):
        began = time.perf_counter()
        table = knn_table(vectors, k, index=index)
        taken = time.perf_counter() - began
        report.add(f"knn_{index}_s", taken, unit="s", baseline=f"{seconds['ours']:.1f} s, exact")
        report.add(f"knn_{index}_recall", knn_recall(table, vectors), goal=">= 0.99")


def main() -> None:
    arguments = parse_arguments(__doc__)
    report = Report("Graphs")
    for name in ("baby",) if arguments.quick else PUBLISHED_SIZES:
        measure_propagation(report, name, rounds=3 if arguments.quick else 21)
        measure_edge_drop(report, name, rounds=3 if arguments.quick else 11)
    if arguments.quick:
        measure_knn(report, 2_000, 64, rounds=1)
    else:
        measure_knn(report, 39_387, 768, rounds=3)
    report.finish(arguments.json)


if __name__ == "__main__":
    main()
