"""The whole graph on a cluster has the data versions of the whole graph in one process."""

from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from graph_runs import data_versions, failure_texts, runner

from assets.support.resources import DataRoot
from pipelines.jobs import assets_of_models
from recmodels.compute.engines import ADDRESS_VARIABLE, ENGINE_VARIABLE
from recmodels.raw.demo import write_demo_dump

pytestmark = pytest.mark.slow


def _made(folder: Path, dataset: str, raw: Path, models: list[str]) -> tuple[dict[str, str], set[str]]:
    """Return the data version of every asset from raw files to recommendations, and which say where they were made."""
    (folder / "home").mkdir(parents=True)
    with dg.DagsterInstance.local_temp(str(folder / "home")) as instance:
        run = runner(DataRoot(path=str(folder / "data")), instance)
        results = [
            run("prepare", dataset, config={"raw_dumps": {"config": {"raw_dir": str(raw)}}}),
            run("train", {"dataset": dataset, "seed": "0"}, assets=assets_of_models(models)),
            run("evaluate", dataset),
        ]
        assert all(result.success for result in results), [failure_texts(result) for result in results]
        versions = {name: version for result in results for name, version in data_versions(result).items()}
        placed = {
            event.asset_key.to_user_string()
            for result in results
            for event in result.get_asset_materialization_events()
            if "compute" in event.materialization.metadata
        }
        return versions, placed


def _made_twice(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dataset: str, raw: Path, models: list[str]
) -> tuple[dict[str, str], set[str]]:
    local, placed = _made(tmp_path / "local", dataset, raw, models)
    assert placed == set()
    monkeypatch.setenv(ENGINE_VARIABLE, "ray")
    monkeypatch.setenv(ADDRESS_VARIABLE, cluster.address)
    distributed, placed = _made(tmp_path / "distributed", dataset, raw, models)
    assert distributed == local
    return distributed, placed


def test_the_demo_has_the_same_data_versions_on_a_cluster(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_demo_dump(tmp_path / "raw", n_users=60, n_items=40)
    (tmp_path / "catalogue.toml").write_text("demo.sources.amazon2014.k_core = 2\ndemo.training.epochs = 2\n")
    monkeypatch.setenv("RECMODELS_CATALOGUE", str(tmp_path / "catalogue.toml"))
    made, placed = _made_twice(cluster, tmp_path, monkeypatch, "demo", tmp_path / "raw", ["lightgcn", "blast"])
    assert {"recommendations/blast", "item_text_knn", "user_text_embeddings"} <= made.keys()
    graphs = {"item_text_knn", "item_image_knn", "user_knn"}
    assert graphs | {"item_text_embeddings", "user_text_embeddings", "augmented_interactions"} <= placed
    assert {"interactions", "metrics/blast", "recommendations/blast"} <= placed


def test_gift_cards_has_the_same_data_versions_on_a_cluster(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared_data: Path
) -> None:
    (tmp_path / "catalogue.toml").write_text("gift_cards.training.epochs = 2\n")
    monkeypatch.setenv("RECMODELS_CATALOGUE", str(tmp_path / "catalogue.toml"))
    raw = shared_data / "raw" / "gift_cards"
    made, _ = _made_twice(cluster, tmp_path, monkeypatch, "gift_cards", raw, ["lightgcn"])
    assert {"recommendations/lightgcn", "item_profiles", "user_knn"} <= made.keys()
