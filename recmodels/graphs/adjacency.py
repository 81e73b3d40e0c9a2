"""
Normalised adjacency matrices: item and user graphs from neighbour tables, and the user-item graph with edge dropping.

Every matrix is a torch sparse CSR tensor with int32 indices and knows its own transpose, so that a backward pass never
has to build one.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any, Literal, Self

import numpy as np
import polars as pl
import torch
from scipy import sparse

from recmodels.errors import InputError
from recmodels.graphs.matrices import checked_pairs, neighbour_matrix, shape_of

Normalisation = Literal["symmetric", "row", "none"]
EdgeWeighting = Literal["degree", "uniform"]

_INT32_MAX = np.iinfo(np.int32).max


@dataclass(frozen=True, eq=False)
class Adjacency:
    """
    A sparse weighted matrix and its transpose, ready for `recmodels.graphs.propagation.propagate`.

    Attributes
    ----------
    matrix
        Sparse CSR tensor, shape (n_rows, n_columns), int32 indices sorted within rows.
    transpose
        The transpose in the same form. For a symmetric matrix it is `matrix` itself.
    """

    matrix: torch.Tensor
    transpose: torch.Tensor

    @classmethod
    def from_scipy(cls, matrix: Any, *, symmetric: bool = False, dtype: torch.dtype = torch.float32) -> Self:
        """
        Convert a scipy sparse matrix.

        Parameters
        ----------
        matrix
            Any scipy sparse matrix or array; explicit zeros are kept, duplicates are summed.
        symmetric
            The caller's promise that ``matrix == matrix.T``; no transpose is stored then.
        dtype
            Type of the values.
        """
        rows = _canonical(matrix)
        forward = _csr_from_scipy(rows, dtype)
        return cls(forward, forward if symmetric else _csr_from_scipy(_canonical(rows.T), dtype))

    @property
    def symmetric(self) -> bool:
        """Whether one matrix serves both directions."""
        return self.matrix is self.transpose

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.matrix.shape[0], self.matrix.shape[1]

    @property
    def n_edges(self) -> int:
        """Number of stored entries."""
        return self.matrix.values().numel()

    @property
    def transposed(self) -> "Adjacency":
        """The transpose as an adjacency; of a symmetric matrix, this one."""
        return self if self.symmetric else Adjacency(self.transpose, self.matrix)

    def to(self, target: torch.device | str | torch.dtype) -> "Adjacency":
        """Return the same matrix on another device or with values of another type."""
        forward = self.matrix.to(target)
        return Adjacency(forward, forward if self.symmetric else self.transpose.to(target))

    def edges(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the row and the column of every stored entry, two int64 tensors of length `n_edges`, by row."""
        counts = self.matrix.crow_indices().diff().long()
        rows = torch.repeat_interleave(torch.arange(self.shape[0], device=counts.device), counts)
        return rows, self.matrix.col_indices().long()

    def to_scipy(self) -> sparse.csr_array:
        """Return the matrix as a scipy CSR array on the CPU."""
        matrix = self.matrix.cpu()
        return sparse.csr_array(
            (matrix.values().numpy(), matrix.col_indices().numpy(), matrix.crow_indices().numpy()), shape=self.shape
        )


def csr_tensor(
    crow_indices: torch.Tensor, col_indices: torch.Tensor, values: torch.Tensor, shape: tuple[int, int]
) -> torch.Tensor:
    """Build a sparse CSR tensor with int32 indices from its three arrays, which are trusted."""
    with warnings.catch_warnings():
        # torch announces once per process that CSR is "in beta state"; the caller can do nothing about it.
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support", category=UserWarning)
        return torch.sparse_csr_tensor(
            crow_indices.to(torch.int32), col_indices.to(torch.int32), values, size=shape, check_invariants=False
        )


def _canonical(matrix: Any) -> sparse.csr_array:
    rows = sparse.csr_array(matrix)
    if max(rows.nnz, *shape_of(rows)) > _INT32_MAX:
        raise InputError("sparse matrix", expected=f"at most {_INT32_MAX} entries (int32 indices)", found=str(rows.nnz))
    rows.sum_duplicates()
    return rows


def _csr_from_scipy(rows: sparse.csr_array, dtype: torch.dtype) -> torch.Tensor:
    return csr_tensor(
        torch.from_numpy(rows.indptr.astype(np.int32)),
        torch.from_numpy(rows.indices.astype(np.int32)),
        torch.from_numpy(np.ascontiguousarray(rows.data)).to(dtype),
        shape_of(rows),
    )


