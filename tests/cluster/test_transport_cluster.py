"""Transport on a Ray cluster: the bytes of the same parts in one process, also where a node dies between iterations."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from recmodels.compute.base import Group
from recmodels.compute.local import LOCAL
from recmodels.compute.on_ray import OnRay
from recmodels.schemas.tables import KNN
from recmodels.transport.augment import Augmentation, augment
from recmodels.transport.config import TransportConfig
from recmodels.transport.sinkhorn import NotConverged

pytestmark = pytest.mark.slow

N_USERS, N_ITEMS = 2000, 300


class _Watched(Group):
    """A group that tells of every question before it is asked."""

    def __init__(self, group: Group, told: Callable[[str], None]) -> None:
        self._group, self._told = group, told

    def call(self, method: str, *arguments: Any, each: Sequence[Any] | None = None) -> list[Any]:
        self._told(method)
        return self._group.call(method, *arguments, each=each)

    def __exit__(self, *exception: object) -> None:
        self._group.__exit__(*exception)


class WatchedRay(OnRay):
    """Ray that tells what groups are asked."""

    def __init__(self, address: str, told: Callable[[str], None]) -> None:
        super().__init__(address)
        self._told = told

    def group(self, factory: Callable[[Any, Any], Any], parts: Any, *, shared: Any = None) -> Group:
        return _Watched(super().group(factory, parts, shared=shared), self._told)


def graph(seed: int) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    k = 6
    columns = {
        "src": np.repeat(np.arange(N_ITEMS), k),
        "dst": rng.integers(0, N_ITEMS, N_ITEMS * k),
        "rank": np.tile(np.arange(k), N_ITEMS),
        "similarity": rng.uniform(0.1, 1, N_ITEMS * k),
    }
    return pl.DataFrame(columns).cast(KNN)


def run(place: Any, **settings: Any) -> Augmentation:
    rng = np.random.default_rng(0)
    train = pl.DataFrame({"user_id": rng.integers(0, N_USERS, 6000), "item_id": rng.integers(0, N_ITEMS, 6000)})
    config = TransportConfig.model_validate({"neighbours": None, "max_iterations": 12, **settings})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotConverged)
        return augment(
            train,
            {"text": graph(1), "image": graph(2)},
            config,
            n_users=N_USERS,
            n_items=N_ITEMS,
            compute=place,
            entries_per_part=16_000,
        )


def check_same(found: Augmentation, expected: Augmentation) -> None:
    assert expected.diagnostics["n_parts"] == 5
    assert_frame_equal(found.added, expected.added, check_exact=True)
    assert found.diagnostics == expected.diagnostics
    assert (found.false_negatives != expected.false_negatives).nnz == 0


@pytest.mark.parametrize(
    "settings", [{"evidence": "collaborative"}, {"epsilon": 0.02}, {"relaxation": 0.5, "epsilon": 0.3, "ratio": 40.0}]
)
def test_parts_on_a_cluster_give_the_bytes_of_parts_here(cluster: Any, settings: dict[str, Any]) -> None:
    place = cluster.undisturbed()
    check_same(run(place, **settings), run(LOCAL, **settings))
    assert place.record()["repeated"] == 0
    assert place.record()["nodes"] == 3


def test_a_node_that_dies_between_two_iterations_changes_no_byte(cluster: Any) -> None:
    asked: list[str] = []

    def told(method: str) -> None:
        asked.append(method)
        if asked.count("columns") == 6 and method == "columns":
            cluster.kill_a_working_node()

    place = WatchedRay(cluster.address, told)
    found = run(place, epsilon=0.02)
    check_same(found, run(LOCAL, epsilon=0.02))
    assert asked.count("columns") == found.diagnostics["iterations"] > 6
    assert int(place.record()["repeated"]) >= 1
