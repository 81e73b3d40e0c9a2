"""Sparse propagation: values against dense products, gradients against finite differences."""

import numpy as np
import pytest
import torch
from scipy import sparse

from recmodels.errors import InputError
from recmodels.graphs.adjacency import Adjacency
from recmodels.graphs.bipartite import BipartiteGraph
from recmodels.graphs.propagation import Beside, light_gcn, propagate


@pytest.fixture(params=["symmetric", "square", "wide"])
def adjacency(request: pytest.FixtureRequest) -> Adjacency:
    rng = np.random.default_rng(0)
    if request.param == "symmetric":
        graph = BipartiteGraph(rng.integers(0, 5, 12), rng.integers(0, 4, 12), 5, 4, dtype=torch.float64)
        return graph.adjacency()
    shape = (9, 9) if request.param == "square" else (4, 9)
    return Adjacency.from_scipy(sparse.random_array(shape, density=0.3, rng=rng), dtype=torch.float64)


def test_product_and_gradient_equal_those_of_the_dense_matrix(adjacency: Adjacency) -> None:
    x = torch.randn(9, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.allclose(propagate(adjacency, x), adjacency.matrix.to_dense() @ x)
    assert torch.autograd.gradcheck(lambda y: propagate(adjacency, y), (x,))
    assert torch.autograd.gradgradcheck(lambda y: propagate(adjacency, y), (x,))


@pytest.mark.parametrize("n_layers", [0, 1, 2, 5])
def test_light_gcn_is_the_mean_of_its_layers(n_layers: int) -> None:
    rng = np.random.default_rng(1)
    for adjacency in (
        BipartiteGraph(rng.integers(0, 5, 12), rng.integers(0, 4, 12), 5, 4, dtype=torch.float64).adjacency(),
        Adjacency.from_scipy(sparse.random_array((9, 9), density=0.3, rng=rng), dtype=torch.float64),
    ):
        x = torch.randn(9, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
        layers = [x]
        for _ in range(n_layers):
            layers.append(adjacency.matrix.to_dense() @ layers[-1])
        assert torch.allclose(light_gcn(adjacency, x, n_layers), torch.stack(layers).mean(dim=0))
        assert torch.autograd.gradcheck(lambda y, a=adjacency: light_gcn(a, y, n_layers), (x,))


@pytest.mark.parametrize("n_layers", [0, 1, 3])
def test_graphs_beside_add_their_last_layer_to_their_nodes(n_layers: int) -> None:
    rng = np.random.default_rng(1)
    adjacency = BipartiteGraph(rng.integers(0, 5, 12), rng.integers(0, 4, 12), 5, 4, dtype=torch.float64).adjacency()
    users, items = (
        Adjacency.from_scipy(sparse.random_array((n, n), density=0.4, rng=rng), dtype=torch.float64) for n in (5, 4)
    )
    beside = [Beside(users, 0, 5, n_layers=1, weight=0.3), Beside(items, 5, 4, n_layers=2), Beside(None, 5, 4)]
    x = torch.randn(9, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    over_items = items.matrix.to_dense() @ items.matrix.to_dense() @ x[5:]
    added = torch.cat([0.3 * users.matrix.to_dense() @ x[:5], over_items + x[5:]])
    before = x.detach().clone()
    assert torch.allclose(light_gcn(adjacency, x, n_layers, beside), light_gcn(adjacency, x, n_layers) + added)
    assert torch.autograd.gradcheck(lambda y: light_gcn(adjacency, y, n_layers, beside), (x,))
    assert torch.autograd.gradgradcheck(lambda y: light_gcn(adjacency, y, n_layers, beside), (x,))
    assert torch.equal(x, before)
    with pytest.raises(InputError, match="graph beside: expected 5 nodes"):
        light_gcn(adjacency, x, n_layers, [Beside(items, 0, 5)])


def test_the_root_of_the_degrees_is_a_fixed_point_and_no_eigenvalue_exceeds_one() -> None:
    rng = np.random.default_rng(2)
    graph = BipartiteGraph(rng.integers(0, 30, 150), rng.integers(0, 20, 150), 30, 20, dtype=torch.float64)
    adjacency = graph.adjacency(epsilon=0)
    degrees = torch.cat((graph.user_degrees, graph.item_degrees)).double()
    x = degrees.sqrt()[:, None]
    assert torch.allclose(light_gcn(adjacency, x, 3), x)
    assert torch.linalg.eigvalsh(adjacency.matrix.to_dense()).abs().max() <= 1 + 1e-12


def test_half_precision_goes_in_and_comes_out() -> None:
    rng = np.random.default_rng(3)
    graph = BipartiteGraph(rng.integers(0, 30, 150), rng.integers(0, 20, 150), 30, 20)
    x = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    half = x.bfloat16().requires_grad_()
    for product in (propagate(graph.adjacency(), half), light_gcn(graph.adjacency(), half, 2)):
        assert product.dtype == torch.bfloat16
        product.sum().backward()
    assert half.grad is not None
    assert half.grad.dtype == torch.bfloat16
    assert torch.allclose(light_gcn(graph.adjacency(), half, 2).float(), light_gcn(graph.adjacency(), x, 2), atol=0.05)


def test_shapes_that_do_not_fit_are_refused(adjacency: Adjacency) -> None:
    with pytest.raises(InputError, match="9 rows"):
        propagate(adjacency, torch.zeros(8, 2, dtype=torch.float64))
    with pytest.raises(InputError, match="9 rows"):
        propagate(adjacency, torch.zeros(9, dtype=torch.float64))
    if adjacency.shape[0] != 9:
        with pytest.raises(InputError, match="square"):
            light_gcn(adjacency, torch.zeros(9, 2, dtype=torch.float64), 1)
    else:
        with pytest.raises(InputError, match="n_layers"):
            light_gcn(adjacency, torch.zeros(9, 2, dtype=torch.float64), -1)


def test_a_graph_without_edges_propagates_nothing() -> None:
    wide = Adjacency.from_scipy(sparse.csr_array((4, 3)), dtype=torch.float64)
    x = torch.ones(3, 2, dtype=torch.float64, requires_grad=True)
    product = propagate(wide, x)
    product.sum().backward()
    assert product.tolist() == [[0, 0]] * 4
    assert x.grad is not None
    assert x.grad.tolist() == [[0, 0]] * 3
    square = Adjacency.from_scipy(sparse.csr_array((3, 3)), dtype=torch.float64)
    assert light_gcn(square, x, 1).tolist() == [[0.5, 0.5]] * 3


@pytest.mark.gpu
def test_cuda_gives_what_the_cpu_gives() -> None:
    rng = np.random.default_rng(4)
    pairs = rng.integers(0, 30, 150), rng.integers(0, 20, 150), 30, 20
    x = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    results: list[tuple[torch.Tensor, torch.Tensor]] = []
    for device in ("cpu", "cuda"):
        graph = BipartiteGraph(*pairs, device=device)
        y = x.detach().clone().to(device).requires_grad_()
        generator = torch.Generator().manual_seed(1)
        product = light_gcn(graph.edge_drop(0.5, generator), y, 3)
        product.square().sum().backward()
        assert y.grad is not None
        results.append((product.detach().cpu(), y.grad.cpu()))
    assert torch.allclose(results[0][0], results[1][0], atol=1e-5)
    assert torch.allclose(results[0][1], results[1][1], atol=1e-5)