def k_bin(knn: pl.DataFrame, n: int, k: int | None = 10, *, include_self: bool = True) -> Adjacency:
    r"""
    Binary neighbour graph, normalised as in LightGCN: :math:`D^{-1/2} S D^{-1/2}` with row degrees.

    Used by FREEDOM and BLAST. When every row has k neighbours each weight is exactly 1/k.

    Parameters
    ----------
    knn, n, k, include_self
        See `recmodels.graphs.matrices.neighbour_matrix`.

    Raises
    ------
    InputError
        See `recmodels.graphs.matrices.neighbour_matrix`.
    """
    return Adjacency.from_scipy(_normalised(neighbour_matrix(knn, n, k, include_self=include_self)))


def k_cos(knn: pl.DataFrame, n: int, k: int | None = 10, *, include_self: bool = True) -> Adjacency:
    r"""
    Cosine-weighted neighbour graph: :math:`w_{ij} / \sqrt{r_i r_j}` with row sums r; infinities become 0.

    Used by MGCN and LATTICE. Not symmetric.

    Parameters
    ----------
    knn, n, k, include_self
        See `recmodels.graphs.matrices.neighbour_matrix`.

    Raises
    ------
    InputError
        If the table has edges and no similarity above 0, as an imported table whose similarities are unknown: the graph
        would hold nothing. See also `recmodels.graphs.matrices.neighbour_matrix`.
    """
    matrix = neighbour_matrix(knn, n, k, include_self=include_self, weights="similarity")
    if matrix.nnz and not (matrix.data > 0).any():
        raise InputError(
            "neighbour table, similarity",
            expected="cosines, some of them above 0",
            found=f"{knn['similarity'].null_count()} unknown of {knn.height}",
            action="Build the table from embeddings, or train a model that does not weigh neighbours.",
        )
    return Adjacency.from_scipy(_normalised(matrix))


def k_sym(knn: pl.DataFrame, n: int, k: int | None = None, *, self_loops: bool = True) -> Adjacency:
    """
    Symmetrised neighbour graph without weights: the k best neighbours other than itself, and all reverse edges.

    Used by RecGOAT, whose attention supplies the weights; every stored value is 1.

    Parameters
    ----------
    knn, n
        See `recmodels.graphs.matrices.neighbour_matrix`.
    k
        Neighbours of each row beside itself, so the table needs k + 1 when it holds self edges. None takes all.
    self_loops
        Add an edge from every node to itself afterwards.

    Raises
    ------
    InputError
        See `recmodels.graphs.matrices.neighbour_matrix`.
    """
    one_way = neighbour_matrix(knn, n, k, include_self=False)
    both = one_way + one_way.T
    if self_loops:
        both = both + sparse.eye_array(n)
    both = sparse.csr_array(both)
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


