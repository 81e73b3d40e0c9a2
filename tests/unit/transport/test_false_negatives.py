"""False negatives against sets and loops, and on the published data."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from recmodels.errors import InputError
from recmodels.schemas.tables import KNN
from recmodels.transport import false_negatives as module
from recmodels.transport.false_negatives import Evidence, false_negatives

WEIGHTS = {"text": 0.75, "image": 0.25}


def knn(edges: list[tuple[int, int, float | None]]) -> pl.DataFrame:
    """Neighbour table from (src, dst, similarity), ranked by order of appearance."""
    ranks: dict[int, int] = {}
    rows: list[tuple[int, int, int, float | None]] = []
    for src, dst, similarity in edges:
        rows.append((src, dst, ranks.get(src, 0), similarity))
        ranks[src] = ranks.get(src, 0) + 1
    return pl.DataFrame(rows, schema=KNN, orient="row")


def by_loops(
    pairs: set[tuple[int, int]], graphs: dict[str, list[tuple[int, int, float | None]]], evidence: Evidence
) -> dict[tuple[int, int], float]:
    users_of: dict[int, set[int]] = {}
    for user, item in pairs:
        users_of.setdefault(item, set()).add(user)
    present = {name for name, edges in graphs.items() if edges}
    total = sum(WEIGHTS[name] for name in present)
    found: dict[tuple[int, int], float] = {}
    for user, positive in pairs:
        for name, edges in graphs.items():
            for src, dst, similarity in set(edges):
                if src == positive and (user, dst) not in pairs:
                    add = {"binary": 0.0, "count": 1.0}.get(
                        evidence, WEIGHTS[name] / (total or 1) * (similarity or 0.0)
                    )
                    found[user, dst] = found.get((user, dst), 0.0) + add
    for user, item in found:
        if evidence == "binary":
            found[user, item] = 1.0
        if evidence == "collaborative":
            for other, positive in pairs:
                if other == user and item in users_of:
                    both = len(users_of[item] & users_of[positive])
                    found[user, item] += both / (len(users_of[item]) * len(users_of[positive])) ** 0.5
    return found


@pytest.mark.parametrize("evidence", ["binary", "count", "similarity", "collaborative"])
@pytest.mark.parametrize("block_products", [4, 1 << 23])
def test_equal_those_found_by_loops(evidence: Evidence, block_products: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK_PRODUCTS", block_products)

    @settings(max_examples=60, deadline=None)
    @given(st.integers(0, 2**32 - 1), st.integers(1, 7), st.integers(1, 8))
    def check(seed: int, n_users: int, n_items: int) -> None:
        rng = np.random.default_rng(seed)
        users = rng.integers(0, n_users, int(rng.integers(0, 15)))
        items = rng.integers(0, n_items, users.size)
        graphs: dict[str, list[tuple[int, int, float | None]]] = {}
        for name in WEIGHTS:
            n_edges = int(rng.integers(0, 12))
            ends = {(int(s), int(d)) for s, d in rng.integers(0, n_items, (n_edges, 2))}
            graphs[name] = [
                (s, d, None if rng.random() < 0.2 else round(rng.uniform(-1, 1), 3)) for s, d in sorted(ends)
            ]
        tables = {name: knn(edges) for name, edges in graphs.items()}
        result = false_negatives(users, items, n_users, n_items, tables, evidence=evidence, weights=WEIGHTS)
        expected = by_loops(set(zip(users.tolist(), items.tolist(), strict=True)), graphs, evidence)
        found = result.tocoo()
        pairs = list(zip(found.coords[0].tolist(), found.coords[1].tolist(), strict=True))
        assert pairs == sorted(expected)
        assert_allclose(found.data, [expected[pair] for pair in pairs], atol=1e-5)
        assert result.indices.dtype == np.int32
        assert result.data.dtype == np.float32

    check()


def test_a_repeated_edge_counts_once_with_its_best_similarity() -> None:
    table = knn([(0, 1, 0.9), (0, 1, 0.4), (0, 2, 0.3)])
    for evidence, expected in (("count", [1, 1]), ("similarity", [0.9, 0.3])):
        result = false_negatives([0], [0], 1, 3, {"text": table}, evidence=evidence)
        assert_allclose(result.toarray()[0, 1:], expected, rtol=1e-6)


def test_only_the_best_neighbours_count_the_self_edge_among_them() -> None:
    table = knn([(0, 0, 1.0), (0, 1, 0.9), (0, 2, 0.8), (0, 3, 0.7)])
    assert false_negatives([0], [0], 1, 4, {"text": table}, k=3).indices.tolist() == [1, 2]
    with pytest.raises(InputError, match="larger k"):
        false_negatives([0], [0], 1, 9, {"text": table}, k=5)


def test_without_any_graph_there_are_none() -> None:
    assert false_negatives([0, 1], [0, 1], 2, 3, {"text": KNN.to_frame()}).nnz == 0
    assert false_negatives([0, 1], [0, 1], 2, 3, {}).shape == (2, 3)


@pytest.mark.parametrize(
    "change",
    [
        {"user_ids": [2]},
        {"item_ids": [-1]},
        {"item_ids": [0, 1]},
        {"user_ids": [0.5]},
        {"evidence": "guess"},
        {"evidence": "similarity", "weights": {"image": 1.0}},
        {"evidence": "similarity", "weights": {"text": -1.0}},
        {"evidence": "similarity", "weights": {"text": float("nan")}},
        {"item_graphs": {"text": knn([(0, 7, 0.5)])}},
        {"k": 0},
    ],
)
def test_wrong_input_is_refused(change: dict[str, object]) -> None:
    arguments: dict[str, object] = {
        "user_ids": [0],
        "item_ids": [0],
        "n_users": 2,
        "n_items": 3,
        "item_graphs": {"text": knn([(0, 1, 0.5)])},
        **change,
    }
    with pytest.raises(InputError):
        false_negatives(**arguments)  # type: ignore[arg-type]


def test_the_published_baby_split_has_the_known_number(shared_data: Path) -> None:
    folder = shared_data / "mmrec" / "baby"
    table = pl.read_csv(folder / "baby.inter.gz", separator="\t")
    train = table.filter(pl.col("x_label") == 0)
    graphs = {
        name: pl.read_parquet(folder / f"{name}_knn.parquet").select(
            "src",
            "dst",
            rank=pl.int_range(pl.len()).over("src").cast(pl.Int16),
            similarity="cosine",
        )
        for name in ("text", "image")
    }
    result = false_negatives(train["userID"], train["itemID"], 19445, 7050, graphs)
    assert result.nnz == 1_899_118
