"""Neighbour tables against sorting all cosines, ties and odd rows included."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose

from recmodels.compute.local import Local
from recmodels.errors import InputError
from recmodels.graphs import knn as module
from recmodels.graphs.knn import knn_recall, knn_table
from recmodels.schemas.tables import KNN


def by_sorting(x: np.ndarray, k: int, include_self: bool) -> list[list[int]]:
    x = x.astype(np.float64)
    length = np.linalg.norm(x, axis=1, keepdims=True)
    unit = x / np.where(length > 0, length, 1)
    # Cosines that differ by less than this are equal: they come from small integers.
    cosines = np.round(unit @ unit.T, 7)
    ranked: list[list[int]] = []
    for row in range(len(x)):
        others = [j for j in sorted(range(len(x)), key=lambda j: (-cosines[row, j], j)) if j != row]
        ranked.append(([row, *others] if include_self else others)[:k])
    return ranked


def neighbours(table: pl.DataFrame) -> list[list[int]]:
    return table.group_by("src", maintain_order=True).agg("dst")["dst"].to_list()


@settings(max_examples=200, deadline=None)
@given(
    arrays(np.float32, st.tuples(st.integers(2, 25), st.integers(1, 4)), elements=st.integers(-2, 2).map(float)),
    st.integers(1, 8),
    st.booleans(),
)
@example(np.zeros((12, 3), np.float32), 4, True)
@example(np.ones((12, 3), np.float32), 4, False)
@example(np.eye(12, dtype=np.float32), 3, True)
@example(np.array([[1, 2, 2, 1], [2, 2, 2, 2], [0, 0, 0, 0], [0, 2, 2, 1]], np.float32), 1, False)
def test_equals_sorting_all_cosines_with_ties_by_id(x: np.ndarray, k: int, include_self: bool) -> None:
    expected = [[row] for row in range(len(x))] if k == 1 and include_self else by_sorting(x, k, include_self)
    assert neighbours(knn_table(x, k, include_self=include_self)) == expected


def test_similarities_are_cosines() -> None:
    x = np.random.default_rng(0).standard_normal((60, 17)).astype(np.float32)
    table = knn_table(x * np.linspace(0.001, 1000, 60, dtype=np.float32)[:, None], 5)
    assert table.schema == KNN
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    cosines = (unit @ unit.T)[table["src"].to_numpy(), table["dst"].to_numpy()]
    assert_allclose(table["similarity"].to_numpy(), cosines, atol=1e-5)
    assert table["rank"].to_list() == [0, 1, 2, 3, 4] * 60
    assert (table.filter(pl.col("rank") == 0)["src"] == table.filter(pl.col("rank") == 0)["dst"]).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_very_long_and_very_short_rows_have_the_same_neighbours(dtype: type[np.floating]) -> None:
    x = np.random.default_rng(7).standard_normal((40, 6)).astype(np.float16).astype(dtype)
    expected = neighbours(knn_table(x, 5))
    powers = {np.float16: (-2, 3), np.float32: (-120, 120), np.float64: (-1000, 1000)}[dtype]
    scaled = np.ldexp(x, np.where(np.arange(40) % 2, *powers)[:, None])
    assert neighbours(knn_table(scaled, 5)) == expected


def test_many_equal_rows_keep_themselves_and_the_smallest_ids() -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((300, 8)).astype(np.float32)
    x[100:200] = x[100]
    table = neighbours(knn_table(x, 4))
    assert table[100] == [100, 101, 102, 103]
    assert table[150] == [150, 100, 101, 102]
    assert table[199] == [199, 100, 101, 102]


def test_ties_that_float32_products_would_scatter_stay_in_id_order() -> None:
    # Permuted coordinates have the same cosine to the first row, but float32 sums in another order differ.
    rng = np.random.default_rng(2)
    base = rng.standard_normal(257).astype(np.float32)
    x = np.stack([np.ones(257, np.float32)] + [rng.permutation(base) for _ in range(80)])
    if base.sum() < 0:
        x[1:] *= -1
    assert neighbours(knn_table(x, 6))[0] == [0, 1, 2, 3, 4, 5]


def test_the_same_table_comes_back_whatever_the_block_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(3).integers(-1, 2, (200, 5)).astype(np.float32)
    whole = knn_table(x, 7)
    monkeypatch.setattr(module, "_BLOCK_PRODUCTS", 1000)
    monkeypatch.setattr(module, "_BLOCK_PAIRS", 3)
    assert knn_table(x, 7).equals(whole)


class _Cut(Local):
    """A place that cuts the rows of all blocks anew, at the given shares of them."""

    def __init__(self, shares: list[float]) -> None:
        self._shares = sorted(shares)

    def map(
        self, function: Callable[[Any, Any], Any], blocks: Iterable[Any], *, shared: Any = None, gpus: float = 0
    ) -> Iterator[Any]:
        rows = np.concatenate([queries for queries, _ in blocks])
        for part in np.split(rows, [round(share * rows.size) for share in self._shares]):
            yield function(shared, (part, None))


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.lists(st.floats(0, 1), max_size=8))
def test_any_cut_of_the_rows_into_blocks_gives_the_same_table(seed: int, shares: list[float]) -> None:
    x = np.random.default_rng(seed).integers(-1, 2, (120, 5)).astype(np.float32)
    assert knn_table(x, 7, compute=_Cut(shares)).equals(knn_table(x, 7))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 90), st.integers(1, 12), st.sampled_from([1, 500, 1 << 20]))
def test_duplicates_among_real_vectors_are_ranked_as_by_float64_in_any_blocks_and_threads(
    seed: int, n: int, k: int, products: int
) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 33)).astype(np.float32)[rng.integers(n, size=n)]
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK_PRODUCTS", products)
        try:
            torch.set_num_threads(1 + seed % 2)
            assert neighbours(knn_table(x, k)) == by_sorting(x, k, include_self=True)
        finally:
            torch.set_num_threads(threads)


@pytest.mark.parametrize(("n", "expected"), [(0, 0), (1, 1), (3, 9)])
def test_fewer_rows_than_k_gives_all_there_are(n: int, expected: int) -> None:
    x = np.random.default_rng(4).standard_normal((n, 4)).astype(np.float32)
    assert knn_table(x, 10).height == expected
    assert knn_table(x, 10, include_self=False).height == expected - n


@pytest.mark.parametrize("index", ["ivf", "hnsw"])
def test_approximate_indexes_reach_the_recall_that_is_asked_for(index: module.Index) -> None:
    x = np.random.default_rng(5).standard_normal((1500, 24)).astype(np.float32)
    x[700:760] = x[700]
    table = knn_table(x, 10, index=index)
    assert table.height == 15000
    assert (table.group_by("src").agg(pl.col("dst").n_unique())["dst"] == 10).all()
    assert knn_recall(table, x) >= 0.98
    exact = knn_table(x, 10)
    both = table.join(exact, on=["src", "dst"]).height / exact.height
    assert both == pytest.approx(knn_recall(table, x, n_sample=1500), abs=0.01)


def test_recall_counts_what_is_missing() -> None:
    x = np.random.default_rng(6).standard_normal((50, 6)).astype(np.float32)
    exact = knn_table(x, 6)
    assert knn_recall(exact, x) == 1.0
    farthest = knn_table(-x, 50).with_columns(src=(pl.col("src")))
    last = farthest.filter(pl.col("rank") == 49)
    spoiled = pl.concat([exact.filter(pl.col("rank") < 5), last.with_columns(rank=pl.lit(5, pl.Int16))])
    assert knn_recall(spoiled, x) == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("vectors", "options"),
    [
        (np.array([[1.0, np.nan], [0.0, 1.0]]), {}),
        (np.array([[1.0, np.inf], [0.0, 1.0]]), {}),
        (np.zeros(3), {}),
        (np.zeros((3, 0)), {}),
        (np.zeros((3, 2), np.int64), {}),
        (np.eye(3), {"k": 0}),
        (np.eye(3), {"index": "annoy"}),
        (np.eye(3), {"target_recall": 1.5}),
    ],
)
def test_wrong_input_is_refused(vectors: np.ndarray, options: dict[str, object]) -> None:
    with pytest.raises(InputError):
        knn_table(vectors, **({"k": 2} | options))  # type: ignore[arg-type]


def test_the_first_bad_row_is_named() -> None:
    x = np.ones((5, 2), np.float32)
    x[3, 1] = np.nan
    with pytest.raises(InputError, match="row 3"):
        knn_table(x, 2)
