"""Graph attention over sparse edges, deterministic on a CPU and without an edge-by-feature array."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from recmodels.graphs.adjacency import Adjacency
from recmodels.graphs.propagation import sparse_product
from recmodels.models.layers.blocks import dropout, lookup

_NEGATIVE_SLOPE = 0.2


class GraphAttention(nn.Module):
    r"""
    One layer of graph attention (Velickovic et al., ICLR 2018), its heads side by side.

    .. math:: o_i = \sum_j \operatorname{softmax}_j(\operatorname{LeakyReLU}(a_{src} \cdot h_j + a_{dst} \cdot h_i)) h_j

    with :math:`h = X W` split into heads; j runs over the neighbours of i.

    Parameters
    ----------
    graph
        Symmetric, with self-loops; its values are not read.
    width
        Columns of input and output, a multiple of `n_heads`.
    n_heads
        Number of heads.
    rate
        Dropout of the input and of the attention while training.
    generator
        Source of the initial parameters.
    """

    def __init__(self, graph: Adjacency, width: int, n_heads: int, rate: float, generator: torch.Generator) -> None:
        super().__init__()
        self.graph = graph
        self.n_heads, self.rate = n_heads, rate
        into, out_of = graph.edges()
        # The graph is symmetric: its edges sorted by column are the edges of the transpose sorted by row.
        self.edges = (into, out_of, torch.argsort(out_of, stable=True))
        self.weight = nn.Parameter(torch.empty(width, width))
        self.source = nn.Parameter(torch.empty(1, n_heads, width // n_heads))
        self.destination = nn.Parameter(torch.empty(1, n_heads, width // n_heads))
        self.bias = nn.Parameter(torch.zeros(width))
        for parameter in (self.weight, self.source, self.destination):
            nn.init.xavier_normal_(parameter, gain=2**0.5, generator=generator)

    def forward(self, x: Tensor, noise: torch.Generator) -> Tensor:
        """Return the attended features, (n, width)."""
        # Autocast would hand the sparse kernels a type they do not have.
        with torch.autocast(x.device.type, enabled=False):
            return self._attend(x.float() if x.dtype == torch.bfloat16 else x, noise)

    def _attend(self, x: Tensor, noise: torch.Generator) -> Tensor:
        rate = self.rate if self.training else 0.0
        h = dropout(x, rate, noise) @ self.weight
        heads = h.view(len(h), self.n_heads, -1)
        into, out_of, _ = self.edges
        logits = lookup((heads * self.source).sum(dim=2), out_of) + lookup((heads * self.destination).sum(dim=2), into)
        logits = functional.leaky_relu(logits, _NEGATIVE_SLOPE)
        weights = dropout(_EdgeSoftmax.apply(logits, self.graph), rate, noise)
        attended = [
            _WeightedSum.apply(weights[:, head].contiguous(), heads[:, head].contiguous(), self.graph, self.edges)
            for head in range(self.n_heads)
        ]
        return torch.cat(attended, dim=1) + self.bias


def _row_sums(values: Tensor, graph: Adjacency) -> Tensor:
    return torch.segment_reduce(values, "sum", offsets=graph.matrix.crow_indices().long(), axis=0)


class _EdgeSoftmax(torch.autograd.Function):
    """Softmax over the edges of each row; values are (n_edges, n_heads)."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, graph: Adjacency) -> Tensor:
        into = graph.edges()[0]
        offsets = graph.matrix.crow_indices().long()
        peaks = torch.segment_reduce(logits, "max", offsets=offsets, axis=0)
        powers = (logits - peaks[into]).exp_()
        weights = powers / _row_sums(powers, graph)[into]
        ctx.graph, ctx.into = graph, into
        ctx.save_for_backward(weights)
        return weights

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (weights,) = ctx.saved_tensors
        weighted = weights * gradients[0]
        return weighted - weights * _row_sums(weighted, ctx.graph)[ctx.into], None


class _WeightedSum(torch.autograd.Function):
    """The product of the sparse matrix of one head's weights, (n_edges,), with its features, (n, width)."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, x: Tensor, graph: Adjacency, edges: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        ctx.graph, ctx.edges = graph, edges
        ctx.save_for_backward(weights, x)
        return sparse_product(graph, x, weights)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        weights, x = ctx.saved_tensors
        gradient = gradients[0].contiguous()
        into, out_of, transposed = ctx.edges
        # One dot product an edge, some edges at a time, so that no array of edges by features arises.
        block = max(1, 2**22 // x.shape[1])
        of_weights = torch.cat(
            [
                (gradient.index_select(0, i) * x.index_select(0, j)).sum(dim=1)
                for i, j in zip(into.split(block), out_of.split(block), strict=True)
            ]
        )
        return of_weights, sparse_product(ctx.graph, gradient, weights[transposed]), None, None
