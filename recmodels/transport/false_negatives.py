"""
False negatives: items that a user's positives point to in an item graph and that the user has not met.

They are barred from negative sampling and get a negative transport cost (BLAST, stage 4). Everything is a sparse
product in row blocks, so that memory grows with the result and not with the work.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import polars as pl
from scipy import sparse

from recmodels.errors import InputError
from recmodels.graphs.matrices import (
    entry_keys,
    interaction_matrix,
    neighbour_matrix,
    occurs_in,
    only_entries,
    row_blocks,
    shape_of,
)

Evidence = Literal["binary", "count", "similarity", "collaborative"]

# Multiplications of one sparse product, which bound its temporary arrays to about 200 MB.
_BLOCK_PRODUCTS = 1 << 23


def false_negatives(
    user_ids: Any,
    item_ids: Any,
    n_users: int,
    n_items: int,
    item_graphs: Mapping[str, pl.DataFrame],
    *,
    evidence: Evidence = "binary",
    weights: Mapping[str, float] | None = None,
    k: int | None = None,
) -> sparse.csr_array:
    r"""
    Return the false negatives of every user and how strong the evidence for each is.

    Item i is a false negative of user u when one of u's positives j has an edge j -> i in a graph, and i is not
    itself a positive of u.

    Parameters
    ----------
    user_ids, item_ids
        Training pairs R; repeated pairs count once.
    n_users, n_items
        Shape of the result.
    item_graphs
        Modality to neighbour table (schema `recmodels.schemas.tables.KNN`). A table without rows is a missing modality.
        Repeated edges count once.
    evidence
        The stored values. ``binary``: 1. ``count``: number of the user's positives that point to the item, over all
        graphs. ``similarity``: :math:`\sum_j \sum_m \alpha_m \cos_m(j, i)` over those positives; an unknown (null)
        similarity adds 0. ``collaborative``: similarity plus :math:`\sum_j |U_j \cap U_i| / \sqrt{|U_j| |U_i|}` over
        *all* of the user's positives, from the training pairs.
    weights
        :math:`\alpha_m` by modality, used by ``similarity`` and ``collaborative``; None weighs the present graphs
        equally. The weights of the present graphs are scaled to a sum of 1.
    k
        Use the `k` best neighbours of each table row (itself not counted as removed: a self edge takes a place, as in
        the published graphs). None uses all.

    Returns
    -------
    sparse.csr_array
        Shape (n_users, n_items), float32, int32 indices sorted within rows, disjoint from R. The pattern is the same
        for every `evidence`; a value can be 0.

    Raises
    ------
    InputError
        If an id is out of range, a weight is missing or not a finite number of at least 0, or `evidence` is unknown.
    """
    positives = interaction_matrix(user_ids, item_ids, n_users, n_items)
    items = item_evidence(positives, item_graphs, evidence=evidence, weights=weights, k=k)
    return false_negatives_of_rows(items, positives)


@dataclass(frozen=True, eq=False)
class ItemEvidence:
    """
    What the item graphs say of false negatives, the same for every user.

    Attributes
    ----------
    pattern
        Shape (n_items, n_items): in how many graphs an item points to another, which is not itself.
    strength
        The weighted similarities of those edges; None where only their number counts.
    cooccurrence
        Normalised co-occurrence of items in the training pairs; None where it does not count.
    binary
        Whether the evidence is 1, whatever the number of edges.
    """

    pattern: sparse.csr_array
    strength: sparse.csr_array | None
    cooccurrence: sparse.csr_array | None
    binary: bool

    def edges(self, positives: sparse.csr_array) -> np.ndarray:
        """Return the edges from each user's positives, of all users up to it, int64, shape (n_users + 1,)."""
        return _summed(self.pattern, positives)


def item_evidence(
    positives: sparse.csr_array,
    item_graphs: Mapping[str, pl.DataFrame],
    *,
    evidence: Evidence = "binary",
    weights: Mapping[str, float] | None = None,
    k: int | None = None,
) -> ItemEvidence:
    """Return what `false_negatives` takes from the item graphs and from all users together; arguments as there."""
    if evidence not in get_args(Evidence):
        raise InputError(
            "evidence", expected="'binary', 'count', 'similarity' or 'collaborative'", found=repr(evidence)
        )
    n_items = shape_of(positives)[1]
    present = {name: table for name, table in item_graphs.items() if table.height}
    if not present:
        return ItemEvidence(sparse.csr_array((n_items, n_items), dtype=np.float32), None, None, binary=True)
    graded = evidence in ("similarity", "collaborative")
    shares = _shares(present, weights) if graded else dict.fromkeys(present, 1.0)
    pattern, strength = _item_edges(present, shares, n_items, k, graded)
    together = _cooccurrence(positives) if evidence == "collaborative" else None
    return ItemEvidence(pattern, strength if graded else None, together, binary=evidence == "binary")


