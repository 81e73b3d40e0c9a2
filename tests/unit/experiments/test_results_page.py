"""The page of results is drawn from its files alone, and a new result says what it was made from."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from experiments import results
from experiments.render import FIGURES, rendered
from experiments.rows import PUBLISHED, ROWS
from recmodels.data.split import split_digest
from recmodels.graphs.knn import knn_table
from recmodels.io.digest import frame_digest
from recmodels.models.registry import resolve_config
from recmodels.schemas.tables import INTERACTIONS


def test_the_page_is_what_its_files_give() -> None:
    found = rendered(results.read(results.RESULTS), results.read(results.COMPARISONS))
    assert found == results.PAGE.read_text(), "run experiments/results.py"


def test_every_row_is_one_of_a_model_with_settings_that_it_has() -> None:
    for key, row in ROWS.rows.items():
        if row.model:
            resolve_config(row.model, row.settings)
        assert any(key in of_dataset.rows for of_dataset in ROWS.data_sets.values())
    for name, published in PUBLISHED.items():
        assert published.keys() <= set(ROWS.data_sets[name].rows)
        assert all(figures.keys() <= set(FIGURES) for figures in published.values())


def test_a_result_records_what_it_was_made_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "shared" / "mmrec" / "baby"
    folder.mkdir(parents=True)
    split = [0, 0, 0, 0, 1, 2]
    pairs = [(user, (user % 2 + 2 * user // 3 + 2 * rank) % 20, split[rank]) for user in range(30) for rank in range(6)]
    lines = ["userID\titemID\tx_label", *("\t".join(map(str, pair)) for pair in pairs)]
    (folder / "baby.inter").write_text("\n".join(lines) + "\n")
    (folder / "items.tsv").write_text("itemID\ttitle\n" + "".join(f"{item}\titem {item}\n" for item in range(20)))
    neighbours = knn_table(np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32), 10)
    for name in ("text_knn", "image_knn"):
        neighbours.rename({"similarity": "cosine"}).write_parquet(folder / f"{name}.parquet")
    monkeypatch.setenv("RECMODELS_SHARED_DATA", str(tmp_path / "shared"))
    monkeypatch.setenv("RECMODELS_DATA", str(tmp_path / "data"))
    for name, file in (("RESULTS", "results.json"), ("COMPARISONS", "comparisons.json"), ("PAGE", "results.md")):
        monkeypatch.setattr(results, name, tmp_path / file)
    monkeypatch.setattr(results, "commit", lambda: "0" * 40)

    results.run(["baby/popularity", "baby/freedom/0", "baby/blast-fn/0", "baby/blast-user/0"])

    found = json.loads((tmp_path / "results.json").read_text())
    assert found.keys() == {"baby/popularity/0", "baby/freedom/0", "baby/blast-fn/0", "baby/blast-user/0"}
    labels = {0: "train", 1: "valid", 2: "test"}
    rows = [(user, item, None, None, labels[label]) for user, item, label in pairs]
    expected = split_digest(pl.DataFrame(rows, schema=INTERACTIONS, orient="row").sort("user_id", "item_id"))
    for result in found.values():
        assert result["commit"] == "0" * 40
        assert result["split_digest"] == expected
        assert len(result["dataset_digest"]) == 32
    assert found["baby/freedom/0"]["read"].keys() == {"item_image_knn", "item_text_knn"}
    assert set(found["baby/freedom/0"]["read"].values()) == {frame_digest(neighbours)}
    assert "augmented_interactions" in found["baby/blast-fn/0"]["read"]
    assert {"user_knn", "user_text_embeddings"} < found["baby/blast-user/0"]["read"].keys()
    compared = json.loads((tmp_path / "comparisons.json").read_text())
    assert compared.keys() == {"baby/blast-fn/freedom", "baby/blast-user/freedom"}
    assert "| Popularity | 1 |" in (tmp_path / "results.md").read_text()
