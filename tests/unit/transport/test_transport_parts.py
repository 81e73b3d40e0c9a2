"""Any cut of the users into parts: the same false negatives, pairs and potentials, whatever a part was asked before."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import ot
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from polars.testing import assert_frame_equal
from scipy import sparse

from recmodels.compute.local import LOCAL, LocalGroup
from recmodels.errors import InputError
from recmodels.graphs.matrices import interaction_matrix
from recmodels.schemas.tables import KNN
from recmodels.transport import candidates as candidates_module
from recmodels.transport import top_q as module
from recmodels.transport.augment import augment
from recmodels.transport.candidates import Candidates, ItemSide
from recmodels.transport.config import TransportConfig
from recmodels.transport.false_negatives import item_evidence
from recmodels.transport.parts import PlanRows, user_parts
from recmodels.transport.sinkhorn import NotConverged, PlanInParts, power_of, sinkhorn, sinkhorn_in_parts
from recmodels.transport.top_q import select, top_q


class Forgetful(LocalGroup):
    """Parts that are lost after every answer and made anew, as where machines come and go."""

    def __init__(self, factory: Any, parts: Sequence[Any], shared: Any) -> None:
        super().__init__([])
        self._make = lambda: [factory(shared, part) for part in parts]

    def call(self, method: str, *arguments: Any, each: Sequence[Any] | None = None) -> list[Any]:
        self._parts = self._make()
        return super().call(method, *arguments, each=each)


class ForgetfulPlace(type(LOCAL)):
    """Where parts forget."""

    def group(self, factory: Any, parts: Any, *, shared: Any = None) -> Forgetful:
        return Forgetful(factory, list(parts), shared)


@st.composite
def cuts(draw: st.DrawFn, n: int) -> list[slice]:
    borders = sorted(draw(st.sets(st.integers(1, n - 1), max_size=n - 1))) if n > 1 else []
    return [slice(first, last) for first, last in zip([0, *borders], [*borders, n], strict=True)]


def in_parts(
    cost: np.ndarray, a: np.ndarray, b: np.ndarray, epsilon: float, cut: list[slice], **settings: Any
) -> tuple[np.ndarray, PlanInParts]:
    """log f of all users, and the plan."""
    power = power_of(epsilon, settings.get("relaxation"))
    group = LocalGroup([PlanRows(sparse.csr_array(cost[rows]), a[rows], epsilon, power) for rows in cut])
    plan = sinkhorn_in_parts(group, a, b, epsilon, **settings)
    return np.concatenate(group.call("log_f", plan.form, plan.potentials.before)), plan


@settings(max_examples=100, deadline=None)
@given(st.data(), st.sampled_from(["scaling", "log", "auto"]), st.sampled_from([None, 0.3, 2.0]))
def test_any_cut_gives_the_same_potentials(data: st.DataObject, form: Any, relaxation: float | None) -> None:
    n_users, n_items = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 9))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    cost = np.where(rng.random((n_users, n_items)) < 0.5, rng.uniform(-2, 1, (n_users, n_items)), 0.0)
    a, b = rng.uniform(0.1, 2, n_users), rng.uniform(0.1, 2, n_items)
    # Whole parts may have no mass at all.
    a[1:][rng.random(n_users - 1) < 0.3] = 0
    b *= a.sum() / b.sum()
    epsilon = 10 ** data.draw(st.floats(-2.5, 1)) if form == "log" else 10 ** data.draw(st.floats(-0.3, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotConverged)
        options = {"relaxation": relaxation, "tolerance": 1e-9, "max_iterations": 40, "form": form}
        whole = sinkhorn(sparse.csr_array(cost), a, b, epsilon, **options)
        log_f, plan = in_parts(cost, a, b, epsilon, data.draw(cuts(n_users)), **options)
    assert plan.form == whole.form
    assert_allclose(log_f, whole.log_f, rtol=1e-12, atol=1e-12)
    assert_allclose(plan.potentials.log_g, whole.log_g, rtol=1e-12, atol=1e-12)
    # An error is a difference of sums: its own digits are those of the mass.
    assert plan.n_iterations == whole.n_iterations or abs(plan.marginal_error - whole.marginal_error) < 1e-12
    assert plan.mass == pytest.approx(whole.mass, rel=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.data(), st.sampled_from([None, 0.5]), st.sampled_from(["scaling", "log"]))
def test_plans_in_parts_are_those_of_pot(data: st.DataObject, relaxation: float | None, form: Any) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    cost = rng.choice([-1.0, 0.0, 1.0], (11, 7))
    a, b = rng.uniform(0.1, 2, 11), rng.uniform(0.1, 2, 7)
    b *= a.sum() / b.sum()
    cut = data.draw(cuts(11))
    options = {"relaxation": relaxation, "tolerance": 1e-11, "max_iterations": 20000, "form": form}
    log_f, plan = in_parts(cost, a, b, 0.5, cut, **options)
    if relaxation is None:
        expected = ot.sinkhorn(a, b, cost, 0.5, method="sinkhorn_log", numItermax=20000, stopThr=1e-12)
    else:
        warnings.filterwarnings("ignore", message="If reg_type = entropy")
        expected = ot.unbalanced.sinkhorn_unbalanced(
            a, b, cost.copy(), 0.5, relaxation, reg_type="entropy", numItermax=20000, stopThr=1e-13
        )
    found = np.exp(log_f[:, None] + plan.potentials.log_g - cost / 0.5)
    assert_allclose(found, expected, rtol=0, atol=1e-7 * np.max(expected))


@settings(max_examples=200, deadline=None)
@given(st.data(), st.sampled_from([0.0, 0.1, 0.5, 1.0]), st.integers(0, 90))
def check_any_cut_selects_the_same(data: st.DataObject, share: float, q: int) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    n_users, n_items = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 9))
    # Quarters tie exactly and often, also over the borders of parts.
    log_f, log_g = rng.integers(-4, 4, n_users) / 4, rng.integers(-4, 4, n_items) / 4
    log_f[rng.random(n_users) < 0.2] = -np.inf
    log_g[rng.random(n_items) < 0.1] = -np.inf
    shape = (n_users, n_items)
    cost = sparse.csr_array(np.where(rng.random(shape) < share, rng.choice([-1.0, -0.5, 1.0], shape), 0.0))
    skip = sparse.csr_array(rng.random(shape) < rng.choice([0.0, 0.3, 1.0]))
    items = ItemSide(log_g)
    cut = data.draw(cuts(n_users))
    made = [Candidates(log_f[rows], items, cost[rows], skip[rows], 0.5, rows.start) for rows in cut]

    def ask(method: str, arguments: list[tuple[Any, ...]]) -> list[Any]:
        return [getattr(part, method)(*own) for part, own in zip(made, arguments, strict=True)]

    found, whole = select(ask, len(made), items, q), top_q(log_f, log_g, cost, 0.5, q, excluded=skip)
    for name in ("user_ids", "item_ids", "mass", "stored"):
        assert_array_equal(getattr(found, name), getattr(whole, name))


@pytest.mark.parametrize("sharpened", [False, True])
def test_any_cut_selects_the_same_pairs(sharpened: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates_module, "_BLOCK_ENTRIES", 5)
    monkeypatch.setattr(module, "_CHEAP_PAIRS", 0 if sharpened else 1 << 22)
    check_any_cut_selects_the_same()


def graph(seed: int, n_items: int, k: int) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    src, dst = np.repeat(np.arange(n_items), k), rng.integers(0, n_items, n_items * k)
    rank, similarity = np.tile(np.arange(k), n_items), rng.uniform(0.1, 1, n_items * k)
    return pl.DataFrame({"src": src, "dst": dst, "rank": rank, "similarity": similarity}).cast(KNN)


GRAPHS = {"text": graph(1, 20, 4), "image": graph(2, 20, 3)}
CONFIGS = [
    {},
    {"evidence": "count", "epsilon": 0.02},
    {"evidence": "similarity", "epsilon": 0.3, "item_marginal": "popularity"},
    {"evidence": "collaborative", "user_marginal": "deficit", "epsilon": 0.5},
    {"relaxation": 0.5, "user_mass": 2.0, "item_mass": 3.0},
    {"ratio": 3.0},
    {"ratio": 30.0},
]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(CONFIGS), st.integers(1, 150), st.booleans())
def test_any_size_of_parts_adds_the_same_pairs_even_where_parts_are_lost(
    seed: int, chosen: dict[str, Any], entries_per_part: int, forgetful: bool
) -> None:
    rng = np.random.default_rng(seed)
    train = pl.DataFrame({"user_id": rng.integers(0, 15, 40), "item_id": rng.integers(0, 20, 40)})
    config = TransportConfig.model_validate({"ratio": 0.5, "neighbours": None, "max_iterations": 8, **chosen})
    sizes = {"n_users": 15, "n_items": 20}
    place = ForgetfulPlace() if forgetful else LOCAL
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotConverged)
        whole = augment(train, GRAPHS, config, **sizes)
        cut = augment(train, GRAPHS, config, **sizes, compute=place, entries_per_part=entries_per_part)
    assert whole.diagnostics["n_parts"] == 1
    assert_frame_equal(cut.added.drop("mass"), whole.added.drop("mass"))
    assert_allclose(cut.added["mass"], whole.added["mass"], rtol=1e-11)
    assert_array_equal(cut.false_negatives.toarray(), whole.false_negatives.toarray())
    for name, value in whole.diagnostics.items():
        if name not in ("n_parts", "marginal_error"):
            expected = pytest.approx(value, rel=1e-11) if isinstance(value, float) else value
            assert cut.diagnostics[name] == expected


def test_parts_hold_about_as_many_costs_as_asked_and_never_half_a_user() -> None:
    rng = np.random.default_rng(0)
    positives = interaction_matrix(rng.integers(0, 300, 900), rng.integers(0, 20, 900), 300, 20)
    items = item_evidence(positives, GRAPHS)
    parts = list(user_parts(positives, np.ones(300), items, 200))
    assert len(parts) > 10
    assert [part.first for part in parts] == np.cumsum([0, *(part.a.size for part in parts[:-1])]).tolist()
    assert sum(part.a.size for part in parts) == 300
    longest = 1 + int(np.diff(items.edges(positives) + positives.indptr).max())
    assert max(part.positives.nnz + int(items.edges(part.positives)[-1]) for part in parts) < 200 + longest
    assert [part.a.size for part in user_parts(positives, np.ones(300), items, 1)] == [1] * 300


def test_false_negatives_need_not_be_kept() -> None:
    train = pl.DataFrame({"user_id": [0, 1, 2], "item_id": [0, 1, 2]})
    config = TransportConfig(neighbours=None)
    kept, dropped = (augment(train, GRAPHS, config, n_items=20, keep_false_negatives=keep) for keep in (True, False))
    assert kept.false_negatives.nnz == kept.diagnostics["n_false_negatives"] > 0
    assert dropped.false_negatives.nnz == 0
    assert dropped.diagnostics == kept.diagnostics


def test_a_part_beyond_its_indices_is_refused_and_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    train = pl.DataFrame({"user_id": [0, 1, 2], "item_id": [0, 1, 2]})
    config = TransportConfig(neighbours=None)
    for wrong in (0, 2**31):
        with pytest.raises(InputError, match="entries_per_part"):
            augment(train, GRAPHS, config, n_items=20, entries_per_part=wrong)
    monkeypatch.setattr("recmodels.transport.parts.MOST_ENTRIES", 10)
    with pytest.raises(InputError, match=r"users 0 to 2: expected at most 10 stored costs.*entries_per_part lower"):
        augment(train, GRAPHS, config, n_items=20)
