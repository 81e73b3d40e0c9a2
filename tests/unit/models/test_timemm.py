"""TimeMM's kernels, states and controls, each against what is known without the code."""

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from recmodels.errors import InputError
from recmodels.graphs.bipartite import BipartiteGraph
from recmodels.models.base import Batch
from recmodels.models.inputs import TrainingData, training_data
from recmodels.models.layers.recency import (
    ages,
    item_states,
    kernel_weights,
    routing_states,
    shuffled_within,
    user_states,
)
from recmodels.models.registry import build_model, resolve_config
from recmodels.models.zoo.timemm import Model, _diversity
from recmodels.training.trainer import fit

DAY = 86_400
# Five users, the last without pairs, and four items, the last without.
USERS = np.array([0, 0, 0, 1, 1, 2, 3, 3])
ITEMS = np.array([0, 1, 2, 0, 2, 1, 1, 2])
TIMES = np.array([100, 400, 1000, 50, 50, 900, 10 * DAY, 0])


@pytest.fixture(scope="module")
def data(checkerboard) -> TrainingData:
    return checkerboard.data()


def build(data: TrainingData, **settings: Any) -> Model:
    defaults = {"embedding_size": 8, "neighbours": 4}
    return build_model("timemm", resolve_config("timemm", {**defaults, **settings}), data, 0)


def loss_of(model: Model, data: TrainingData) -> dict[str, torch.Tensor]:
    users, positives = (torch.from_numpy(ids[::5].copy()) for ids in data.train_pairs)
    negatives = torch.randint(data.n_items, users.shape, generator=torch.Generator().manual_seed(3))
    return model.loss(Batch(users, positives, negatives))


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        (4, [1, 0.05833, 0.02492, 0.01334, 0.001]),
        (6, [1, 0.15040, 0.08532, 0.05626, 0.01]),
        (10, [1, 0.32088, 0.22837, 0.17788, 0.0631]),
    ],
)
def test_the_power_kernel_at_known_ages(scale: float, expected: list[float]) -> None:
    at = np.array([0, DAY, 30 * DAY, 365 * DAY, 10**12])
    assert kernel_weights(at, scale, "power") == pytest.approx(expected, rel=5e-4)


@pytest.mark.parametrize("kernel", ["power", "inverse"])
def test_weights_fall_with_age_and_rise_with_the_scale(kernel: str) -> None:
    at = np.array([0, 1, 60, DAY, 10 * DAY])
    slow, fast = kernel_weights(at, 10, kernel), kernel_weights(at, 4, kernel)
    assert (np.diff(fast[fast > 1e-3]) < 0).all()
    assert (slow >= fast).all()
    assert (slow > fast).any()
    assert (kernel_weights(at, 4, "constant") == 1).all()


def test_ages_are_to_the_users_own_newest_pair_and_know_no_origin() -> None:
    found = ages(USERS, TIMES, 5)
    assert found.tolist() == [900, 600, 0, 0, 0, 0, 0, 10 * DAY]
    assert (ages(USERS, TIMES + 12345, 5) == found).all()
    for state in (user_states, routing_states):
        np.testing.assert_array_equal(state(USERS, TIMES, 5), state(USERS, TIMES + 12345, 5))
    np.testing.assert_array_equal(item_states(ITEMS, TIMES, 4), item_states(ITEMS, TIMES + 12345, 4))


def test_states_are_the_stated_figures_and_zero_without_pairs() -> None:
    found = user_states(USERS, TIMES, 5)
    gaps, old = np.array([0, 300, 600]), np.array([900, 600, 0])
    expected = [3, 900, gaps.mean(), 0, old.mean(), gaps.std(), old.std()]
    np.testing.assert_allclose(found[0], np.log1p(expected))
    np.testing.assert_allclose(found[2], [np.log(2), 0, 0, 0, 0, 0, 0])
    assert not found[4].any()
    of_items = item_states(ITEMS, TIMES, 4)
    times = np.array([50, 100])
    expected = [2, 2, 50, 10 * DAY - 100, (10 * DAY - times).mean(), np.std([0, 50]), times.std()]
    np.testing.assert_allclose(of_items[0], np.log1p(expected))
    assert not of_items[3].any()
    assert np.isfinite(of_items).all()


