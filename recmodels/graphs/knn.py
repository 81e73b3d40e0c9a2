"""
Neighbour tables: the k nearest rows by cosine, with FAISS.

The exact search is exact to the last tie: candidates from FAISS are scored again in float64 from the rows as they came,
equal rows are searched once and share their neighbours, and rows whose k-th place is contested are ranked against
everything.
"""

from typing import Any, Literal

import faiss
import numpy as np
import polars as pl

from recmodels.errors import InputError
from recmodels.graphs.matrices import checked_pairs
from recmodels.schemas.tables import KNN

Index = Literal["exact", "ivf", "hnsw"]

# Candidates beyond k that are scored again: float32 sums of up to some thousand terms can swap near neighbours.
_SPARE = 6
# Similarities closer than this may come in either order from a float32 product.
_FLOAT32_NOISE = 2e-6
# Queries handed to FAISS at once, and rows compared with all others at once where a tie crosses the k-th place.
_QUERY_ROWS = 8192
_SCAN_ROWS = 256


def knn_table(
    vectors: np.ndarray,
    k: int,
    *,
    index: Index = "exact",
    include_self: bool = True,
    n_lists: int | None = None,
    hnsw_links: int = 32,
    target_recall: float = 0.99,
    seed: int = 0,
    use_gpu: bool = True,
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
        their search effort is doubled until a sample of rows reaches `target_recall`. See also `knn_recall`.
    include_self
        Whether a row is its own neighbour, then always at rank 0.
    n_lists
        For ``ivf``: number of clusters. None: 4 sqrt(n).
    hnsw_links
        For ``hnsw``: links of a node. Its construction is parallel, so that tables may differ between runs.
    target_recall
        For ``ivf`` and ``hnsw``: share of the true neighbours to find, in (0, 1].
    seed
        Of the clustering of ``ivf`` and of the sample of rows.
    use_gpu
        Search on the GPUs that FAISS sees, if any (``exact`` alone).

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
    finite = np.isfinite(x).all(axis=1)
    if not finite.all():
        wrong = np.flatnonzero(~finite)
        raise InputError(
            "vectors",
            expected="finite values",
            found=f"NaN or infinity in {wrong.size} of {x.shape[0]} rows, the first of them row {wrong[0]}",
        )
    n = x.shape[0]
    n_others = min(k - 1 if include_self else k, n - 1)
    unit = _unit_rows(x)
    if n_others < 1:
        neighbours, similarities = np.zeros((n, 0), np.int64), np.zeros((n, 0), np.float32)
    else:
        first, group = _distinct(unit)
        members = _Members(first, group)
        rows = _Rows(x, unit, first)
        built = _build(rows.unit, index, n_lists, hnsw_links, seed, use_gpu)
        if index != "exact":
            _tune(built, rows.unit, min(n_others + 1, first.size), target_recall, seed)
        nearest, scores = _nearest(rows, members, n_others + 1, built, exact=index == "exact")
        neighbours, similarities = _without_self(nearest[group], scores[group])
    if include_self:
        neighbours = np.column_stack((np.arange(n), neighbours))
        similarities = np.column_stack((np.ones(n, np.float32), similarities))
    width = neighbours.shape[1]
    return pl.DataFrame(
        {
            "src": np.repeat(np.arange(n, dtype=np.int32), width),
            "dst": neighbours.astype(np.int32).ravel(),
            "rank": np.tile(np.arange(width, dtype=np.int16), n),
            "similarity": similarities.ravel(),
        },
        schema=KNN,
    )


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
    unit = _unit_rows(np.asarray(vectors))
    others = knn.filter(pl.col("src") != pl.col("dst"))
    checked_pairs(others["src"].to_numpy(), others["dst"].to_numpy(), unit.shape[0], unit.shape[0], "neighbour table")
    sources = others["src"].unique().sort().to_numpy()
    if not sources.size:
        return 1.0
    if sources.size > n_sample:
        sources = np.sort(np.random.default_rng(seed).choice(sources, n_sample, replace=False))
    found = wanted = 0
    for start in range(0, sources.size, _SCAN_ROWS):
        rows = sources[start : start + _SCAN_ROWS]
        similarity = (unit[rows] @ unit.T).astype(np.float64)
        similarity[np.arange(rows.size), rows] = -np.inf
        listed = others.filter(pl.col("src").is_in(rows.tolist()))
        at, to = np.searchsorted(rows, listed["src"].to_numpy()), listed["dst"].to_numpy()
        counts = np.bincount(at, minlength=rows.size)
        depth = int(counts.max())
        best = -np.partition(-similarity, depth - 1, axis=1)[:, :depth]
        best.sort(axis=1)
        last = best[np.arange(rows.size), depth - counts]
        found += int((similarity[at, to] >= last[at] - _FLOAT32_NOISE).sum())
        wanted += int(counts.sum())
    return found / wanted


def _unit_rows(x: np.ndarray) -> np.ndarray:
    """Scale rows to length 1, float32; a row of zeros stays one."""
    unit = np.empty(x.shape, np.float32)
    for start in range(0, x.shape[0], _QUERY_ROWS):
        wide = x[start : start + _QUERY_ROWS].astype(np.float64)
        # The largest entry is divided out first: squares of very large or small ones would leave the range.
        scale = np.abs(wide).max(axis=1, keepdims=True)
        wide /= np.where(scale > 0, scale, 1.0)
        length = np.linalg.norm(wide, axis=1, keepdims=True)
        wide /= np.where(length > 0, length, 1.0)
        # Adding 0 turns -0.0 into 0.0, so that equal rows have equal bytes.
        unit[start : start + _QUERY_ROWS] = wide + 0.0
    return unit


def _distinct(unit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the first row of each set of equal rows, and for every row the set it belongs to."""
    seen: dict[bytes, int] = {}
    first: list[int] = []
    group = np.empty(unit.shape[0], np.int64)
    for row in range(unit.shape[0]):
        group[row] = seen.setdefault(unit[row].tobytes(), len(first))
        if group[row] == len(first):
            first.append(row)
    return np.array(first), group


class _Rows:
    """The distinct rows: at length 1 in float32 for the search, and as they came for the scores that rank them."""

    def __init__(self, x: np.ndarray, unit: np.ndarray, first: np.ndarray) -> None:
        if x.dtype.itemsize > 4:
            # Products of float64 entries could leave the range; a power of two changes no digit.
            x = np.ldexp(x, -np.frexp(np.abs(x).max(axis=1, keepdims=True))[1])
        self.unit = unit if first.size == unit.shape[0] else unit[first]
        self._x = x
        self._first = first
        self.lengths = np.empty(first.size)
        for start in range(0, first.size, _QUERY_ROWS):
            part = slice(start, start + _QUERY_ROWS)
            self.lengths[part] = np.linalg.norm(self._wide(np.arange(first.size)[part]), axis=1)

    def _wide(self, sets: np.ndarray) -> np.ndarray:
        return self._x[self._first[sets]].astype(np.float64)

    def cosines_with(self, rows: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        """Score each row's own candidates, shape (n_rows, n_candidates); summed in float64, returned as float32."""
        cosines = np.empty(candidates.shape, np.float32)
        for start in range(0, rows.size, _SCAN_ROWS):
            part = slice(start, start + _SCAN_ROWS)
            products = (self._wide(candidates[part]) @ self._wide(rows[part])[:, :, None])[:, :, 0]
            cosines[part] = self._scaled(products, rows[part, None], candidates[part])
        return self._finished(cosines, candidates == rows[:, None], rows)

    def cosines_with_all(self, rows: np.ndarray) -> np.ndarray:
        """Score every distinct row for each of some rows, shape (n_rows, n_distinct), likewise."""
        everything = np.arange(self._first.size)
        cosines = np.empty((rows.size, everything.size), np.float32)
        left = self._wide(rows)
        for start in range(0, everything.size, _QUERY_ROWS):
            part = everything[start : start + _QUERY_ROWS]
            cosines[:, part] = self._scaled(left @ self._wide(part).T, rows[:, None], part)
        return self._finished(cosines, everything == rows[:, None], rows)

    def _scaled(self, products: np.ndarray, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
        lengths = self.lengths[rows] * self.lengths[others]
        return products / np.where(lengths > 0, lengths, 1.0)

    def _finished(self, cosines: np.ndarray, own: np.ndarray, rows: np.ndarray) -> np.ndarray:
        own[self.lengths[rows] == 0] = False
        cosines[own] = 1
        return np.clip(cosines, -1, 1)


class _Members:
    """The rows of each set of equal rows, in id order."""

    def __init__(self, first: np.ndarray, group: np.ndarray) -> None:
        self.rows = np.argsort(group, kind="stable")
        self.counts = np.bincount(group, minlength=first.size)
        self.starts = np.cumsum(self.counts) - self.counts

    def ranked(
        self, owner: np.ndarray, sets: np.ndarray, scores: np.ndarray, n_owners: int, width: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """
        Rank the rows of candidate sets for each owner: the first `width` by falling score, then id.

        More than the first `width` rows of one set can never be needed.
        """
        counts = np.minimum(self.counts[sets], width)
        offset = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        rows = self.rows[np.repeat(self.starts[sets], counts) + offset]
        owner, scores = np.repeat(owner, counts), np.repeat(scores, counts)
        order = np.lexsort((rows, -scores, owner))
        n_each = np.bincount(owner, minlength=n_owners)
        best = order[(np.cumsum(n_each) - n_each)[:, None] + np.arange(width)]
        return rows[best], scores[best]


def _build(
    unit: np.ndarray,
    index: Index,
    n_lists: int | None,
    hnsw_links: int,
    seed: int,
    use_gpu: bool,
) -> Any:
    n, width = unit.shape
    if index == "hnsw":
        built = faiss.IndexHNSWFlat(width, hnsw_links, faiss.METRIC_INNER_PRODUCT)
        built.hnsw.efConstruction = 200
    elif index == "ivf":
        lists = max(1, min(n_lists or round(4 * n**0.5), n))
        built = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, lists, faiss.METRIC_INNER_PRODUCT)
        built.cp.seed = seed
        # FAISS warns on standard output about few points a cluster, which is no concern for a search.
        built.cp.min_points_per_centroid = 1
    else:
        built = faiss.IndexFlatIP(width)
    if use_gpu and index == "exact" and getattr(faiss, "get_num_gpus", lambda: 0)() > 0:
        built = faiss.index_cpu_to_all_gpus(built)
    built.train(unit)
    built.add(unit)
    return built


def _tune(built: Any, distinct: np.ndarray, width: int, target_recall: float, seed: int) -> None:
    """Raise the search effort of an approximate index until a sample of rows finds enough of its true neighbours."""
    n = distinct.shape[0]
    rows = np.sort(np.random.default_rng(seed).choice(n, min(n, _SCAN_ROWS), replace=False))
    cosines = distinct[rows] @ distinct.T
    last = -np.partition(-cosines, width - 1, axis=1)[:, width - 1 : width] - _FLOAT32_NOISE
    hnsw = hasattr(built, "hnsw")
    effort, most = (64, n) if hnsw else (8, int(built.nlist))
    while True:
        if hnsw:
            built.hnsw.efSearch = effort
        else:
            built.nprobe = min(effort, most)
        _, found = built.search(distinct[rows], width)
        hits = (found >= 0) & (np.take_along_axis(cosines, np.maximum(found, 0), axis=1) >= last)
        if effort >= most or hits.mean() >= target_recall:
            return
        effort *= 2


def _nearest(rows: _Rows, members: _Members, width: int, built: Any, *, exact: bool) -> tuple[np.ndarray, np.ndarray]:
    """
    Rank all rows for each distinct row: ids and float32 similarities, shape (n_distinct, width).

    A row counts itself in here, like any other equal row.
    """
    n = rows.unit.shape[0]
    depth = min(n, width + _SPARE)
    nearest = np.empty((n, width), np.int64)
    scores = np.empty((n, width), np.float32)
    unsure: list[np.ndarray] = []
    for start in range(0, n, _QUERY_ROWS):
        queries = rows.unit[start : start + _QUERY_ROWS]
        stop = start + queries.shape[0]
        rough, sets = built.search(queries, depth)
        found = sets >= 0
        cosines = rows.cosines_with(np.arange(start, stop), np.where(found, sets, 0))
        n_rows = np.where(found, members.counts[sets], 0).sum(axis=1)
        # Approximate searches can return too few; those rows are ranked against everything below.
        enough = n_rows >= width
        at, column = np.nonzero(found & enough[:, None])
        owner = (np.cumsum(enough) - 1)[at]
        ranked = members.ranked(owner, sets[at, column], cosines[at, column], int(enough.sum()), width)
        nearest[start:stop][enough], scores[start:stop][enough] = ranked
        contested = ~enough
        if exact and depth < n:
            contested |= rough[:, -1] + _FLOAT32_NOISE >= scores[start:stop, -1]
        unsure.append(start + np.flatnonzero(contested))
    contested_rows = np.concatenate(unsure)
    for start in range(0, contested_rows.size, _SCAN_ROWS):
        chosen = contested_rows[start : start + _SCAN_ROWS]
        nearest[chosen], scores[chosen] = _scan(rows, members, chosen, width)
    return nearest, scores


def _scan(rows: _Rows, members: _Members, chosen: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Rank all rows for the chosen ones by comparing with every distinct row."""
    cosines = rows.cosines_with_all(chosen)
    # Every distinct row stands for at least one: the width-th best of them bounds what can be needed.
    if width < cosines.shape[1]:
        bound = -np.partition(-cosines, width - 1, axis=1)[:, width - 1 : width]
    else:
        bound = np.full((chosen.size, 1), -1.0)
    owner, sets = np.nonzero(cosines >= bound)
    return members.ranked(owner, sets, cosines[owner, sets], chosen.size, width)


def _without_self(nearest: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Drop each row's own id, or the last one where equal rows with smaller ids have pushed it out."""
    n, width = nearest.shape
    drop = nearest == np.arange(n)[:, None]
    drop[~drop.any(axis=1), width - 1] = True
    return nearest[~drop].reshape(n, width - 1), scores[~drop].reshape(n, width - 1)