def false_negatives_of_rows(items: ItemEvidence, positives: sparse.csr_array) -> sparse.csr_array:
    """Return the false negatives of users, the rows of `positives`, as `false_negatives` does for all."""
    n_users, n_items = shape_of(positives)
    if not items.pattern.nnz:
        return sparse.csr_array((n_users, n_items), dtype=np.float32)
    work = items.edges(positives)
    if items.cooccurrence is not None:
        work += _summed(items.cooccurrence, positives)
    blocks: list[sparse.csr_array] = []
    for first, last in row_blocks(work, _BLOCK_PRODUCTS):
        rows = positives[first:last]
        block = sparse.csr_array(rows @ items.pattern)
        block.sort_indices()
        keys, own = entry_keys(block), entry_keys(rows)
        outside = np.ones(block.nnz, dtype=bool)
        outside[np.searchsorted(keys, own[occurs_in(own, keys)])] = False
        if items.binary:
            block.data[:] = 1
        if items.strength is not None:
            block.data = _values_at(sparse.csr_array(rows @ items.strength), block)
        if items.cooccurrence is not None:
            block.data += _values_at(sparse.csr_array(rows @ items.cooccurrence), block)
        blocks.append(only_entries(block, outside))
    return _stacked(blocks, n_items)


def _summed(matrix: sparse.csr_array, rows: sparse.csr_array) -> np.ndarray:
    """Entries of the rows of a matrix that the columns of others stand for, summed up to each of these."""
    return np.concatenate(([0], np.cumsum(np.diff(matrix.indptr)[rows.indices])))[rows.indptr]


def _shares(present: Mapping[str, pl.DataFrame], weights: Mapping[str, float] | None) -> dict[str, float]:
    if weights is None:
        return dict.fromkeys(present, 1 / len(present))
    missing = sorted(set(present) - set(weights))
    if missing:
        raise InputError("evidence weights", expected="one weight a graph", found=f"none for {', '.join(missing)}")
    chosen = {name: float(weights[name]) for name in present}
    total = sum(chosen.values())
    if not all(np.isfinite(weight) and weight >= 0 for weight in chosen.values()) or total == 0:
        raise InputError("evidence weights", expected="numbers of at least 0, not all 0", found=str(chosen))
    return {name: weight / total for name, weight in chosen.items()}


def _item_edges(
    present: Mapping[str, pl.DataFrame], shares: Mapping[str, float], n_items: int, k: int | None, graded: bool
) -> tuple[sparse.csr_array, sparse.csr_array]:
    """Sum of the 0/1 graphs and of the weighted graphs; self edges lead to positives and are left out."""
    pattern = sparse.csr_array((n_items, n_items), dtype=np.float32)
    strength = sparse.csr_array((n_items, n_items), dtype=np.float32)
    for name, table in present.items():
        pattern = pattern + _without_diagonal(neighbour_matrix(table, n_items, k))
        if graded:
            cosines = _without_diagonal(neighbour_matrix(table, n_items, k, weights="similarity"))
            strength = strength + cosines * np.float32(shares[name])
    return sparse.csr_array(pattern), sparse.csr_array(strength)


def _without_diagonal(matrix: sparse.csr_array) -> sparse.csr_array:
    rows = np.repeat(np.arange(matrix.indptr.size - 1), np.diff(matrix.indptr))
    return only_entries(matrix, rows != matrix.indices)


def _cooccurrence(positives: sparse.csr_array) -> sparse.csr_array:
    popularity = np.bincount(positives.indices, minlength=shape_of(positives)[1])
    scaled = positives.copy()
    scaled.data = (1 / np.sqrt(popularity[positives.indices])).astype(np.float32)
    return sparse.csr_array(scaled.T @ scaled)


def _values_at(source: sparse.csr_array, block: sparse.csr_array) -> np.ndarray:
    """Values of `source` at the stored entries of `block`, 0 where it has none."""
    source.sort_indices()
    keys, wanted = entry_keys(source), entry_keys(block)
    values = np.zeros(block.nnz, np.float32)
    values[occurs_in(wanted, keys)] = source.data[occurs_in(keys, wanted)]
    return values


def _stacked(blocks: list[sparse.csr_array], n_items: int) -> sparse.csr_array:
    counts = np.concatenate([np.diff(block.indptr) for block in blocks])
    indptr = np.concatenate(([0], np.cumsum(counts, dtype=np.int64)))
    if indptr[-1] <= np.iinfo(np.int32).max:
        indptr = indptr.astype(np.int32)
    indices = np.concatenate([block.indices for block in blocks])
    data = np.concatenate([block.data for block in blocks])
    return sparse.csr_array((data, indices, indptr), shape=(counts.size, n_items))
