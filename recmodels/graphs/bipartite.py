"""
The user-item graph of training interactions: its normalised adjacency matrices, its blocks, and edge dropping.

Graphs among items or among users are in `recmodels.graphs.neighbour_graphs`.
"""

import math
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from scipy import sparse

from recmodels.errors import InputError
from recmodels.graphs.adjacency import (
    INT32_MAX,
    Adjacency,
    Normalisation,
    csr_tensor,
    scaled_by_degrees,
    scaled_by_row_sums,
)
from recmodels.graphs.matrices import checked_pairs

EdgeWeighting = Literal["degree", "uniform"]


class BipartiteGraph:
    r"""
    The user-item graph of the training interactions and its normalised adjacency matrices.

    Nodes are users then items: :math:`A = [[0, R], [R^T, 0]]`, shape (n_users + n_items,) squared.

    Parameters
    ----------
    user_ids, item_ids, n_users, n_items
        Training pairs as in `recmodels.graphs.matrices.checked_pairs`; repeated pairs count once.
    device
        Where matrices are built and live.
    dtype
        Type of their values.

    Examples
    --------
    >>> graph = BipartiteGraph([0, 0, 1], [0, 1, 1], n_users=2, n_items=2)
    >>> graph.user_item(normalisation="row", epsilon=0).to_scipy().toarray().tolist()
    [[0.5, 0.5], [0.0, 1.0]]
    >>> graph.edge_drop(0.5, torch.Generator().manual_seed(0)).n_edges
    2
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
        if max(2 * keys.size, n_users + n_items) > INT32_MAX:
            raise InputError("interactions", expected=f"at most {INT32_MAX // 2} pairs", found=str(keys.size))
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

    def _interactions(self, values: np.ndarray | None = None) -> sparse.csr_array:
        """Return the pairs as a matrix (n_users, n_items), float64, of ones or the values."""
        pairs = (self.users.cpu().numpy(), self.items.cpu().numpy())
        entries = np.ones(self.n_edges) if values is None else values
        return sparse.csr_array((entries, pairs), shape=(self.n_users, self.n_items))

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
        r = self._interactions()
        both = (
            sparse.csr_array(sparse.block_array([[None, r], [r.T, None]])) if self.n_edges else sparse.csr_array((n, n))
        )
        if self_loops:
            both = sparse.csr_array(both + sparse.eye_array(n))
        degrees = np.asarray(both.sum(axis=1))
        matrix, symmetric = scaled_by_degrees(both, degrees, degrees, normalisation, epsilon)
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
        r = self._interactions(values)
        both = sparse.csr_array(sparse.block_array([[None, r], [r.T, None]]))
        return Adjacency.from_scipy(scaled_by_row_sums(both), symmetric=True, dtype=self.dtype).to(self.users.device)

    def with_item_edges(self, item_edges: sparse.csr_array) -> tuple[Adjacency, Adjacency]:
        r"""
        Return :math:`D^{-1/2} [[0, R], [R^T, E]] D^{-1/2}` with row degrees D, and its user-item block (GUME).

        Parameters
        ----------
        item_edges
            E, (n_items, n_items): its entries other than 0 count as 1, those from an item to itself not at all. It may
            be directed.
        """
        r = self._interactions()
        sources, destinations = item_edges.nonzero()
        other = sources != destinations
        edges = (sources[other], destinations[other])
        between = sparse.csr_array((np.ones(edges[0].size), edges), shape=(self.n_items, self.n_items))
        matrix = scaled_by_row_sums(sparse.csr_array(sparse.block_array([[None, r], [r.T, between]])))
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
        r = self._interactions()
        matrix, _ = scaled_by_degrees(
            r, self.user_degrees.cpu().numpy(), self.item_degrees.cpu().numpy(), normalisation, epsilon
        )
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
        # Rounded first: in binary, 10 edges at 0.9 would keep 0.999... of an edge instead of 1.
        n_kept = math.floor(round((1 - ratio) * self.n_edges, 6))
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
