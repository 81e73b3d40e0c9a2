"""The demo dump is a real dump: exact formats, the usual defects, and tastes that show in every modality."""

import ast
import gzip
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recmodels.catalogue.entries import load_catalogue
from recmodels.data.checks import fewest_interactions
from recmodels.data.dump import load_dump, read_image_embeddings
from recmodels.data.raw_files import prepare_raw_files
from recmodels.raw.demo import IMAGE_FEATURES_NAME, METADATA_NAME, REVIEWS_NAME, write_demo_dump
from recmodels.raw.formats.image_features import RECORD_BYTES


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    write_demo_dump(folder)
    return folder


def unpacked(path: Path) -> str:
    return gzip.decompress(path.read_bytes()).decode("ascii")


def test_equal_seeds_give_equal_bytes_and_others_do_not(folder: Path, tmp_path: Path) -> None:
    write_demo_dump(tmp_path / "again")
    write_demo_dump(tmp_path / "other", seed=1)
    for name in (REVIEWS_NAME, METADATA_NAME, IMAGE_FEATURES_NAME):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()
        assert (tmp_path / "other" / name).read_bytes() != (folder / name).read_bytes()


def test_the_files_are_in_the_formats_of_2014(folder: Path) -> None:
    reviews = [json.loads(line) for line in unpacked(folder / REVIEWS_NAME).splitlines()]
    assert set().union(*reviews) == {
        "reviewerID", "asin", "reviewerName", "helpful", "reviewText", "overall", "summary", "unixReviewTime",
        "reviewTime",
    }  # fmt: skip
    lines = unpacked(folder / METADATA_NAME).splitlines()
    records = [ast.literal_eval(line) for line in lines]
    assert set().union(*records) == {
        "asin", "related", "title", "price", "salesRank", "imUrl", "brand", "categories", "description",
    }  # fmt: skip
    with pytest.raises(json.JSONDecodeError):
        json.loads(lines[0])
    assert (folder / IMAGE_FEATURES_NAME).stat().st_size % RECORD_BYTES == 0


def test_600_users_and_300_items_survive_the_5_core_and_the_defects_are_there(folder: Path) -> None:
    entry = load_catalogue()["demo"]
    manifest = prepare_raw_files(entry, folder)
    dump = load_dump(manifest, entry)
    assert (dump.users.height, dump.items.height) == (600, 300)
    assert min(fewest_interactions(dump.interactions).values()) >= 5
    assert dump.rejects.is_empty()
    for defect in ("repeated_rows", "repeated_pairs", "below_core", "metadata_duplicates", "metadata_unwanted"):
        assert dump.counts[defect] > 0
    for column in ("description", "brand"):
        assert 0 < (dump.items[column] == "").sum() < 150
    assert dump.items["price"].null_count() > 0
    assert 200 < read_image_embeddings(manifest, dump.items)["present"].sum() < 300
    raw = unpacked(folder / METADATA_NAME) + unpacked(folder / REVIEWS_NAME)
    assert "&amp;" in raw
    assert "&#34;" in raw
    texts = pl.concat([dump.items["title"], dump.items["description"], dump.reviews["text"], dump.reviews["summary"]])
    assert not texts.str.contains(r"&\w+;|&#\d+;|<\w|[{}]").any()


def test_what_a_user_bought_looks_and_reads_alike(folder: Path) -> None:
    entry = load_catalogue()["demo"]
    manifest = prepare_raw_files(entry, folder)
    dump = load_dump(manifest, entry)
    images = read_image_embeddings(manifest, dump.items)["embedding"].to_numpy()
    images = images - images.mean(axis=0)
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    alike = images @ images.T
    pairs = dump.interactions.select("user_id", "item_id")
    together = pairs.join(pairs, on="user_id").filter(pl.col("item_id") < pl.col("item_id_right"))
    of_one_user = alike[together["item_id"].to_numpy(), together["item_id_right"].to_numpy()]
    of_any = alike[np.triu_indices(len(alike), k=1)]
    assert of_one_user.mean() > of_any.mean() + 0.1
    category = dump.items.select("item_id", category=pl.col("categories").list.get(1, null_on_oob=True)).drop_nulls()
    shared = together.join(category, on="item_id").join(category, left_on="item_id_right", right_on="item_id")
    assert (shared["category"] == shared["category_right"]).mean() > 3 * (1 / 12)


@pytest.mark.parametrize(("n_users", "n_items"), [(40, 30), (200, 60)])
def test_other_sizes_work(tmp_path: Path, n_users: int, n_items: int) -> None:
    write_demo_dump(tmp_path, n_users=n_users, n_items=n_items)
    entry = load_catalogue()["demo"]
    dump = load_dump(prepare_raw_files(entry, tmp_path), entry)
    assert (dump.users.height, dump.items.height) == (n_users, n_items)
