"""Augmentation as a whole: what it promises about its output, and every odd case that must have an answer."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from recmodels.errors import InputError
from recmodels.schemas.tables import AUGMENTED, KNN
from recmodels.transport.augment import Augmentation, augment
from recmodels.transport.config import TransportConfig
from recmodels.transport.sinkhorn import NotConverged

N_USERS, N_ITEMS = 40, 25


def random_graph(seed: int, k: int = 6, n_items: int = N_ITEMS) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    rows: list[tuple[int, int, int, float]] = []
    for item in range(n_items):
        others = rng.choice([other for other in range(n_items) if other != item], k - 1, replace=False)
        similarities = np.sort(rng.uniform(0.2, 0.9, k - 1))[::-1]
        rows.append((item, item, 0, 1.0))
        rows += [(item, int(o), r + 1, float(s)) for r, (o, s) in enumerate(zip(others, similarities, strict=True))]
    return pl.DataFrame(rows, schema=KNN, orient="row")


GRAPHS = {"text": random_graph(1), "image": random_graph(2)}
SMALL = {"neighbours": 6, "ratio": 0.5}


@pytest.fixture(scope="module")
def train() -> pl.DataFrame:
    rng = np.random.default_rng(0)
    pairs = rng.choice(N_USERS * N_ITEMS, 160, replace=False)
    return pl.DataFrame({"user_id": pairs // N_ITEMS, "item_id": pairs % N_ITEMS}).sort("user_id", "item_id")


def run(train: pl.DataFrame, graphs: dict[str, pl.DataFrame] | None = None, **settings: object) -> Augmentation:
    config = TransportConfig.model_validate(SMALL | settings)
    return augment(train, GRAPHS if graphs is None else graphs, config, n_users=N_USERS, n_items=N_ITEMS)


def pairs_of(frame: pl.DataFrame) -> set[tuple[int, int]]:
    return set(zip(frame["user_id"].to_list(), frame["item_id"].to_list(), strict=True))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"evidence": "count", "epsilon": 0.3},
        {"evidence": "similarity", "epsilon": 0.05},
        {"evidence": "collaborative", "item_marginal": "popularity", "popularity_power": 0.5},
        {"user_marginal": "deficit"},
        {"relaxation": 0.5, "user_mass": 4.0, "item_mass": 10.0},
        {"backend": "pot"},
    ],
)
def test_adds_the_asked_number_of_new_pairs(train: pl.DataFrame, settings: dict[str, object]) -> None:
    result = run(train, **settings)
    assert result.added.schema == AUGMENTED
    assert result.added.height == 80
    assert pairs_of(result.added).isdisjoint(pairs_of(train))
    assert pairs_of(result.interactions) == pairs_of(result.added) | pairs_of(train)
    assert result.interactions["added"].sum() == 80
    assert result.added.select("user_id", "item_id").is_sorted(by=["user_id", "item_id"])
    assert (result.added["mass"] > 0).all()
    assert result.diagnostics["status"] == "converged"


def test_the_dense_backend_adds_the_same_pairs(train: pl.DataFrame) -> None:
    for settings in ({}, {"evidence": "similarity", "epsilon": 0.3}):
        ours, theirs = run(train, **settings), run(train, backend="pot", **settings)
        assert_frame_equal(ours.added, theirs.added, abs_tol=1e-6)


def test_is_the_same_whatever_the_order_and_repetition_of_rows(train: pl.DataFrame) -> None:
    shuffled = pl.concat([train, train.head(30)]).sample(fraction=1.0, shuffle=True, seed=5)
    graphs = {name: pl.concat([t, t.head(40)]).sample(fraction=1.0, shuffle=True, seed=6) for name, t in GRAPHS.items()}
    expected = run(train, evidence="similarity")
    assert_frame_equal(run(shuffled, graphs, evidence="similarity").added, expected.added, check_exact=True)


def test_with_equal_marginals_their_size_changes_no_pair(train: pl.DataFrame) -> None:
    plain = run(train)
    scaled = run(train, user_mass=100.0, item_mass=100.0 * N_USERS / N_ITEMS)
    assert pairs_of(plain.added) == pairs_of(scaled.added)


def test_small_epsilon_adds_false_negatives_alone(train: pl.DataFrame) -> None:
    result = run(train, epsilon=1e-3, ratio=0.3, max_iterations=20000, tolerance=1e-4)
    rows, columns = result.false_negatives.nonzero()
    assert pairs_of(result.added) <= set(zip(rows.tolist(), columns.tolist(), strict=True))


def test_more_pairs_than_false_negatives_takes_other_unseen_pairs(train: pl.DataFrame) -> None:
    result = run(train, ratio=5.0)
    assert result.added.height == 800
    assert result.diagnostics["n_added_outside_false_negatives"] >= 800 - result.false_negatives.nnz > 0
    assert pairs_of(result.added).isdisjoint(pairs_of(train))


def test_more_pairs_than_exist_takes_all_of_them(train: pl.DataFrame) -> None:
    result = run(train, ratio=100.0)
    assert result.added.height == N_USERS * N_ITEMS - train.height


def test_users_without_false_negative_and_items_out_of_reach_are_counted() -> None:
    train = pl.DataFrame({"user_id": [0, 1, 2], "item_id": [0, 4, 4]})
    table = pl.DataFrame([(0, 1, 0, 0.9), (0, 2, 1, 0.8)], schema=KNN, orient="row")
    config = TransportConfig(neighbours=2, ratio=0.67, epsilon=0.1)
    result = augment(train, {"text": table}, config, n_items=5)
    assert pairs_of(result.added) == {(0, 1), (0, 2)}
    assert result.diagnostics["n_users_without_false_negative"] == 2
    assert result.diagnostics["share_users_reached"] == pytest.approx(1 / 3)
    assert result.diagnostics["share_items_reached"] == pytest.approx(2 / 5)
    assert result.diagnostics["n_items"] == 5


def test_without_false_negatives_the_original_set_comes_back(train: pl.DataFrame) -> None:
    result = run(train, {"text": KNN.to_frame(), "image": KNN.to_frame()})
    assert result.added.height == 0
    assert result.added.schema == AUGMENTED
    assert pairs_of(result.interactions) == pairs_of(train)
    assert "no false negatives" in str(result.diagnostics["status"])


def test_one_missing_modality_leaves_the_other(train: pl.DataFrame) -> None:
    alone = run(train, {"text": GRAPHS["text"]}, evidence="similarity")
    with_empty = run(train, {"text": GRAPHS["text"], "image": KNN.to_frame()}, evidence="similarity")
    assert_frame_equal(alone.added, with_empty.added, check_exact=True)


def test_a_ratio_of_zero_adds_nothing(train: pl.DataFrame) -> None:
    result = run(train, ratio=0.0)
    assert result.added.height == 0
    assert result.false_negatives.nnz > 0


def test_deficit_gives_pairs_only_to_users_below_the_target(train: pl.DataFrame) -> None:
    result = run(train, user_marginal="deficit", target_activity=4.0)
    activity = np.bincount(train["user_id"].to_numpy(), minlength=N_USERS)
    assert (activity[result.added["user_id"].to_numpy()] < 4).all()


def test_stopping_early_is_warned_about_and_recorded(train: pl.DataFrame) -> None:
    with pytest.warns(NotConverged):
        result = run(train, epsilon=0.05, max_iterations=1)
    assert result.diagnostics["status"] == "not converged"
    assert float(result.diagnostics["marginal_error"]) > 1e-8
    assert result.added.height == 80


def test_diagnostics_can_be_recorded_as_they_are(train: pl.DataFrame) -> None:
    diagnostics = run(train).diagnostics
    assert all(type(value) in (int, float, str) for value in diagnostics.values())


@pytest.mark.parametrize(
    ("frame", "settings"),
    [
        (pl.DataFrame({"user": [0], "item_id": [0]}), {}),
        (pl.DataFrame({"user_id": [N_USERS], "item_id": [0]}), {}),
        (pl.DataFrame({"user_id": [0.5], "item_id": [0.0]}), {}),
        (pl.DataFrame({"user_id": [None], "item_id": [0]}, schema={"user_id": pl.Int32, "item_id": pl.Int32}), {}),
        (pl.DataFrame(schema={"user_id": pl.Int32, "item_id": pl.Int32}), {}),
        (pl.DataFrame({"user_id": [0], "item_id": [0]}), {"evidence": "similarity", "modality_weights": {"text": 1.0}}),
        (pl.DataFrame({"user_id": [0], "item_id": [0]}), {"user_mass": 1.0, "item_mass": 1.0}),
    ],
)
def test_wrong_input_is_refused(frame: pl.DataFrame, settings: dict[str, object]) -> None:
    with pytest.raises(InputError):
        run(frame, ratio=5.0, **settings)


def test_graphs_that_are_not_there_or_do_not_reach_the_items_are_refused(train: pl.DataFrame) -> None:
    with pytest.raises(InputError, match=r"item_graphs: expected at least one neighbour table, found none.*knn_table"):
        augment(train, {})
    beyond = pl.DataFrame({"user_id": [0], "item_id": [N_ITEMS]})
    with pytest.raises(InputError, match=rf"ids from 0 to {N_ITEMS - 1}.*found ids up to {N_ITEMS}.*pass n_items"):
        augment(beyond, GRAPHS)
    reached = augment(beyond, GRAPHS, TransportConfig(neighbours=6), n_items=N_ITEMS + 1)
    assert reached.diagnostics["n_items"] == N_ITEMS + 1


def test_a_deficit_that_nobody_has_is_refused() -> None:
    train = pl.DataFrame({"user_id": [0, 1], "item_id": [0, 1]})
    config = TransportConfig(user_marginal="deficit", target_activity=1.0, neighbours=6, ratio=0.5)
    with pytest.raises(InputError, match="Raise the target"):
        augment(train, GRAPHS, config)


@pytest.mark.parametrize(
    "settings", [{"epsilon": -1.0}, {"epsilon": float("nan")}, {"ratio": -0.1}, {"evidence": "x"}, {"epsilons": 1.0}]
)
def test_wrong_settings_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        TransportConfig.model_validate(settings)


def test_published_baby_split_gives_the_known_numbers(shared_data: Path) -> None:
    folder = shared_data / "mmrec" / "baby"
    table = pl.read_csv(folder / "baby.inter.gz", separator="\t").rename({"userID": "user_id", "itemID": "item_id"})
    graphs = {
        name: pl.read_parquet(folder / f"{name}_knn.parquet").select(
            "src", "dst", rank=pl.int_range(pl.len()).over("src").cast(pl.Int16), similarity="cosine"
        )
        for name in ("text", "image")
    }
    result = augment(table.filter(pl.col("x_label") == 0), graphs, n_users=19445, n_items=7050)
    assert result.diagnostics["n_false_negatives"] == 1_899_118
    assert result.diagnostics["q"] == result.added.height == 11_855
    assert result.diagnostics["status"] == "converged"
    held_out = table.filter(pl.col("x_label") > 0).select(pl.col("user_id", "item_id").cast(pl.Int32))
    share = result.added.join(held_out, on=["user_id", "item_id"], how="semi").height / result.added.height
    assert share == pytest.approx(0.006, abs=0.0005)
    assert result.diagnostics["mean_activity_of_users_reached"] == pytest.approx(3.2, abs=0.1)