def test_routing_states_are_standardised_over_the_users() -> None:
    found = routing_states(USERS, TIMES, 5)
    ages_of = [[900, 600, 0], [0, 0], [0], [0, 10 * DAY]]
    raw = np.zeros((5, 4))
    for user, old in enumerate(ages_of):
        span = max(old)
        raw[user] = [np.log1p(np.mean(old)), np.log1p(np.median(old)), np.log1p(span), np.mean(np.array(old) <= DAY)]
    np.testing.assert_allclose(found, (raw - raw.mean(axis=0)) / raw.std(axis=0))
    assert not routing_states(np.array([0, 1]), np.array([5, 9]), 2).any()


def test_shuffling_keeps_each_users_times() -> None:
    noise = np.random.default_rng(0).random(len(USERS))
    shuffled = shuffled_within(USERS, TIMES, noise)
    assert (shuffled != TIMES).any()
    for user in range(4):
        assert sorted(shuffled[user == USERS]) == sorted(TIMES[user == USERS])
    np.testing.assert_array_equal(user_states(USERS, shuffled, 5), user_states(USERS, TIMES, 5))


def test_the_operator_is_the_dense_one_and_its_eigenvalues_lie_symmetric_in_the_unit_interval() -> None:
    weights = kernel_weights(ages(USERS, TIMES, 5), 4, "power")
    dense = np.zeros((9, 9))
    dense[USERS, ITEMS + 5] = weights
    dense += dense.T
    degrees = dense.sum(axis=1)
    scale = np.where(degrees > 0, np.maximum(degrees, 1e-12) ** -0.5, 0)
    graph = BipartiteGraph(USERS, ITEMS, 5, 4, dtype=torch.float64)
    found = graph.weighted_adjacency(weights)
    matrix = found.matrix.to_dense().numpy()
    np.testing.assert_allclose(matrix, scale[:, None] * dense * scale, rtol=1e-6)
    values = np.linalg.eigvalsh(matrix)
    assert values.max() <= 1 + 1e-6
    np.testing.assert_allclose(values, -values[::-1], atol=1e-6)
    np.testing.assert_allclose(
        graph.weighted_adjacency(np.ones(8)).to_scipy().toarray(),
        graph.adjacency(epsilon=0).to_scipy().toarray(),
        rtol=1e-6,
    )
    for wrong in (weights[:-1], weights * 0, weights * np.nan):
        with pytest.raises(InputError, match="edge weights"):
            graph.weighted_adjacency(wrong)


def test_without_times_it_refuses_in_one_line(data: TrainingData) -> None:
    for settings in ({}, {"kernel": "constant"}):
        with pytest.raises(InputError, match=r"timemm: expected the timestamp of every training pair.*Use a data set"):
            build(replace(data, train_times=None), **settings)


def test_at_equal_times_the_filters_are_one_and_the_gate_decides_nothing(data: TrainingData) -> None:
    equal = replace(data, train_times=np.full_like(data.train_times, 7))
    model = build(equal)
    first, *others = model._filtered()
    assert len(others) == 2
    for other in others:
        torch.testing.assert_close(other, first)
    before = model.embeddings()
    with torch.no_grad():
        for head in model.heads.values():
            head.bias.copy_(torch.tensor([3.0, -1.0, 0.5]))
    for found, expected in zip(model.embeddings(), before, strict=True):
        torch.testing.assert_close(found, expected)
    torch.testing.assert_close(loss_of(model, equal)["diversity"], torch.tensor(1e-2 * 2 / 3))
    # Constant kernels, asked for as a control, are the same model.
    constant = build(equal, kernel="constant")
    for found, expected in zip(constant.embeddings(), build(equal).embeddings(), strict=True):
        torch.testing.assert_close(found, expected)


def test_adding_a_constant_to_all_times_changes_nothing(data: TrainingData) -> None:
    later = replace(data, train_times=data.train_times + 99_999)
    for found, expected in zip(build(later).embeddings(), build(data).embeddings(), strict=True):
        assert torch.equal(found, expected)


def test_gates_and_routes_are_shares_and_a_hot_gate_is_the_mean(data: TrainingData) -> None:
    model = build(data)
    gates, route = model._gates(), model._route()
    assert gates.shape == (data.n_users + data.n_items, 3, 3)
    torch.testing.assert_close(gates.sum(dim=2), torch.ones(gates.shape[:2]))
    torch.testing.assert_close(route.sum(dim=1), torch.ones(data.n_users))
    assert route.std(dim=0).min() > 0
    torch.testing.assert_close(build(data, gate_temperature=1e9)._gates(), torch.full_like(gates, 1 / 3))
    alone = build(data, time_scales=[6.0])
    assert (alone._gates() == 1).all()
    assert loss_of(alone, data)["diversity"] == 0