def _normalised(matrix: sparse.csr_array) -> sparse.csr_array:
    sums = np.asarray(matrix.sum(axis=1), dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = np.where(sums > 0, 1 / np.sqrt(sums), 0.0)
    rows = np.repeat(np.arange(matrix.indptr.size - 1), np.diff(matrix.indptr))
    values = matrix.data * scale[rows] * scale[matrix.indices]
    return sparse.csr_array((values.astype(np.float32), matrix.indices, matrix.indptr), shape=matrix.shape)


class BipartiteGraph:
    r"""
    The user-item graph of the training interactions and its normalised adjacency matrices.

    Nodes are users then items: :math:`A = [[0, R], [R^T, 0]]`, shape (n_users + n_items,) squared.

    Parameters
    ----------
    user_ids, item_ids
        Training pairs; repeated pairs count once.
    n_users, n_items
        Numbers of users and items.
    device
        Where matrices are built and live.
    dtype
        Type of their values.

    Raises
    ------
    InputError
        See `recmodels.graphs.matrices.checked_pairs`.
    """

    def __init__(
        self,
        user_ids: Any,
        item_ids: Any,
        n_users: int,
        n_items: int,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        users, items = checked_pairs(user_ids, item_ids, n_users, n_items)
        keys = np.unique(users * max(n_items, 1) + items)
        if max(2 * keys.size, n_users + n_items) > _INT32_MAX:
            raise InputError("interactions", expected=f"at most {_INT32_MAX // 2} pairs", found=str(keys.size))
        self.n_users = n_users
        self.n_items = n_items
        self.dtype = dtype
        self.users = torch.from_numpy(keys // max(n_items, 1)).to(device)
        """User of each distinct pair, int64, by user and item."""
        self.items = torch.from_numpy(keys % max(n_items, 1)).to(device)
        """Item of each distinct pair, int64, in the same order."""

    @property
    def n_edges(self) -> int:
        """Number of distinct pairs |E|."""
        return self.users.numel()

    @cached_property
    def _by_item(self) -> torch.Tensor:
        return torch.argsort(self.items, stable=True)

    @cached_property
    def user_degrees(self) -> torch.Tensor:
        """Number of items of each user, int64, shape (n_users,)."""
        return torch.bincount(self.users, minlength=self.n_users)

    @cached_property
    def item_degrees(self) -> torch.Tensor:
        """Number of users of each item, int64, shape (n_items,)."""
        return torch.bincount(self.items, minlength=self.n_items)

    def adjacency(
        self, *, normalisation: Normalisation = "symmetric", self_loops: bool = False, epsilon: float = 1e-7
    ) -> Adjacency:
        r"""
        Return the adjacency over users and items, shape (n_users + n_items, n_users + n_items).

        Parameters
        ----------
        normalisation
            ``symmetric``: :math:`D^{-1/2} A D^{-1/2}`; ``row``: :math:`D^{-1} A`; ``none``: A itself.
        self_loops
            Add the identity to A before normalisation.
        epsilon
            Added to every degree (LightGCN as in the common framework: 1e-7). A degree of 0 gives weight 0.
        """
        n = self.n_users + self.n_items
        if not self_loops and normalisation == "symmetric":
            return self._symmetric(
                self.users, self.items, self.items[self._by_item], self.users[self._by_item], epsilon
            )
        r = sparse.csr_array(
            (np.ones(self.n_edges), (self.users.cpu().numpy(), self.items.cpu().numpy())),
            shape=(self.n_users, self.n_items),
        )
        both = (
            sparse.csr_array(sparse.block_array([[None, r], [r.T, None]])) if self.n_edges else sparse.csr_array((n, n))
        )
        if self_loops:
            both = sparse.csr_array(both + sparse.eye_array(n))
        degrees = np.asarray(both.sum(axis=1))
        matrix, symmetric = _scaled(both, degrees, degrees, normalisation, epsilon)
        return Adjacency.from_scipy(matrix, symmetric=symmetric, dtype=self.dtype).to(self.users.device)

    def weighted_adjacency(self, weights: Any) -> Adjacency:
        r"""
        Return :math:`D^{-1/2} A D^{-1/2}` of the graph whose edges have weights, D their sums by node.

        Parameters
        ----------
        weights
            One weight above 0 for each distinct pair, by user and item.

        Raises
        ------
        InputError
            If there is not one positive, finite weight a pair.
        """
        values = np.asarray(weights, dtype=np.float64)
        if values.shape != (self.n_edges,) or not (np.isfinite(values).all() and (values > 0).all()):
            raise InputError(
                "edge weights",
                expected=f"{self.n_edges} finite numbers above 0",
                found=f"shape {values.shape}, least {values.min(initial=np.inf):g}",
            )
        r = sparse.csr_array(
            (values, (self.users.cpu().numpy(), self.items.cpu().numpy())), shape=(self.n_users, self.n_items)
        )
        both = sparse.csr_array(sparse.block_array([[None, r], [r.T, None]]))
        return Adjacency.from_scipy(_normalised(both), symmetric=True, dtype=self.dtype).to(self.users.device)

    def with_item_edges(self, item_edges: sparse.csr_array) -> tuple[Adjacency, Adjacency]:
        r"""
        Return :math:`D^{-1/2} [[0, R], [R^T, E]] D^{-1/2}` with row degrees D, and its user-item block (GUME).

        Parameters
        ----------
        item_edges
            E, (n_items, n_items): its entries other than 0 count as 1, those from an item to itself not at all. It may
            be directed.
        """
        r = sparse.csr_array(
            (np.ones(self.n_edges), (self.users.cpu().numpy(), self.items.cpu().numpy())),
            shape=(self.n_users, self.n_items),
        )
        sources, destinations = item_edges.nonzero()
        other = sources != destinations
        edges = (sources[other], destinations[other])
        between = sparse.csr_array((np.ones(edges[0].size), edges), shape=(self.n_items, self.n_items))
        matrix = _normalised(sparse.csr_array(sparse.block_array([[None, r], [r.T, between]])))
        device = self.users.device
        block = matrix[: self.n_users, self.n_users :]
        return Adjacency.from_scipy(matrix, dtype=self.dtype).to(device), Adjacency.from_scipy(block).to(device)

    def user_item(self, *, normalisation: Normalisation = "symmetric", epsilon: float = 1e-7) -> Adjacency:
        r"""
        Return the user-item block alone, shape (n_users, n_items), which averages or sums items into users.

        Parameters
        ----------
        normalisation
            ``symmetric``: :math:`D_U^{-1/2} R D_I^{-1/2}`; ``row``: the mean over the items of a user; ``none``: the
            sum.
        epsilon
            Added to every degree. A degree of 0 gives weight 0.
        """
        r = sparse.csr_array(
            (np.ones(self.n_edges), (self.users.cpu().numpy(), self.items.cpu().numpy())),
            shape=(self.n_users, self.n_items),
        )
        matrix, _ = _scaled(r, self.user_degrees.cpu().numpy(), self.item_degrees.cpu().numpy(), normalisation, epsilon)
        return Adjacency.from_scipy(matrix, dtype=self.dtype).to(self.users.device)

    def edge_drop(
        self,
        ratio: float,
        generator: torch.Generator,
        *,
        weighting: EdgeWeighting = "degree",
        epsilon: float = 1e-7,
    ) -> Adjacency:
        r"""
        Keep exactly :math:`\lfloor (1 - \rho) |E| \rfloor` edges and normalise what is left by its own degrees.

        Edges are drawn without replacement with probability proportional to :math:`1/\sqrt{deg_u deg_i}` (``degree``,
        as in FREEDOM and BLAST) or equal (``uniform``, the odd epochs of LayerGCN). Drawing without replacement is
        done in one pass by ranking exponential variates divided by the weights (Efraimidis and Spirakis, 2006).

        Parameters
        ----------
        ratio
            Share :math:`\rho` of edges to drop, in [0, 1). 0 gives the full graph and draws nothing.
        generator
            Source of the draw; the same state gives the same graph.
        weighting
            ``degree`` or ``uniform``.
        epsilon
            Added to every degree of the kept graph.

        Raises
        ------
        InputError
            If `ratio` is not in [0, 1).
        """
        kept = self._kept(ratio, generator, weighting)
        if kept is None:
            return self.adjacency(epsilon=epsilon)
        by_item = self._by_item[kept[self._by_item]]
        return self._symmetric(self.users[kept], self.items[kept], self.items[by_item], self.users[by_item], epsilon)

    def _kept(self, ratio: float, generator: torch.Generator, weighting: EdgeWeighting) -> torch.Tensor | None:
        if not 0 <= ratio < 1:
            raise InputError("edge drop ratio", expected="a number in [0, 1)", found=str(ratio))
        if weighting not in ("degree", "uniform"):
            raise InputError("edge drop weighting", expected="'degree' or 'uniform'", found=repr(weighting))
        if ratio == 0:
            return None
        # Fraction(str()) reads 0.9 as nine tenths: in binary, 10 edges at 0.9 would keep 0 instead of 1.
        n_kept = int((1 - Fraction(str(ratio))) * self.n_edges)
        keys = torch.empty(self.n_edges, dtype=torch.float64, device=generator.device).exponential_(generator=generator)
        keys = keys.to(self.users.device)
        if weighting == "degree":
            keys *= (
                torch.sqrt(self.user_degrees.double())[self.users] * torch.sqrt(self.item_degrees.double())[self.items]
            )
        kept = torch.zeros(self.n_edges, dtype=torch.bool, device=keys.device)
        kept[torch.topk(keys, n_kept, largest=False, sorted=False).indices] = True
        return kept

    def _symmetric(
        self,
        users: torch.Tensor,
        items: torch.Tensor,
        items_by_item: torch.Tensor,
        users_by_item: torch.Tensor,
        epsilon: float,
    ) -> Adjacency:
        # Edges come sorted both ways, so the CSR arrays are two concatenations and no sort is needed per epoch.
        n = self.n_users + self.n_items
        degrees = torch.cat(
            (torch.bincount(users, minlength=self.n_users), torch.bincount(items, minlength=self.n_items))
        )
        crow = torch.zeros(n + 1, dtype=torch.int32, device=users.device)
        torch.cumsum(degrees, 0, out=crow[1:])
        scale = torch.where(degrees > 0, (degrees.double() + epsilon).rsqrt(), 0.0)
        columns = torch.cat((items + self.n_users, users_by_item))
        values = scale[torch.cat((users, items_by_item + self.n_users))] * scale[columns]
        matrix = csr_tensor(crow, columns, values.to(self.dtype), (n, n))
        return Adjacency(matrix, matrix)


def _scaled(
    matrix: sparse.csr_array, row_degrees: np.ndarray, column_degrees: np.ndarray, how: Normalisation, epsilon: float
) -> tuple[sparse.csr_array, bool]:
    n_rows, n_columns = shape_of(matrix)
    square = n_rows == n_columns
    if how == "none":
        return matrix, square
    if how not in ("symmetric", "row"):
        raise InputError("normalisation", expected="'symmetric', 'row' or 'none'", found=repr(how))
    power = -0.5 if how == "symmetric" else -1.0
    left = np.where(row_degrees > 0, (np.maximum(row_degrees, 1) + epsilon) ** power, 0.0)
    rows = np.repeat(np.arange(matrix.indptr.size - 1), np.diff(matrix.indptr))
    values = matrix.data * left[rows]
    if how == "symmetric":
        right = np.where(column_degrees > 0, (np.maximum(column_degrees, 1) + epsilon) ** power, 0.0)
        values = values * right[matrix.indices]
    scaled = sparse.csr_array((values, matrix.indices, matrix.indptr), shape=matrix.shape)
    return scaled, how == "symmetric" and square
