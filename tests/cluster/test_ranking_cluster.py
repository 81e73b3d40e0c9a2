"""Test metrics and recommendations on a cluster come out as in one process, also where a node dies meanwhile."""

from collections.abc import Callable, Iterator
from threading import Thread
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from recmodels.checkpoints.store import Checkpoint
from recmodels.compute.base import Compute
from recmodels.compute.local import LOCAL
from recmodels.evaluation.evaluator import evaluate
from recmodels.graphs.co_occurrence import cosines_of_columns
from recmodels.graphs.matrices import interaction_matrix
from recmodels.models.registry import resolve_config
from recmodels.ranking import blocks
from recmodels.ranking.calibrated import CalibratedRanker, Evidence
from recmodels.ranking.ranker import EmbeddingScorer
from recmodels.serving.recommender import Recommender

pytestmark = pytest.mark.slow

N_USERS, N_ITEMS, N_BLOCKS = 3_072, blocks.WHOLE_ITEMS + 5_000, 12
"""So many items that they are cut as well."""


@pytest.fixture(scope="module")
def stages() -> Iterator[dict[str, Callable[[Compute], list[pl.DataFrame]]]]:
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    base = EmbeddingScorer(*(torch.randn(n, 64, generator=generator) for n in (N_USERS, N_ITEMS)))
    train, held_out = ((rng.integers(N_USERS, size=n), rng.zipf(1.2, n) % N_ITEMS) for n in (40_000, 30_000))
    # Every user has both, so that every user is ranked for.
    train, held_out = (
        (np.append(np.arange(N_USERS), users), np.append(items[:N_USERS], items)) for users, items in (train, held_out)
    )
    history = interaction_matrix(*train, N_USERS, N_ITEMS)
    calibrated = CalibratedRanker(base, history, [Evidence("co_users", cosines_of_columns(history), 0.5)], 100)
    names = [
        pl.DataFrame({id_: np.arange(n), name: [f"{name} {row}" for row in range(n)]}, schema_overrides={id_: pl.Int32})
        for id_, name, n in (("user_id", "reviewer_id", N_USERS), ("item_id", "asin", N_ITEMS))
    ]
    seen = pl.DataFrame({"user_id": train[0], "item_id": train[1], "split": "train"})
    served = Recommender(Checkpoint("bpr", resolve_config("bpr"), 0, {}, calibrated, pl.DataFrame(), {}, *names, seen))

    def metrics(compute: Compute) -> list[pl.DataFrame]:
        result = evaluate(base, train, held_out, compute=compute)
        return [result.summary, result.per_user, result.groups]

    def recommendations(compute: Compute) -> list[pl.DataFrame]:
        return [served.recommend(np.arange(N_USERS), 20, compute=compute)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "_MOST_USERS", N_USERS // N_BLOCKS)
        yield {"metrics": metrics, "recommendations": recommendations}


@pytest.mark.parametrize("stage", ["metrics", "recommendations"])
def test_users_ranked_on_a_cluster_have_the_same_bytes_calm_and_with_a_node_that_dies(
    stage: str,
    stages: dict[str, Callable[[Compute], list[pl.DataFrame]]],
    cluster: Any,
    kill_one_node_after: Callable[[], Thread],
) -> None:
    local = [frame.serialize() for frame in stages[stage](LOCAL)]
    calm = cluster.compute()
    assert [frame.serialize() for frame in stages[stage](calm)] == local
    assert calm.record()["blocks"] == N_BLOCKS
    disturbed = cluster.compute()
    kill_one_node_after()
    assert [frame.serialize() for frame in stages[stage](disturbed)] == local
    assert int(disturbed.record()["repeated"]) >= 1