def test_one_global_weight_is_the_same_for_every_user(data: TrainingData) -> None:
    model = build(data, routing="global")
    assert not hasattr(model, "router")
    torch.testing.assert_close(model._route(), torch.full((data.n_users, 3), 1 / 3))
    fit(build(data, routing="global", training={"epochs": 2, "batch_size": 200}), data, seed=0)


def test_shuffled_times_change_the_graphs_and_keep_the_initial_values(data: TrainingData) -> None:
    plain, shuffled = build(data), build(data, shuffle_times=True)
    assert all(
        torch.equal(*pair) for pair in zip(plain.state_dict().values(), shuffled.state_dict().values(), strict=True)
    )
    assert torch.equal(plain.user_states, shuffled.user_states)
    first, second = (model.operators[0].matrix.values() for model in (plain, shuffled))
    assert not torch.equal(first, second)
    assert torch.equal(second, build(data, shuffle_times=True).operators[0].matrix.values())


def test_times_of_held_out_rows_change_nothing(checkerboard, data: TrainingData) -> None:
    held_out = pl.col("split") != "train"
    changed = checkerboard.interactions.with_columns(
        timestamp=pl.when(held_out).then(pl.col("timestamp").reverse() + 10**9).otherwise("timestamp")
    )
    assert (
        changed.filter(held_out)["timestamp"].to_list()
        != checkerboard.interactions.filter(held_out)["timestamp"].to_list()
    )
    other = training_data(changed, n_users=60, n_items=80, **checkerboard.tables)
    settings = {"training": {"epochs": 2, "batch_size": 200}}
    states = []
    for rows in (data, other):
        model = build(rows, **settings)
        fit(model, rows, seed=0)
        states.append(model.state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_relabelling_ids_relabels_the_embeddings(checkerboard, data: TrainingData) -> None:
    rng = np.random.default_rng(5)
    users, items = rng.permutation(60), rng.permutation(80)
    relabelled = checkerboard.interactions.with_columns(
        user_id=pl.Series(users[checkerboard.interactions["user_id"].to_numpy()], dtype=pl.Int32),
        item_id=pl.Series(items[checkerboard.interactions["item_id"].to_numpy()], dtype=pl.Int32),
    )
    tables = {}
    for modality in ("text", "image"):
        embeddings = checkerboard.tables[f"item_{modality}_embeddings"]
        tables[f"item_{modality}_embeddings"] = embeddings.with_columns(item_id=pl.Series(items, dtype=pl.Int32)).sort(
            "item_id"
        )
        knn = checkerboard.tables[f"item_{modality}_knn"]
        tables[f"item_{modality}_knn"] = knn.with_columns(
            src=pl.Series(items[knn["src"].to_numpy()], dtype=pl.Int32),
            dst=pl.Series(items[knn["dst"].to_numpy()], dtype=pl.Int32),
        )
    model, other = build(data), build(training_data(relabelled, n_users=60, n_items=80, **tables))
    with torch.no_grad():
        other.load_state_dict(model.state_dict())
        other.channels.users[users] = model.channels.users
        other.channels.ids[items] = model.channels.ids
    (of_users, of_items), (found_users, found_items) = model.embeddings(), other.embeddings()
    torch.testing.assert_close(found_users[users], of_users)
    torch.testing.assert_close(found_items[items], of_items)


def test_diversity_is_between_correlations_and_knows_no_scale() -> None:
    margins = torch.randn(3, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    correlations = np.corrcoef(margins.numpy())
    expected = (np.square(correlations).sum() - 3) / 9
    assert _diversity(margins).item() == pytest.approx(expected)
    scaled = margins * torch.tensor([[1.0], [70.0], [1.0]])
    assert _diversity(scaled).item() == pytest.approx(expected)
    assert _diversity(margins[:, :1]).item() == 0


def test_the_released_loss_is_the_cross_entropy_alone(data: TrainingData) -> None:
    released, paper = (loss_of(build(data, loss=loss), data) for loss in ("released", "paper"))
    assert set(released) == {"bce"}
    assert set(paper) == {"bce", "diversity", "entropy", "penalty"}
    assert released["bce"] == paper["bce"]
