"""
Neighbour tables: the k nearest rows by cosine, exactly by blocks of products or approximately with FAISS.

Both ways only find candidates. Those are scored again in float64 and compared as float32, and equal rows are searched
once and share their neighbours: neither block sizes nor threads can change which of equal neighbours comes first.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import polars as pl
import torch

from recmodels.compute.base import Compute
from recmodels.compute.local import LOCAL
from recmodels.errors import InputError
from recmodels.graphs.distinct import distinct_rows
from recmodels.graphs.matrices import checked_pairs
from recmodels.schemas.tables import KNN

Index = Literal["exact", "ivf", "hnsw"]

Search = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""For some of the distinct rows, candidates: pairs of a place in the argument and a distinct row."""

# Similarities closer than this may come in either order from a float32 product.
_FLOAT32_NOISE = 2e-6
# Candidates beyond those that are wanted: float32 sums of up to some thousand terms can swap near neighbours.
_SPARE = 6
# Products that are formed at once (256 MB), rows of a sample that are compared with all others, pairs scored at once.
_BLOCK_PRODUCTS = 1 << 26
_SAMPLE_ROWS = 256
_BLOCK_PAIRS = 1024


def knn_table(
    vectors: np.ndarray,
    k: int,
    *,
    index: Index = "exact",
    include_self: bool = True,
    target_recall: float = 0.99,
    seed: int = 0,
    compute: Compute = LOCAL,
) -> pl.DataFrame:
    """
    Return the k nearest neighbours of every row by cosine similarity.

    Parameters
    ----------
    vectors
        Shape (n, d), any float type, finite; not centred. Lengths do not matter.
    k
        Neighbours of a row, at least 1, the row itself included if `include_self`. With fewer rows than that, each row
        gets all there are.
    index
        ``exact``: every pair is compared, O(n^2 d) time and O(n k) memory. ``ivf`` and ``hnsw`` are for larger sets:
        their search effort is doubled until a sample of rows reaches `target_recall`. See `knn_recall`. ``hnsw`` is
        built in parallel, so that its tables may differ between runs. The comparison runs on the GPU if torch sees one.
    include_self
        Whether a row is its own neighbour, then always at rank 0.
    target_recall
        For ``ivf`` and ``hnsw``: share of the true neighbours to find, in (0, 1].
    seed
        Of the clustering of ``ivf`` and of the sample of rows.
    compute
        Where blocks of rows are compared with all rows, each with a GPU of its own if torch sees one here. An
        approximate index is built and searched in this process, and what it finds is scored in blocks.

    Returns
    -------
    pl.DataFrame
        Schema `recmodels.schemas.tables.KNN`, by src and rank. Neighbours fall in similarity; of equal similarities
        (as float32) the smaller dst comes first. A row of zeros has similarity 0 to every other row.

    Raises
    ------
    InputError
        If `vectors` is not a finite matrix with at least one column, `k` is below 1,
        `target_recall` is not in (0, 1] or `index` is unknown.

    See Also
    --------
    recmodels.graphs.neighbour_graphs : Graphs made of such a table.

    Examples
    --------
    >>> import numpy as np
    >>> table = knn_table(np.array([[1.0, 0.0], [2.0, 0.1], [0.0, 3.0]]), k=2)
    >>> table.select("src", "dst", "rank").rows()
    [(0, 0, 0), (0, 1, 1), (1, 1, 0), (1, 0, 1), (2, 2, 0), (2, 1, 1)]
    """
    x = np.asarray(vectors)
    if x.ndim != 2 or x.shape[1] < 1 or not np.issubdtype(x.dtype, np.floating):
        raise InputError("vectors", expected="a float matrix (n, d)", found=f"{x.dtype} of shape {x.shape}")
    if k < 1:
        raise InputError("neighbours k", expected="at least 1", found=str(k))
    if not 0 < target_recall <= 1:
        raise InputError("target_recall", expected="a number in (0, 1]", found=str(target_recall))
    if index not in ("exact", "ivf", "hnsw"):
        raise InputError("index", expected="'exact', 'ivf' or 'hnsw'", found=repr(index))
    wrong = np.flatnonzero(~np.isfinite(x).all(axis=1))
    if wrong.size:
        raise InputError(
            "vectors",
            expected="finite values",
            found=f"NaN or infinity in {wrong.size} of {x.shape[0]} rows, the first of them row {wrong[0]}",
        )
    ids = np.arange(x.shape[0], dtype=np.int32)
    selves = pl.DataFrame({"src": ids, "dst": ids, "similarity": np.ones(ids.size, np.float32)})
    edges = [selves if include_self else selves.clear()]
    # As many as are wanted and the row itself, which is among its own nearest.
    width = min(k if include_self else k + 1, ids.size)
    if width > 1:
        x, lengths, unit = _normalised(x)
        first, row = distinct_rows(unit)
        if first.size < ids.size:
            x, lengths, unit = x[first], lengths[first], unit[first]
        device = "cuda" if torch.cuda.is_available() else "cpu"
        starts = np.concatenate(([0], np.cumsum(np.bincount(row))))
        rows = _Rows(x, lengths, unit, np.argsort(row, kind="stable").astype(np.int32), starts, width, device)
        queries = np.array_split(np.arange(first.size), -(-(first.size**2) // _BLOCK_PRODUCTS))
        blocks = ((block, None) for block in queries)
        if index != "exact":
            blocks = _found_in_index(rows, queries, index, target_recall, seed)
        edges.extend(compute.map(_nearest, blocks, shared=rows, gpus=float(device == "cuda" and index == "exact")))
    table = pl.concat(edges).sort("src", pl.col("src") != pl.col("dst"), -pl.col("similarity"), "dst")
    table = table.with_columns(rank=pl.int_range(pl.len(), dtype=pl.Int16).over("src")).filter(pl.col("rank") < k)
    return table.select(*KNN)


def knn_recall(knn: pl.DataFrame, vectors: np.ndarray, *, n_sample: int = 1000, seed: int = 0) -> float:
    """
    Return the share of true nearest neighbours that a table holds, over a sample of its rows.

    Parameters
    ----------
    knn
        Neighbour table of `vectors`, schema `recmodels.schemas.tables.KNN`.
    vectors
        Shape (n, d), what the table was built from.
    n_sample
        Rows to compare with an exact search; all of them if there are fewer.
    seed
        Of the sample.

    Returns
    -------
    float
        Of the neighbours other than the row itself, how many are at least as similar as the true neighbour of the
        last rank (so that a tie in another order counts as found). 1.0 for an empty table.

    Raises
    ------
    InputError
        If the table names rows that `vectors` does not have.
    """
    unit = _normalised(np.asarray(vectors))[2]
    others = knn.filter(pl.col("src") != pl.col("dst"))
    checked_pairs(others["src"].to_numpy(), others["dst"].to_numpy(), len(unit), len(unit), "neighbour table")
    sources = others["src"].unique().sort().to_numpy()
    if not sources.size:
        return 1.0
    if sources.size > n_sample:
        sources = np.sort(np.random.default_rng(seed).choice(sources, n_sample, replace=False))
    found = wanted = 0
    for start in range(0, sources.size, _SAMPLE_ROWS):
        rows = sources[start : start + _SAMPLE_ROWS]
        similarity = unit[rows] @ unit.T
        similarity[np.arange(rows.size), rows] = -np.inf
        listed = others.filter(pl.col("src").is_in(rows.tolist()))
        at, to = np.searchsorted(rows, listed["src"].to_numpy()), listed["dst"].to_numpy()
        counts = np.bincount(at, minlength=rows.size)
        best = torch.from_numpy(similarity).topk(int(counts.max())).values.numpy()
        last = best[np.arange(rows.size), counts - 1]
        found += int((similarity[at, to] >= last[at] - _FLOAT32_NOISE).sum())
        wanted += int(counts.sum())
    return found / wanted


def _normalised(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rows whose products stay in the range of float64, their lengths (1 for zeros), and unit rows, float32."""
    if x.dtype.itemsize > 4:
        # A power of two changes no digit.
        x = np.ldexp(x, -np.frexp(np.abs(x).max(axis=1, keepdims=True))[1])
    lengths = np.sqrt(np.einsum("ij,ij->i", x, x, dtype=np.float64))
    lengths[lengths == 0] = 1
    unit = np.empty(x.shape, np.float32)
    np.divide(x, lengths[:, None], out=unit, dtype=np.float64, casting="same_kind")
    # Adding 0 turns -0.0 into 0.0, so that equal rows have equal bytes.
    return x, lengths, np.add(unit, 0, out=unit)


@dataclass(frozen=True)
class _Rows:
    """
    Distinct rows and who has them: what is found among, for every block of queries.

    Attributes
    ----------
    x, lengths, unit
        As `_normalised` returns them.
    ids, starts
        The ids that have row i, rising, are ``ids[starts[i] : starts[i + 1]]``.
    width
        Neighbours that are wanted of each, the row itself included.
    device
        Where rows are compared.
    """

    x: np.ndarray
    lengths: np.ndarray
    unit: np.ndarray
    ids: np.ndarray
    starts: np.ndarray
    width: int
    device: str

    @cached_property
    def search(self) -> Search:
        """The exact search, which keeps its memory from block to block."""
        return _exact_search(self.unit, min(self.width, len(self.unit)), self.device)

    def having(self, rows: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
        """Return pairs of a place in `rows` and an id that has the row there, of each row the `most` smallest."""
        counts = np.minimum(self.starts[rows + 1] - self.starts[rows], most)
        at = np.repeat(np.arange(rows.size), counts)
        return at, self.ids[np.arange(at.size) + np.repeat(self.starts[rows] - (np.cumsum(counts) - counts), counts)]


_Pairs = tuple[np.ndarray, np.ndarray]


def _nearest(rows: _Rows, block: tuple[np.ndarray, _Pairs | None]) -> pl.DataFrame:
    """Return (src, dst, similarity) of a block of distinct rows, with the candidates that were found if they were."""
    queries, found = block
    at, others = rows.search(queries) if found is None else found
    similarities = _cosines(rows.x, rows.lengths, queries[at], others)
    # More than the first `width` of equal rows can never be needed.
    pair, dst = rows.having(others, rows.width)
    pairs = pl.DataFrame({"query": at[pair], "dst": dst, "similarity": similarities[pair]})
    ranked = pairs.sort("query", -pl.col("similarity"), "dst")
    nearest = ranked.filter(pl.int_range(pl.len()).over("query") < rows.width)
    query, src = rows.having(queries, len(rows.ids))
    joined = pl.DataFrame({"query": query, "src": src}).join(nearest, on="query")
    return joined.filter(pl.col("src") != pl.col("dst")).select("src", "dst", "similarity")


def _found_in_index(
    rows: _Rows, queries: list[np.ndarray], index: Index, target_recall: float, seed: int
) -> Iterator[tuple[np.ndarray, _Pairs]]:
    """Yield blocks of rows with what an approximate index finds for them."""
    wanted = min(rows.width, len(rows.unit))
    exact = _exact_search(rows.unit, wanted, rows.device)
    built = _build(rows.unit, index, seed)
    _tune(built, rows.unit, wanted, exact, target_recall, seed)
    search = _approximate_search(built, rows.unit, wanted, exact)
    for block in queries:
        yield block, search(block)


def _cosines(x: np.ndarray, lengths: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the cosines of pairs of rows, summed in float64 so that as float32 equal ones are equal."""
    cosines = np.empty(left.size, np.float32)
    for start in range(0, left.size, _BLOCK_PAIRS):
        i, j = left[start : start + _BLOCK_PAIRS], right[start : start + _BLOCK_PAIRS]
        products = np.einsum("ij,ij->i", x[i].astype(np.float64), x[j].astype(np.float64))
        cosines[start : start + _BLOCK_PAIRS] = products / (lengths[i] * lengths[j])
    return cosines


def _exact_search(unit: np.ndarray, width: int, device: str) -> Search:
    """Compare with all rows, and find those that may be among the `width` nearest."""
    rows = torch.from_numpy(unit).to(device)
    # One array for all blocks: asking the system for the memory again costs as much as a tenth of the products.
    block = torch.empty(0, device=device)

    def search(queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        similarity = torch.mm(rows[queries], rows.T, out=block.resize_(len(queries), len(rows)))
        nearest, found = similarity.topk(min(width + _SPARE, len(rows)))
        least = nearest[:, width - 1 : width] - _FLOAT32_NOISE
        # Where even the last of these may be one of them, any row may.
        crowded = nearest[:, -1] >= least[:, 0]
        at, column = ((nearest >= least) & ~crowded[:, None]).nonzero(as_tuple=True)
        among = crowded.nonzero()[:, 0]
        at_crowded, others = (similarity[among] >= least[among]).nonzero(as_tuple=True)
        pairs = torch.cat((at, among[at_crowded])), torch.cat((found[at, column], others))
        return pairs[0].cpu().numpy(), pairs[1].cpu().numpy()

    return search


def _approximate_search(built: Any, unit: np.ndarray, width: int, exact: Search) -> Search:
    """Find neighbours in an index, and exactly those of the rows for which it gives too few."""

    def search(queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        _, found = built.search(unit[queries], min(width + _SPARE, len(unit)))
        enough = (found >= 0).sum(axis=1) >= width
        at, column = np.nonzero((found >= 0) & enough[:, None])
        short = np.flatnonzero(~enough)
        if not short.size:
            return at, found[at, column]
        at_short, found_short = exact(queries[short])
        return np.concatenate((at, short[at_short])), np.concatenate((found[at, column], found_short))

    return search


def _build(unit: np.ndarray, index: Index, seed: int) -> Any:
    import faiss

    n, width = unit.shape
    if index == "hnsw":
        built = faiss.IndexHNSWFlat(width, 32, faiss.METRIC_INNER_PRODUCT)
        built.hnsw.efConstruction = 200
    else:
        lists = min(round(4 * n**0.5), n)
        built = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, lists, faiss.METRIC_INNER_PRODUCT)
        built.cp.seed = seed
        # FAISS warns on standard output about few points a cluster, which is no concern for a search.
        built.cp.min_points_per_centroid = 1
        built.train(unit)
    built.add(unit)
    return built


def _tune(built: Any, unit: np.ndarray, width: int, exact: Search, target_recall: float, seed: int) -> None:
    """Raise the search effort of an index until a sample of rows finds enough of its true neighbours."""
    n = len(unit)
    rows = np.sort(np.random.default_rng(seed).choice(n, min(n, _SAMPLE_ROWS), replace=False))
    at, others = exact(rows)
    true = np.zeros((rows.size, n), bool)
    true[at, others] = True
    hnsw = hasattr(built, "hnsw")
    effort, most = (64, n) if hnsw else (8, int(built.nlist))
    while True:
        if hnsw:
            built.hnsw.efSearch = effort
        else:
            built.nprobe = min(effort, most)
        _, found = built.search(unit[rows], width)
        hits = (found >= 0) & np.take_along_axis(true, np.maximum(found, 0), axis=1)
        if effort >= most or hits.mean() >= target_recall:
            return
        effort *= 2
