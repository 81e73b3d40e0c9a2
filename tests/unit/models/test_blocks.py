"""Losses and initialisers against their formulas, written out."""

import math

import numpy as np
import pytest
import torch

from recmodels.models.layers.blocks import (
    Features,
    bpr_loss,
    dropout,
    frobenius_penalty,
    info_nce,
    linear,
    lookup,
    node_table,
    row_differences,
    sampled_softmax,
    squared_penalty,
    xavier_table,
)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_bpr_is_the_mean_negative_log_sigmoid_and_stays_finite_at_large_margins() -> None:
    margins = [-2.0, 0.0, 3.0]
    expected = -np.mean([math.log(1 / (1 + math.exp(-margin))) for margin in margins])
    assert bpr_loss(torch.tensor(margins)).item() == pytest.approx(expected, rel=1e-6)
    assert bpr_loss(torch.tensor([-1e4])).item() == pytest.approx(1e4)
    assert bpr_loss(torch.tensor([1e4])).item() == 0


def test_the_sampled_softmax_is_the_cross_entropy_over_the_allowed_items(generator: torch.Generator) -> None:
    users, positives, negatives = (torch.randn(n, 3, generator=generator, dtype=torch.float64) for n in (5, 5, 7))
    barred = torch.rand(5, 7, generator=generator) < 0.4
    barred[2] = True
    expected = []
    for u, i, out in zip(users, positives, barred, strict=True):
        powers = [math.exp(float(u @ item) / 0.5) for item in (i, *negatives[~out])]
        expected.append(-math.log(powers[0] / sum(powers)))
    found = sampled_softmax(users, positives, negatives, barred, 0.5)
    assert found.tolist() == pytest.approx(expected, abs=1e-12)
    assert found[2] == 0
    # Its gradient against finite differences; where everything is barred there is none.
    leaves = [x.requires_grad_() for x in (users, positives, negatives)]
    assert torch.autograd.gradcheck(lambda *x: sampled_softmax(*x, barred, 0.5), leaves)


def test_the_sampled_softmax_of_one_negative_is_bpr(generator: torch.Generator) -> None:
    users, positives, negative = (torch.randn(n, 3, generator=generator) for n in (5, 5, 1))
    margins = (users * (positives - negative)).sum(dim=1)
    torch.testing.assert_close(sampled_softmax(users, positives, negative, None, 1.0).mean(), bpr_loss(margins))


def test_info_nce_is_the_loop_over_the_batch(generator: torch.Generator) -> None:
    p, q = (torch.randn(5, 3, generator=generator) for _ in range(2))
    unit_p, unit_q = ((x / x.norm(dim=1, keepdim=True)).numpy() for x in (p, q))
    total = 0.0
    for b in range(5):
        powers = [math.exp(float(unit_p[b] @ unit_q[other]) / 0.2) for other in range(5)]
        total -= math.log(powers[b] / sum(powers))
    assert info_nce(p, q, 0.2).item() == pytest.approx(total / 5, rel=1e-5)


def test_the_frobenius_penalty_is_not_squared_and_divides_by_the_rows() -> None:
    assert frobenius_penalty(torch.full((4, 1), 3.0), torch.full((2, 2), 2.0), n_rows=2).item() == pytest.approx(
        (6 + 4) / 2
    )


def test_the_squared_penalty_divides_by_the_configured_batch_on_a_short_one_too() -> None:
    assert squared_penalty(torch.full((1, 2), 2.0), torch.ones(1, 2), batch_size=10).item() == pytest.approx(0.5)


def test_rows_add_the_gradients_of_repeated_ids() -> None:
    table = torch.arange(6.0).view(3, 2).requires_grad_()
    lookup(table, torch.tensor([2, 0, 2])).sum().backward()
    assert table.grad is not None
    assert table.grad.tolist() == [[1, 1], [0, 0], [2, 2]]


def test_row_differences_equal_indexing_with_their_gradient(generator: torch.Generator) -> None:
    table = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    first, second = torch.tensor([0, 5, 2, 2]), torch.tensor([1, 5, 3, 0])
    indexed, bagged = (table.clone().requires_grad_() for _ in range(2))
    weights = torch.randn(4, 4, generator=generator, dtype=torch.float64)
    expected = indexed[first] - indexed[second]
    found = row_differences(bagged, first, second)
    torch.testing.assert_close(found, expected)
    (expected * weights).sum().backward()
    (found * weights).sum().backward()
    torch.testing.assert_close(bagged.grad, indexed.grad)


def test_margins_equal_the_difference_of_two_projections(generator: torch.Generator) -> None:
    features = Features(np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32), 3, generator, bias=False)
    users, positives, negatives = torch.randn(4, 3), torch.tensor([0, 1, 2, 3]), torch.tensor([5, 4, 3, 2])
    everything = features.all()
    expected = (users * (everything[positives] - everything[negatives])).sum(dim=1)
    torch.testing.assert_close(features.margins(users, positives, negatives), expected)
    torch.testing.assert_close(features(positives), everything[positives])


def test_frozen_features_have_no_gradient_and_are_not_saved_while_trainable_ones_are(
    generator: torch.Generator,
) -> None:
    matrix = np.ones((6, 5), dtype=np.float32)
    frozen, trained = (Features(matrix, 3, generator, trainable=trainable) for trainable in (False, True))
    assert "features" not in frozen.state_dict()
    assert trained.state_dict()["features"].shape == (6, 5)
    trained(torch.tensor([1])).sum().backward()
    assert trained.features.grad is not None
    assert trained.features.grad[1].any()
    assert not trained.features.grad[0].any()


def test_dropout_keeps_the_mean_and_its_share(generator: torch.Generator) -> None:
    x = dropout(torch.ones(200, 200), 0.3, generator)
    assert (x == 0).float().mean().item() == pytest.approx(0.3, abs=0.01)
    assert x.mean().item() == pytest.approx(1.0, abs=0.02)
    assert x.unique().tolist() == pytest.approx([0, 1 / 0.7])


def test_initial_entries_have_the_stated_spread(generator: torch.Generator) -> None:
    bound = math.sqrt(6 / (1000 + 50))
    table = xavier_table(1000, 50, generator)
    assert table.abs().max().item() == pytest.approx(bound, rel=1e-3)
    normal = xavier_table(1000, 50, generator, normal=True)
    assert normal.std().item() == pytest.approx(math.sqrt(2 / 1050), rel=0.02)
    nodes = node_table(1000, 100, 50, generator)
    assert nodes[:1000].abs().max().item() == pytest.approx(bound, rel=1e-3)
    assert nodes[1000:].abs().max().item() == pytest.approx(math.sqrt(6 / 150), rel=1e-3)
    layer = linear(400, 50, generator)
    assert layer.weight.abs().max().item() == pytest.approx(1 / 20, rel=1e-3)
    published = linear(400, 50, generator, init="xavier_uniform")
    assert published.weight.abs().max().item() == pytest.approx(math.sqrt(6 / 450), rel=1e-3)
    assert published.bias.abs().max().item() == pytest.approx(1 / 20, rel=0.1)


def test_nothing_is_drawn_from_the_global_generator(generator: torch.Generator) -> None:
    before = torch.random.get_rng_state()
    linear(4, 3, generator)
    linear(4, 3, generator, init="xavier_normal")
    node_table(4, 3, 2, generator)
    dropout(torch.ones(3, 3), 0.5, generator)
    assert torch.equal(before, torch.random.get_rng_state())
