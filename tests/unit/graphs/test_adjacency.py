"""Neighbour graphs and the user-item graph against dense numpy, and edge dropping against its law."""

import math
from fractions import Fraction

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import sparse, stats

from recmodels.errors import InputError
from recmodels.graphs.adjacency import Adjacency
from recmodels.graphs.bipartite import BipartiteGraph
from recmodels.graphs.knn import knn_table
from recmodels.graphs.matrices import interaction_matrix, neighbour_matrix
from recmodels.graphs.neighbour_graphs import fuse, k_bin, k_cos, k_sym
from recmodels.schemas.tables import KNN


def dense(adjacency: Adjacency) -> np.ndarray:
    assert adjacency.matrix.crow_indices().dtype == torch.int32
    assert adjacency.matrix.col_indices().dtype == torch.int32
    assert_allclose(adjacency.matrix.to_dense().T, adjacency.transpose.to_dense())
    return adjacency.matrix.to_dense().numpy()


@pytest.fixture(scope="module")
def table() -> pl.DataFrame:
    x = np.random.default_rng(0).standard_normal((40, 5)).astype(np.float32)
    return knn_table(np.abs(x), 12)


def test_k_bin_has_k_entries_of_one_kth_and_itself_among_them(table: pl.DataFrame) -> None:
    matrix = dense(k_bin(table, 40))
    assert ((matrix > 0).sum(axis=1) == 10).all()
    assert_allclose(matrix[matrix > 0], 0.1, rtol=1e-6)
    assert (np.diag(matrix) > 0).all()
    best = table.filter(pl.col("rank") < 10)
    assert (matrix[best["src"].to_numpy(), best["dst"].to_numpy()] > 0).all()


def test_a_matrix_without_self_takes_the_next_neighbour_instead(table: pl.DataFrame) -> None:
    matrix = neighbour_matrix(table, 40, 10, include_self=False).toarray()
    assert ((matrix > 0).sum(axis=1) == 10).all()
    assert (np.diag(matrix) == 0).all()


def test_k_cos_divides_by_the_roots_of_row_sums(table: pl.DataFrame) -> None:
    best = table.filter(pl.col("rank") < 10)
    weights = np.zeros((40, 40))
    weights[best["src"].to_numpy(), best["dst"].to_numpy()] = best["similarity"].to_numpy()
    sums = weights.sum(axis=1)
    assert_allclose(dense(k_cos(table, 40)), weights / np.sqrt(np.outer(sums, sums)), rtol=1e-5)


def test_k_cos_gives_nodes_without_weight_zero_not_infinity() -> None:
    table = pl.DataFrame([(0, 0, 0, 1.0), (0, 1, 1, 0.5), (1, 0, 0, 0.0)], schema=KNN, orient="row")
    matrix = dense(k_cos(table, 3, None))
    assert np.isfinite(matrix).all()
    assert matrix[0].tolist() == [pytest.approx(1 / 1.5), 0, 0]


def test_k_cos_refuses_a_table_without_known_similarities(table: pl.DataFrame) -> None:
    unknown = table.with_columns(similarity=pl.lit(None, pl.Float32))
    with pytest.raises(InputError, match=f"cosines.*{table.height} unknown"):
        k_cos(unknown, 40)
    assert k_cos(KNN.to_frame(), 40, None).n_edges == 0


def test_k_sym_holds_both_directions_once_and_loops_once(table: pl.DataFrame) -> None:
    expected = np.zeros((40, 40))
    best = table.filter((pl.col("src") != pl.col("dst")) & (pl.col("rank") <= 7))
    expected[best["src"].to_numpy(), best["dst"].to_numpy()] = 1
    expected = np.maximum(expected, expected.T)
    graph = k_sym(table, 40, 7)
    assert graph.symmetric
    assert (dense(graph) == np.maximum(expected, np.eye(40))).all()
    rows, columns = graph.edges()
    assert graph.n_edges == rows.numel()
    assert (dense(graph)[rows.numpy(), columns.numpy()] == 1).all()


def test_a_table_that_is_too_shallow_is_refused_unless_there_are_too_few_nodes(table: pl.DataFrame) -> None:
    with pytest.raises(InputError, match="larger k"):
        k_bin(table, 40, 13)
    with pytest.raises(InputError, match="larger k"):
        k_sym(table, 40, 12)
    small = knn_table(np.eye(4), 10)
    assert (dense(k_bin(small, 4)) == 0.25).all()


def test_repeated_edges_count_once_and_use_up_no_place() -> None:
    rows = [(0, 0, 0, 1.0), (0, 0, 1, 1.0), (0, 1, 2, 0.5), (1, 1, 0, 1.0), (1, 0, 1, 0.4)]
    table = pl.DataFrame(rows, schema=KNN, orient="row")
    assert neighbour_matrix(table, 2, 2).toarray().tolist() == [[1, 1], [1, 1]]


def test_ids_out_of_range_are_refused(table: pl.DataFrame) -> None:
    with pytest.raises(InputError, match=r"\[0, 39\)"):
        k_bin(table, 39)


