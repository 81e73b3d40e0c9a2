"""
Sparse propagation: products with an adjacency matrix whose backward pass is one more product, not a transpose.

Autograd's own backward of a sparse product transposes the matrix at every call. Here it multiplies by the transpose
that `Adjacency` already holds, which for a symmetric matrix is the matrix itself.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import embedding_bag

from recmodels.errors import InputError
from recmodels.graphs.adjacency import Adjacency, csr_tensor

_HALF = (torch.bfloat16, torch.float16)


@dataclass(frozen=True, eq=False)
class Beside:
    """
    A graph over some of the nodes of a larger one, whose last layer is added to them: FREEDOM's items, BLAST's users.

    Attributes
    ----------
    graph
        Square; None adds the nodes as they are.
    first
        Row of its first node among those of the larger graph.
    n_nodes
        Number of its nodes, which are in a row there.
    n_layers
        Propagations over it, of which the last is added.
    weight
        Factor of what is added.
    """

    graph: Adjacency | None
    first: int
    n_nodes: int
    n_layers: int = 1
    weight: float = 1.0

    @property
    def transposed(self) -> "Beside":
        """The same with the transpose of its matrix."""
        if self.graph is None or self.graph.symmetric:
            return self
        return Beside(self.graph.transposed, self.first, self.n_nodes, self.n_layers, self.weight)

    def add(self, total: torch.Tensor, x: torch.Tensor) -> None:
        """Add what comes over the graph from `x` to `total`, both of all nodes."""
        part = slice(self.first, self.first + self.n_nodes)
        layer = x[part]
        if self.graph is not None:
            for _ in range(self.n_layers):
                layer = _multiply(self.graph, layer)
        total[part].add_(layer, alpha=self.weight)


def propagate(adjacency: Adjacency, x: torch.Tensor) -> torch.Tensor:
    """
    Return the product of an adjacency matrix with node embeddings.

    Parameters
    ----------
    adjacency
        Shape (n_rows, n_columns); a constant, it gets no gradient.
    x
        Dense, shape (n_columns, d), float32 or float64 as the matrix. A half-precision `x` (bfloat16, float16) is
        multiplied in the matrix's own precision and the result rounded back.

    Returns
    -------
    torch.Tensor
        Shape (n_rows, d), the type of `x`. One product of several embeddings side by side (``torch.cat(..., dim=1)``)
        is cheaper than one product each.

    Raises
    ------
    InputError
        If the shapes do not fit.

    See Also
    --------
    light_gcn : The mean of several propagations.

    Examples
    --------
    >>> from recmodels.graphs.bipartite import BipartiteGraph
    >>> graph = BipartiteGraph([0, 0, 1], [0, 1, 1], n_users=2, n_items=2)
    >>> propagate(graph.adjacency(normalisation="none"), torch.tensor([[1.0], [2.0], [3.0], [4.0]])).tolist()
    [[7.0], [4.0], [1.0], [3.0]]
    """
    _check(adjacency, x)
    return _Product.apply(adjacency, x)


def light_gcn(adjacency: Adjacency, x: torch.Tensor, n_layers: int, beside: Sequence[Beside] = ()) -> torch.Tensor:
    r"""
    Light graph convolution: the mean of the layers :math:`\frac{1}{L+1} \sum_{l=0}^{L} \hat A^l X` (LightGCN, eq. 8).

    Parameters
    ----------
    adjacency
        Square, shape (n, n).
    x
        Layer 0, shape (n, d).
    n_layers
        L, at least 0; 0 returns `x`.
    beside
        What other graphs add, in the same pass: no part of the nodes is copied, forward or backward.

    Returns
    -------
    torch.Tensor
        Shape (n, d). No layer is kept for the backward pass, which is the same sum with the transposes.

    Raises
    ------
    InputError
        If the shapes do not fit, the matrix is not square or `n_layers` is negative.
    """
    _check(adjacency, x)
    if adjacency.shape[0] != adjacency.shape[1]:
        raise InputError("adjacency", expected="a square matrix", found=f"shape {adjacency.shape}")
    if n_layers < 0:
        raise InputError("n_layers", expected="at least 0", found=str(n_layers))
    for graph in beside:
        if graph.graph is not None and graph.graph.shape != (graph.n_nodes, graph.n_nodes):
            raise InputError("graph beside", expected=f"{graph.n_nodes} nodes", found=f"shape {graph.graph.shape}")
    return _MeanOfLayers.apply(adjacency, x, n_layers, tuple(beside)) if n_layers or beside else x


def _check(adjacency: Adjacency, x: torch.Tensor) -> None:
    if x.ndim != 2 or x.shape[0] != adjacency.shape[1]:
        raise InputError(
            "embeddings", expected=f"a matrix of {adjacency.shape[1]} rows", found=f"shape {tuple(x.shape)}"
        )


def sparse_product(graph: Adjacency, x: torch.Tensor, values: torch.Tensor | None = None) -> torch.Tensor:
    """
    Return the product of a graph's matrix, or of one with its entries and other values, with X. It has no gradient.

    Parameters
    ----------
    graph
        Shape (n_rows, n_columns).
    x
        Dense, shape (n_columns, d), of the values' type.
    values
        Values of the stored entries, (n_edges,), in their order. None takes the graph's own.

    Returns
    -------
    torch.Tensor
        Shape (n_rows, d).
    """
    return KERNELS[_kernel(x.device)](graph.matrix, x, values)


def _by_bags(matrix: torch.Tensor, x: torch.Tensor, values: torch.Tensor | None) -> torch.Tensor:
    """Sum the weighted rows by the kernel of embedding bags, which on a CPU fetches rows ahead of their use."""
    weights, starts = matrix.values() if values is None else values, matrix.crow_indices()
    columns = matrix.col_indices()
    return embedding_bag(columns, x, starts, mode="sum", per_sample_weights=weights, include_last_offset=True)


def _by_csr(matrix: torch.Tensor, x: torch.Tensor, values: torch.Tensor | None) -> torch.Tensor:
    """Multiply by the sparse matrix; on a CPU it waits for each row, two to three times as long as bags."""
    if values is not None:
        matrix = csr_tensor(matrix.crow_indices(), matrix.col_indices(), values, (matrix.shape[0], matrix.shape[1]))
    return matrix @ x


def _by_segments(matrix: torch.Tensor, x: torch.Tensor, values: torch.Tensor | None) -> torch.Tensor:
    """Gather the weighted rows and add them up: one pass more over memory than there are edges times width."""
    weights, starts = matrix.values() if values is None else values, matrix.crow_indices().long()
    return torch.segment_reduce(x[matrix.col_indices()] * weights[:, None], "sum", offsets=starts, axis=0, unsafe=True)


KERNELS: dict[str, Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]] = {
    "bags": _by_bags,
    "csr": _by_csr,
    "segments": _by_segments,
}
"""Ways to the same product, of a CSR tensor, X and values in place of its own; `benchmarks/gpu.py` compares them."""


def _kernel(device: torch.device) -> str:
    return "bags" if device.type == "cpu" else "csr"


def _multiply(adjacency: Adjacency, x: torch.Tensor, scale: float = 1) -> torch.Tensor:
    """Return scale A X."""
    matrix = adjacency.matrix
    if x.dtype in _HALF:
        return _multiply(adjacency, x.to(matrix.dtype), scale).to(x.dtype)
    return sparse_product(adjacency, x, None if scale == 1 else matrix.values() * scale)


def _mean_of_layers(adjacency: Adjacency, x: torch.Tensor, n_layers: int, beside: Sequence[Beside]) -> torch.Tensor:
    if x.dtype in _HALF:
        return _mean_of_layers(adjacency, x.to(adjacency.matrix.dtype), n_layers, beside).to(x.dtype)
    # Horner's rule, x + A(x + A(x + ...)), holds two arrays however many layers there are.
    total, share = x, 1 / (n_layers + 1)
    for _ in range(n_layers - 1):
        total = _multiply(adjacency, total).add_(x)
    total = _multiply(adjacency, total, share).add_(x, alpha=share) if n_layers else x.clone()
    for graph in beside:
        graph.add(total, x)
    return total


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, adjacency: Adjacency, x: torch.Tensor) -> torch.Tensor:
        ctx.adjacency = adjacency
        # Autocast would hand the sparse kernels a type they do not have.
        with torch.autocast(x.device.type, enabled=False):
            return _multiply(adjacency, x)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[None, torch.Tensor]:
        return None, propagate(ctx.adjacency.transposed, gradients[0])


class _MeanOfLayers(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, adjacency: Adjacency, x: torch.Tensor, n_layers: int, beside: tuple[Beside, ...]
    ) -> torch.Tensor:
        ctx.adjacency, ctx.n_layers, ctx.beside = adjacency, n_layers, beside
        with torch.autocast(x.device.type, enabled=False):
            return _mean_of_layers(adjacency, x, n_layers, beside)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[None, torch.Tensor, None, None]:
        beside = [graph.transposed for graph in ctx.beside]
        return None, light_gcn(ctx.adjacency.transposed, gradients[0], ctx.n_layers, beside), None, None
