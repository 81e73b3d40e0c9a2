"""The batch follows the number of training pairs where nobody names it, and only there."""

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recmodels.catalogue.entries import load_catalogue
from recmodels.checkpoints.store import load_checkpoint
from recmodels.evaluation.evaluator import recall_at
from recmodels.models.config import FEWEST_STEPS, SMALLEST_BATCH, AnyConfig, TrainingConfig
from recmodels.models.inputs import TrainingData
from recmodels.models.registry import MODELS, build_model, resolve_config
from recmodels.models.zoo import lightgcn, recgoat
from recmodels.settings import training_config, training_settings
from recmodels.training.run import train_checkpoint
from recmodels.training.trainer import fit

PUBLISHED = [entry for entry in load_catalogue().values() if entry.published]


@given(n_pairs=st.integers(1, 60_000))
def test_it_is_the_largest_power_of_two_of_which_the_pairs_fill_ten(n_pairs: int) -> None:
    found = AnyConfig().batch_size_for(n_pairs)
    sizes = [2**power for power in range(12)]
    filled = [size for size in sizes if n_pairs // size >= FEWEST_STEPS]
    assert found == max([SMALLEST_BATCH, *filled])
    if n_pairs >= FEWEST_STEPS * SMALLEST_BATCH:
        assert math.ceil(n_pairs / found) >= FEWEST_STEPS


@pytest.mark.parametrize("entry", PUBLISHED, ids=[entry.key for entry in PUBLISHED])
@pytest.mark.parametrize("model", MODELS)
def test_the_published_data_sets_are_trained_as_published(entry, model: str) -> None:
    config = training_config(entry, model)
    assert config.batch_size_for(entry.published.train) == type(config)().training.batch_size


@pytest.mark.parametrize(
    "config",
    [
        lightgcn.Config(training=TrainingConfig(batch_size=2048)),
        resolve_config("lightgcn", {"training": {"batch_size": 2048}}),
        resolve_config("lightgcn", {"training": {"batch_size": 2048}}, {"training": {"epochs": 3}}),
    ],
    ids=["directly", "in a layer", "in a layer below another"],
)
def test_a_batch_size_that_is_named_is_kept(config) -> None:
    assert config.batch_size_for(100) == 2048


@pytest.mark.parametrize(
    "config", [recgoat.Config(), resolve_config("recgoat", {"training": {"epochs": 3}})], ids=["directly", "resolved"]
)
def test_a_models_own_default_counts_as_named_by_nobody(config) -> None:
    assert config.batch_size_for(50_000) == 4096
    assert config.batch_size_for(10_000) == 512


def test_the_demo_keeps_what_its_entry_names() -> None:
    assert training_config(load_catalogue()["demo"], "bpr").batch_size_for(300) == 256


def test_training_takes_the_fitting_batch_and_stores_it(checkerboard, tmp_path: Path) -> None:
    data = checkerboard.data()
    n = data.train_users.size
    config = resolve_config("bpr", {"training": {"epochs": 2, "device": "cpu"}})
    facts = {"users": checkerboard.users, "items": checkerboard.items, "provenance": {}}
    result = train_checkpoint(tmp_path / "bpr", "bpr", config, data, seed=0, **facts)
    stored = load_checkpoint(tmp_path / "bpr")
    batch = stored.provenance["training"]["batch_size"]
    assert batch == 2 ** int(math.log2(n / 10))
    assert result.n_steps == stored.provenance["training"]["steps"] == 2 * math.ceil(n / batch)
    assert stored.config == config
    named = resolve_config("bpr", {"training": {"epochs": 2, "device": "cpu", "batch_size": batch}})
    same = fit(build_model("bpr", named, data, 0), data, seed=0)
    assert torch.equal(same.ranker.user_embeddings, stored.ranker.user_embeddings)


def test_naming_the_models_own_batch_size_is_another_setting_than_leaving_it() -> None:
    entry = load_catalogue()["baby"]
    left, named = training_settings(entry, "bpr"), training_settings(entry, "bpr", {"training": {"batch_size": 2048}})
    assert left.digest != named.digest
    assert left.changes_since(named.values)
    assert named.changes_since(left.values)
    other = training_settings(entry, "bpr", {"training": {"batch_size": 64}})
    assert other.changes_since(left.values) == ["training.batch_size 2048 -> 64"]


def test_what_was_recorded_of_an_unnamed_batch_size_is_still_the_same() -> None:
    recorded = training_settings(load_catalogue()["baby"], "bpr")
    assert recorded.values["training.batch_size"] == 2048
    assert set(recorded.values) == {
        *(f"training.{name}" for name in TrainingConfig.model_fields if name != "shards"),
        *(type(resolve_config("bpr")).model_fields.keys() - {"training"}),
    }


def test_with_few_items_the_epoch_is_chosen_by_a_list_that_does_not_hold_them_all(checkerboard) -> None:
    few = checkerboard.data()
    kept, kept_valid = few.train_items < 12, few.valid_items < 12
    data = TrainingData(
        n_users=few.n_users,
        n_items=12,
        train_users=few.train_users[kept],
        train_items=few.train_items[kept],
        valid_users=few.valid_users[kept_valid],
        valid_items=few.valid_items[kept_valid],
    )
    config = resolve_config("bpr", {"training": {"epochs": 3, "device": "cpu"}})
    model = build_model("bpr", config, data, 0)
    result = fit(model, data, seed=0)
    everything, half = (recall_at(result.ranker, data.train_matrix(), data.valid_matrix(), k) for k in (12, 6))
    assert everything == 1
    assert result.best_valid_recall == half < 1
