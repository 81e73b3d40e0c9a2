"""A data set of any size is measured with every figure defined, or refused in one line before anything is trained."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recmodels.catalogue.entries import DatasetEntry, Source, SplitStrategy
from recmodels.data.prepare import Prepared, prepare_tables
from recmodels.data.raw_files import prepare_raw_files
from recmodels.errors import InputError
from recmodels.evaluation.evaluator import evaluate
from recmodels.models.inputs import training_data
from recmodels.models.registry import resolve_config
from recmodels.raw.formats.base import Role
from recmodels.schemas.results import LIST_LENGTHS, SYSTEM_METRICS, TOP_N, USER_METRICS
from recmodels.schemas.tables import problem_of
from recmodels.serving.recommender import Recommender
from recmodels.training.run import train_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore:.* training pairs are left out of the loss")

SETTINGS = {"bpr": {"embedding_size": 4, "training": {"epochs": 1, "device": "cpu"}}, "itemknn": {}}


def written(folder: Path, pairs: list[tuple[int, int]], *, metadata: bool, split: SplitStrategy) -> Prepared:
    records = [
        {"reviewerID": f"U{user}", "asin": f"B{item:09}", "overall": 5.0, "unixReviewTime": 10**9 + time // 2}
        for time, (user, item) in enumerate(pairs)
    ]
    (folder / "reviews.json").write_text("".join(json.dumps(record) + "\n" for record in records))
    files = {Role.REVIEWS: "reviews.json"}
    if metadata:
        items = sorted({f"B{item:09}" for _, item in pairs})
        (folder / "meta.json").write_text("".join(repr({"asin": asin, "title": "one"}) + "\n" for asin in items))
        files[Role.METADATA] = "meta.json"
    source = Source(files=files, k_core=1, split=split)
    entry = DatasetEntry(key="small", title="Small", domain="things", sources={"amazon2014": source})
    return prepare_tables(prepare_raw_files(entry, folder), entry)


def refused_or_written(folder: Path, pairs: list[tuple[int, int]], **options: Any) -> Prepared | str:
    try:
        return written(folder, pairs, **options)
    except InputError as refused:
        return str(refused)


def _pairs(interactions: pl.DataFrame, split: str) -> tuple[np.ndarray, np.ndarray]:
    rows = interactions.filter(pl.col("split") == split).cast({"user_id": pl.Int64, "item_id": pl.Int64})
    return rows["user_id"].to_numpy(), rows["item_id"].to_numpy()


def check_all(folder: Path, prepared: Prepared) -> None:
    """Train, evaluate and recommend; every figure has to be defined and every table sound."""
    dump, interactions = prepared.dump, prepared.interactions
    n_users, n_items = dump.users.height, dump.items.height
    data = training_data(interactions.filter(pl.col("split") != "test"), n_users=n_users, n_items=n_items)
    for model, overrides in SETTINGS.items():
        directory = folder / model
        train_checkpoint(
            directory,
            model,
            resolve_config(model, overrides),
            data,
            seed=0,
            users=dump.users,
            items=dump.items,
            provenance={},
        )
        recommender = Recommender.load(directory)
        result = evaluate(recommender.checkpoint.ranker, _pairs(interactions, "train"), _pairs(interactions, "test"))
        figures = {(metric, k): value for metric, k, value in result.summary.iter_rows()}
        assert figures.keys() == {(name, k) for name in USER_METRICS + SYSTEM_METRICS for k in LIST_LENGTHS}
        assert np.isfinite(list(figures.values())).all()
        assert all(0 <= figures[name, k] <= 1 + 1e-9 for name, k in figures if name != "novelty")
        if n_items <= min(LIST_LENGTHS):
            assert figures["recall", 10] == figures["recall", 20] == pytest.approx(1)
        lists = recommender.recommend(dump.users["user_id"].to_numpy(), TOP_N)
        tables = {"interactions": interactions, "item_ids": dump.items, "users": dump.users}
        assert problem_of("recommendations", lists, tables) == ""
        had = interactions.filter(pl.col("split") != "test").group_by("user_id").len()
        expected = {user: min(TOP_N, n_items) for user in range(n_users)}
        expected |= {user: min(TOP_N, n_items - n) for user, n in had.iter_rows()}
        found = dict(lists.group_by("user_id").len().iter_rows())
        assert found == {user: n for user, n in expected.items() if n}


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(
    n_users=st.integers(1, 50),
    n_items=st.integers(1, 50),
    density=st.floats(0.01, 1),
    metadata=st.booleans(),
    split=st.sampled_from(["random", "temporal", "leave_last_out", "published"]),
    seed=st.integers(0, 99),
)
def test_it_is_measured_or_refused_before_training(
    tmp_path_factory: pytest.TempPathFactory,
    n_users: int,
    n_items: int,
    density: float,
    metadata: bool,
    split: SplitStrategy,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    cells = np.argwhere(rng.random((n_users, n_items)) < density)
    pairs = [(int(user), int(item)) for user, item in rng.permutation(cells)] or [(0, 0)]
    folder = tmp_path_factory.mktemp("any_size")
    prepared = refused_or_written(folder, pairs, metadata=metadata, split=split)
    if isinstance(prepared, str):
        assert "\n" not in prepared
    else:
        check_all(folder, prepared)


@pytest.mark.parametrize("n_items", [3, 8, 10, 19, 20])
def test_lists_are_as_long_as_there_are_items(tmp_path: Path, n_items: int) -> None:
    pairs = [(user, item) for user in range(9) for item in range(n_items) if user == 0 or (user + item) % 4]
    check_all(tmp_path, written(tmp_path, pairs, metadata=False, split="random"))


def test_a_user_who_had_every_item_is_no_failure(tmp_path: Path) -> None:
    pairs = [(0, item) for item in range(9)] + [(user, (user + i) % 9) for user in range(1, 12) for i in range(4)]
    prepared = written(tmp_path, pairs, metadata=True, split="temporal")
    seen = prepared.interactions.filter(pl.col("split") != "test").group_by("user_id").len()["len"].max()
    assert seen == prepared.dump.items.height
    check_all(tmp_path, prepared)
