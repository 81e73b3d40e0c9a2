"""Graph attention over sparse edges against a dense one with a mask."""

import numpy as np
import pytest
import torch
from scipy import sparse
from torch.nn import functional

from recmodels.graphs.adjacency import Adjacency
from recmodels.models.layers.attention import GraphAttention


def dense_attention(layer: GraphAttention, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    heads = (x @ layer.weight).view(len(x), layer.n_heads, -1)
    result = []
    for head in range(layer.n_heads):
        h = heads[:, head]
        logits = (h @ layer.source[0, head])[None, :] + (h @ layer.destination[0, head])[:, None]
        logits = functional.leaky_relu(logits, 0.2).masked_fill(~mask, -torch.inf)
        result.append(logits.softmax(dim=1) @ h)
    return torch.cat(result, dim=1) + layer.bias


@pytest.fixture
def graph() -> tuple[Adjacency, torch.Tensor]:
    mask = np.random.default_rng(0).random((9, 9)) < 0.3
    mask = mask | mask.T | np.eye(9, dtype=bool)
    adjacency = Adjacency.from_scipy(sparse.csr_array(mask.astype(np.float64)), symmetric=True, dtype=torch.float64)
    return adjacency, torch.from_numpy(mask)


def test_output_and_gradients_equal_the_dense_form(graph: tuple[Adjacency, torch.Tensor]) -> None:
    adjacency, mask = graph
    noise = torch.Generator().manual_seed(1)
    layer = GraphAttention(adjacency, 6, 3, 0.5, noise).double()
    layer.eval()
    x = torch.randn(9, 6, dtype=torch.float64, generator=noise, requires_grad=True)
    weights = torch.randn(9, 6, dtype=torch.float64, generator=noise)
    variables = [x, *layer.parameters()]
    found = layer(x, noise)
    expected = dense_attention(layer, x, mask)
    torch.testing.assert_close(found, expected)
    of_found = torch.autograd.grad((found * weights).sum(), variables)
    of_expected = torch.autograd.grad((expected * weights).sum(), variables)
    for first, second in zip(of_found, of_expected, strict=True):
        torch.testing.assert_close(first, second)


def test_dropout_only_acts_while_training(graph: tuple[Adjacency, torch.Tensor]) -> None:
    noise = torch.Generator().manual_seed(1)
    layer = GraphAttention(graph[0], 6, 3, 0.5, noise).double()
    x = torch.randn(9, 6, dtype=torch.float64, generator=noise)
    assert not torch.equal(layer(x, noise), layer(x, noise))
    layer.eval()
    assert torch.equal(layer(x, noise), layer(x, noise))
