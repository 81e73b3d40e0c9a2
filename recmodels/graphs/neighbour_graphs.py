"""
Graphs of items, or of users, from their neighbour tables: one function for each way in which the models use them.

How a table becomes a plain matrix is said in `recmodels.graphs.matrices`: tables, numbers n of nodes and k of
neighbours are those of `neighbour_matrix` there, and so are the errors.
"""

from collections.abc import Mapping

import numpy as np
import polars as pl
from scipy import sparse

from recmodels.errors import InputError
from recmodels.graphs.adjacency import Adjacency, scaled_by_row_sums
from recmodels.graphs.matrices import neighbour_matrix


def k_bin(knn: pl.DataFrame, n: int, k: int | None = 10) -> Adjacency:
    r"""
    Binary neighbour graph, normalised as in LightGCN: :math:`D^{-1/2} S D^{-1/2}` with row degrees.

    Used by FREEDOM and BLAST. When every row has k neighbours each weight is exactly 1/k.

    Examples
    --------
    >>> import numpy as np
    >>> from recmodels.graphs.knn import knn_table
    >>> table = knn_table(np.array([[1.0, 0.0], [1.0, 0.5], [0.0, 1.0]]), k=2)
    >>> k_bin(table, n=3, k=2).to_scipy().toarray().round(2).tolist()
    [[0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [0.0, 0.5, 0.5]]
    """
    return Adjacency.from_scipy(scaled_by_row_sums(neighbour_matrix(knn, n, k)))


def k_cos(knn: pl.DataFrame, n: int, k: int | None = 10) -> Adjacency:
    r"""
    Cosine-weighted neighbour graph: :math:`w_{ij} / \sqrt{r_i r_j}` with row sums r; infinities become 0.

    Used by MGCN and LATTICE. Not symmetric.

    Raises
    ------
    InputError
        Also if the table has edges and no similarity above 0, as an imported table whose similarities are unknown: the
        graph would hold nothing.
    """
    matrix = neighbour_matrix(knn, n, k, weights="similarity")
    if matrix.nnz and not (matrix.data > 0).any():
        raise InputError(
            "neighbour table, similarity",
            expected="cosines, some of them above 0",
            found=f"{knn['similarity'].null_count()} unknown of {knn.height}",
            action="Build the table from embeddings, or train a model that does not weigh neighbours.",
        )
    return Adjacency.from_scipy(scaled_by_row_sums(matrix))


def k_sym(knn: pl.DataFrame, n: int, k: int | None = None) -> Adjacency:
    """
    Symmetrised neighbour graph without weights: self-loops, the k best other neighbours, and all reverse edges.

    Used by RecGOAT, whose attention supplies the weights; every stored value is 1. k counts the neighbours of each row
    beside itself, so the table needs k + 1 when it holds self edges; None takes all.
    """
    one_way = neighbour_matrix(knn, n, k, include_self=False)
    both = sparse.csr_array(one_way + one_way.T + sparse.eye_array(n))
    both.data[:] = 1.0
    return Adjacency.from_scipy(both, symmetric=True)


def fuse(graphs: Mapping[str, Adjacency], weights: Mapping[str, float]) -> Adjacency:
    r"""
    Weighted sum of graphs over the same nodes, :math:`S = \sum_m \alpha_m \tilde S^m` (BLAST, stage 2).

    Parameters
    ----------
    graphs
        Modality to adjacency. A modality that is left out or has no edge is missing: its weight is shared out over the
        others in proportion, so that the weights' sum stays the same and a graph alone has all of it.
    weights
        Modality to weight, for every modality that there could be.

    Raises
    ------
    InputError
        If a weight is missing, negative or not finite, if shapes differ, or if no modality with a positive weight
        is left.
    """
    unweighted = sorted(set(graphs) - set(weights))
    if unweighted:
        raise InputError("graph weights", expected="one weight a modality", found=f"none for {', '.join(unweighted)}")
    chosen = {name: float(weight) for name, weight in weights.items()}
    if any(not np.isfinite(weight) or weight < 0 for weight in chosen.values()):
        raise InputError("graph weights", expected="finite weights of at least 0", found=str(chosen))
    present = {name: graph for name, graph in graphs.items() if graph.n_edges}
    available = sum(chosen[name] for name in present)
    if not available:
        raise InputError(
            "graphs",
            expected="at least one modality with edges and a positive weight",
            found=f"edges of {sorted(present)}, weights {chosen}",
        )
    if len({graph.shape for graph in present.values()}) > 1:
        shapes = {name: graph.shape for name, graph in present.items()}
        raise InputError("graphs", expected="graphs over the same nodes", found=str(shapes))
    scale = sum(chosen.values()) / available
    terms = [graph.to_scipy() * np.float32(chosen[name] * scale) for name, graph in present.items()]
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return Adjacency.from_scipy(total, symmetric=all(graph.symmetric for graph in present.values()))