def test_fuse_is_the_weighted_sum(table: pl.DataFrame) -> None:
    other = knn_table(np.random.default_rng(1).standard_normal((40, 3)).astype(np.float32), 10)
    text, image = k_bin(table, 40), k_bin(other, 40)
    fused = fuse({"text": text, "image": image}, {"text": 0.9, "image": 0.1})
    assert_allclose(dense(fused), 0.9 * dense(text) + 0.1 * dense(image), rtol=1e-5)


def test_fuse_gives_the_weight_of_a_missing_modality_to_the_others(table: pl.DataFrame) -> None:
    text = k_bin(table, 40)
    empty = k_bin(KNN.to_frame(), 40)
    for graphs in ({"text": text}, {"text": text, "image": empty}):
        fused = fuse(graphs, {"text": 0.9, "image": 0.1})
        assert_allclose(dense(fused), dense(text), rtol=1e-5)


def test_fuse_refuses_what_cannot_be_summed(table: pl.DataFrame) -> None:
    text = k_bin(table, 40)
    with pytest.raises(InputError, match="image"):
        fuse({"text": text, "image": text}, {"text": 1.0})
    with pytest.raises(InputError, match="at least one modality"):
        fuse({"text": k_bin(KNN.to_frame(), 40)}, {"text": 1.0})
    with pytest.raises(InputError, match=r"\['text'\], weights .*'text': 0"):
        fuse({"text": text}, {"text": 0.0, "image": 1.0})
    with pytest.raises(InputError, match="at least 0"):
        fuse({"text": text}, {"text": -1.0})
    with pytest.raises(InputError, match="same nodes"):
        fuse({"text": text, "image": k_bin(knn_table(np.eye(4), 10), 4)}, {"text": 0.5, "image": 0.5})


@st.composite
def bipartite(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int, int]:
    n_users, n_items = draw(st.integers(1, 7)), draw(st.integers(1, 7))
    pairs = draw(st.lists(st.tuples(st.integers(0, n_users - 1), st.integers(0, n_items - 1)), max_size=25))
    users, items = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    return users, items, n_users, n_items


def dense_adjacency(users: np.ndarray, items: np.ndarray, n_users: int, n_items: int) -> np.ndarray:
    a = np.zeros((n_users + n_items,) * 2)
    a[users, items + n_users] = 1
    return np.maximum(a, a.T)


def dense_normalised(a: np.ndarray, epsilon: float) -> np.ndarray:
    degrees = a.sum(axis=1)
    scale = np.where(degrees > 0, (np.maximum(degrees, 1) + epsilon) ** -0.5, 0)
    return a * np.outer(scale, scale)


@settings(max_examples=80, deadline=None)
@given(bipartite())
def test_the_user_item_graph_equals_the_dense_formulas(pairs: tuple[np.ndarray, np.ndarray, int, int]) -> None:
    graph = BipartiteGraph(*pairs, dtype=torch.float64)
    a = dense_adjacency(*pairs)
    n_users, n = pairs[2], sum(pairs[2:])
    assert_allclose(dense(graph.adjacency()), dense_normalised(a, 1e-7), rtol=1e-12)
    assert graph.adjacency().symmetric
    loops = a + np.eye(n)
    assert_allclose(dense(graph.adjacency(self_loops=True, epsilon=0)), dense_normalised(loops, 0), rtol=1e-12)
    assert_allclose(
        dense(graph.adjacency(normalisation="row", self_loops=True, epsilon=0)),
        loops / loops.sum(axis=1, keepdims=True),
        rtol=1e-12,
    )
    assert_allclose(dense(graph.adjacency(normalisation="none")), a)
    block = dense_normalised(a, 0)[:n_users, n_users:]
    assert_allclose(dense(graph.user_item(epsilon=0)), block, rtol=1e-12)
    r = a[:n_users, n_users:]
    assert_allclose(dense(graph.user_item(normalisation="none")), r)
    means = r / np.maximum(r.sum(axis=1, keepdims=True), 1)
    assert_allclose(dense(graph.user_item(normalisation="row", epsilon=0)), means, rtol=1e-12)


