"""A model from outside the package: this module defines one, and is registered as its module."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import Field
from torch import Tensor, nn

from recmodels.checkpoints.store import load_checkpoint, restore_model
from recmodels.errors import InputError
from recmodels.models import base
from recmodels.models.config import ModelConfig
from recmodels.models.inputs import TrainingData
from recmodels.models.layers.blocks import lookup, lookup_each
from recmodels.models.registry import MODELS, build_model, register_model, resolve_config
from recmodels.models.spec import ModelSpec
from recmodels.serving.recommender import Recommender
from recmodels.training.run import train_checkpoint


class Config(ModelConfig):
    initial_taste: float = Field(default=0.1, gt=0)
    """How much popularity counts before training."""


class Model(base.Model):
    """Popularity, that counts as much for each user as training finds."""

    config: Config

    def __init__(self, config: Config, data: TrainingData, generator: torch.Generator) -> None:
        super().__init__(config, data, generator)
        self.taste = nn.Parameter(torch.full((data.n_users, 1), config.initial_taste))
        counts = np.bincount(data.train_items, minlength=data.n_items)
        self.popularity = torch.from_numpy(np.log1p(counts).astype(np.float32))[:, None].to(self.device)

    def embeddings(self) -> tuple[Tensor, Tensor]:
        return self.taste, self.popularity

    def loss(self, batch: base.Batch) -> dict[str, Tensor]:
        positive, negative = lookup_each(self.popularity, batch.positives, batch.negatives)
        losses = self.ranking_losses(lookup(self.taste, batch.users), positive, negative, batch.barred)
        return {self.config.training.loss: losses.mean()}


SPEC = ModelSpec("taste", "Taste", "this test", __name__)


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    register_model(SPEC)
    yield
    del MODELS[SPEC.name]


@pytest.mark.parametrize("loss", ["bpr", "sampled_softmax"])
def test_it_is_trained_stored_loaded_and_recommends(loss: str, checkerboard, tmp_path: Path) -> None:
    config = resolve_config("taste", {"initial_taste": 0.5, "training": {"epochs": 3, "loss": loss}})
    data = checkerboard.data()
    tables = {"users": checkerboard.users, "items": checkerboard.items}
    result = train_checkpoint(tmp_path / "taste", "taste", config, data, seed=0, provenance={}, **tables)
    stored = load_checkpoint(tmp_path / "taste")
    assert stored.config == config == Config(initial_taste=0.5, training={"epochs": 3, "loss": loss})
    assert torch.equal(restore_model(stored, data).embeddings()[0], result.ranker.user_embeddings)
    shown = Recommender.load(tmp_path / "taste").recommend([3], 5, exclude_seen=False)["item_id"].to_list()
    counts = np.bincount(data.train_items, minlength=data.n_items)
    assert sorted(counts[shown].tolist(), reverse=True) == np.sort(counts)[::-1][:5].tolist()


def test_it_is_built_without_the_registry_just_as_well(checkerboard) -> None:
    data = checkerboard.data()
    direct = Model(Config(), data, torch.Generator().manual_seed(0))
    assert torch.equal(direct.embeddings()[0], build_model("taste", Config(), data, 0).embeddings()[0])


def test_a_name_that_is_taken_is_refused() -> None:
    with pytest.raises(InputError, match="'taste', which is taken"):
        register_model(SPEC)


@pytest.mark.parametrize("first", ["recmodels.models.registry", "announced_model"])
def test_what_an_installed_package_announces_is_there_in_any_order_of_imports(first: str, tmp_path: Path) -> None:
    module = 'from recmodels.models.spec import ModelSpec\nSPEC = ModelSpec("announced", "A", "B", "announced_model")\n'
    (tmp_path / "announced_model.py").write_text(module)
    (tmp_path / "announced-1.dist-info").mkdir()
    (tmp_path / "announced-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: announced\nVersion: 1\n")
    (tmp_path / "announced-1.dist-info" / "entry_points.txt").write_text(
        "[recmodels.models]\nannounced = announced_model:SPEC\n"
    )
    program = f"import {first}; from recmodels.models.registry import MODELS; print(list(MODELS)[-1])"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "announced\n"