@settings(max_examples=40, deadline=None)
@given(bipartite(), st.integers(0, 1000))
def test_edges_between_items_and_weights_of_edges_equal_the_dense_formulas(
    pairs: tuple[np.ndarray, np.ndarray, int, int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    graph = BipartiteGraph(*pairs, dtype=torch.float64)
    n_users, n_items = pairs[2:]
    between = (rng.random((n_items, n_items)) < 0.3) * rng.random((n_items, n_items))
    a = dense_adjacency(*pairs)
    a[n_users:, n_users:] = (between > 0) & ~np.eye(n_items, dtype=bool)
    adjacency, block = graph.with_item_edges(sparse.csr_array(between))
    assert_allclose(dense(adjacency), dense_normalised(a, 0), rtol=1e-6)
    assert_allclose(dense(block), dense_normalised(a, 0)[:n_users, n_users:], rtol=1e-6)


@settings(max_examples=80, deadline=None)
@given(bipartite(), st.integers(0, 99), st.sampled_from(["degree", "uniform"]), st.integers(0, 1000))
def test_edge_drop_keeps_the_exact_number_and_normalises_by_what_is_left(
    pairs: tuple[np.ndarray, np.ndarray, int, int], percent: int, weighting: str, seed: int
) -> None:
    graph = BipartiteGraph(*pairs, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    dropped = graph.edge_drop(percent / 100, generator, weighting=weighting)  # type: ignore[arg-type]
    matrix = dense(dropped)
    n_users, a = pairs[2], dense_adjacency(*pairs)
    n_edges = int(a.sum()) // 2
    assert dropped.n_edges == 2 * math.floor((1 - Fraction(percent, 100)) * n_edges)
    kept = (matrix > 0).astype(float)
    assert (kept <= a).all()
    assert_allclose(matrix, dense_normalised(kept, 1e-7), rtol=1e-12)
    assert kept[:n_users, :n_users].sum() == 0


def test_edge_drop_reads_the_ratio_as_it_is_written() -> None:
    # In binary 1 - 0.9 is a little less than a tenth, and a floor would lose the edge.
    graph = BipartiteGraph(np.arange(10), np.zeros(10, np.int64), 10, 1)
    for ratio, kept in ((0.9, 1), (0.8, 2), (0.7, 3), (0.1, 9), (0.05, 9)):
        assert graph.edge_drop(ratio, torch.Generator()).n_edges == 2 * kept


def test_edge_drop_repeats_with_the_seed_and_moves_on_without() -> None:
    rng = np.random.default_rng(0)
    graph = BipartiteGraph(rng.integers(0, 50, 400), rng.integers(0, 40, 400), 50, 40)
    generator = torch.Generator().manual_seed(7)
    first, second = (graph.edge_drop(0.5, generator).matrix.to_dense() for _ in range(2))
    again = graph.edge_drop(0.5, torch.Generator().manual_seed(7)).matrix.to_dense()
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    full = graph.edge_drop(0.0, generator)
    assert torch.equal(full.matrix.to_dense(), graph.adjacency().matrix.to_dense())


@pytest.mark.parametrize("weighting", ["degree", "uniform"])
def test_the_first_edge_drawn_follows_the_weights(weighting: str) -> None:
    users, items = np.array([0, 0, 0, 1, 2, 2]), np.array([0, 1, 2, 0, 0, 3])
    graph = BipartiteGraph(users, items, 3, 4)
    generator = torch.Generator().manual_seed(3)
    seen = np.zeros(6)
    # At 5/6 of 6 edges one is left, so that its law is that of the first draw: proportional to the weights.
    for _ in range(6000):
        rows, columns = graph.edge_drop(0.8333, generator, weighting=weighting).edges()  # type: ignore[arg-type]
        seen[np.flatnonzero((users == rows[0].item()) & (items == columns[0].item() - 3))[0]] += 1
    weights = np.ones(6)
    if weighting == "degree":
        weights = 1 / np.sqrt(np.bincount(users)[users] * np.bincount(items)[items])
    assert stats.chisquare(seen, 6000 * weights / weights.sum()).pvalue > 1e-3


def test_draws_are_without_replacement_by_weight_like_numpys() -> None:
    users, items = np.array([0, 0, 0, 0, 1, 2]), np.array([0, 1, 2, 3, 0, 4])
    graph = BipartiteGraph(users, items, 3, 5)
    weights = 1 / np.sqrt(np.bincount(users)[users] * np.bincount(items)[items])
    generator, rng = torch.Generator().manual_seed(1), np.random.default_rng(1)
    ours, theirs = np.zeros(6), np.zeros(6)
    for _ in range(4000):
        rows, columns = graph.edge_drop(0.5, generator).edges()
        kept = set(zip(rows[:3].tolist(), (columns[:3] - 3).tolist(), strict=True))
        ours += [(u, i) in kept for u, i in zip(users.tolist(), items.tolist(), strict=True)]
        theirs[rng.choice(6, 3, replace=False, p=weights / weights.sum())] += 1
    assert_allclose(ours / 4000, theirs / 4000, atol=0.04)


@pytest.mark.parametrize("ratio", [-0.1, 1.0, float("nan")])
def test_edge_drop_refuses_a_ratio_out_of_range(ratio: float) -> None:
    graph = BipartiteGraph([0], [0], 1, 1)
    with pytest.raises(InputError, match="ratio"):
        graph.edge_drop(ratio, torch.Generator())


def test_interactions_out_of_range_or_of_unequal_length_are_refused() -> None:
    for users, items in (([0, 2], [0, 0]), ([0], [-1]), ([0, 1], [0]), ([0.0], [0]), ([[0]], [[0]])):
        with pytest.raises(InputError):
            BipartiteGraph(users, items, 2, 2)
    assert interaction_matrix([0, 0, 1], [1, 1, 0], 2, 2).toarray().tolist() == [[0, 1], [1, 0]]
