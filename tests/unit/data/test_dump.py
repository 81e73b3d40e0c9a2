"""From raw files to tables, for every form a data set comes in."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from recmodels.catalogue.entries import DatasetEntry, Source, load_catalogue
from recmodels.data.checks import differences, fewest_interactions, sizes
from recmodels.data.dump import Dump, load_dump, read_image_embeddings, read_imported_knn, read_text_features
from recmodels.data.raw_files import prepare_raw_files
from recmodels.data.split import split_interactions, without_training
from recmodels.errors import InputError
from recmodels.raw.formats.base import Role
from recmodels.schemas.tables import KNN, problem_of

TABLES = ("items", "users", "reviews", "interactions")


def entry_of(k_core: int = 1, *, metadata: bool = True) -> DatasetEntry:
    files = {Role.REVIEWS: "reviews.json"} | ({Role.METADATA: "meta.json"} if metadata else {})
    return DatasetEntry(
        key="small", title="Small", domain="things", sources={"amazon2014": Source(files=files, k_core=k_core)}
    )


def review(user: str, item: str, time: int = 10**9, **more: Any) -> dict[str, Any]:
    return {"reviewerID": user, "asin": f"B00000000{item}", "overall": 5.0, "unixReviewTime": time, **more}


def load(folder: Path, reviews: list[dict[str, Any]], metadata: list[dict[str, Any]], k_core: int = 1) -> Dump:
    (folder / "reviews.json").write_text("".join(json.dumps(record) + "\n" for record in reviews))
    (folder / "meta.json").write_text("".join(repr(record) + "\n" for record in metadata) or "{}\n")
    entry = entry_of(k_core)
    return load_dump(prepare_raw_files(entry, folder), entry)


def test_ids_follow_the_sorted_names(tmp_path: Path) -> None:
    metadata = [{"asin": "B000000002", "title": "two"}]
    dump = load(tmp_path, [review("Z", "2"), review("A", "9"), review("A", "2"), review("M", "1")], metadata)
    assert dump.users.rows() == [(0, "A"), (1, "M"), (2, "Z")]
    assert dump.items["asin"].to_list() == ["B000000001", "B000000002", "B000000009"]
    assert dump.items["title"].to_list() == ["", "two", ""]
    assert dump.interactions.select("user_id", "item_id").rows() == [(0, 1), (0, 2), (1, 0), (2, 1)]
    assert dump.counts["items_without_metadata"] == dump.counts["items_without_text"] == 2


def test_repeated_rows_and_pairs_are_counted_and_the_earliest_is_kept(tmp_path: Path) -> None:
    rows = [
        review("A", "1", 3 * 10**8 * 4, summary="later"),
        review("A", "1", 10**9, summary="same time, other text"),
        review("A", "1", 10**9, summary="first by text"),
        review("A", "2"),
    ]
    dumps = [load(tmp_path, order, []) for order in (rows, rows[::-1])]
    for dump in dumps:
        assert dump.counts["repeated_rows"] == dump.counts["repeated_pairs"] == 1
        assert dump.reviews.select("timestamp", "summary").row(0) == (10**9, "first by text")
        assert not dump.interactions.select("user_id", "item_id").is_duplicated().any()
    assert_frame_equal(dumps[0].reviews, dumps[1].reviews)


def test_the_k_core_counts_pairs_and_holds(tmp_path: Path) -> None:
    block = [review(user, item) for user in "ABC" for item in "123"]
    loose = [review("D", "1"), review("D", "1", 10**9 + 1), review("D", "4"), review("A", "4")]
    dump = load(tmp_path, block + loose, [], k_core=3)
    assert dump.users["reviewer_id"].to_list() == ["A", "B", "C"]
    assert fewest_interactions(dump.interactions) == {"user": 3, "item": 3}
    assert dump.counts["below_core"] == 3


def test_an_empty_core_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"at least 5 interactions, found none among 1 .*Lower k_core"):
        load(tmp_path, [review("A", "1")], [], k_core=5)


pairs = st.lists(
    st.tuples(st.sampled_from("ABCD"), st.sampled_from("1234"), st.integers(0, 2), st.sampled_from(["", "x", "y"])),
    min_size=1,
    max_size=30,
)


@settings(max_examples=40, deadline=None)
@given(pairs, st.randoms())
def test_the_order_of_the_lines_does_not_matter(tmp_path_factory, pairs, random) -> None:
    rows = [review(user, item, 10**9 + time, reviewText=text) for user, item, time, text in pairs]
    metadata = [{"asin": f"B00000000{item}", "title": text} for _, item, _, text in pairs]
    first = load(tmp_path_factory.mktemp("a"), rows, metadata)
    random.shuffle(rows)
    random.shuffle(metadata)
    second = load(tmp_path_factory.mktemp("b"), rows, metadata)
    for table in TABLES:
        assert_frame_equal(getattr(first, table), getattr(second, table))
    assert first.counts == second.counts
    kept = first.counts["interactions"]
    assert len(rows) == kept + first.counts["repeated_rows"] + first.counts["repeated_pairs"]


def check_tables(dump: Dump) -> None:
    split = split_interactions(dump.interactions, "random") if dump.interactions["split"].null_count() else None
    tables = {
        "items": dump.items,
        "item_ids": dump.items.select("item_id", "asin"),
        "users": dump.users,
        "reviews": dump.reviews,
        "rejects": dump.rejects,
        "interactions": dump.interactions if split is None else split,
    }
    assert {name: problem_of(name, table, tables) for name, table in tables.items()} == dict.fromkeys(tables, "")


def test_the_gift_cards_load_from_their_raw_dump(shared_data: Path) -> None:
    entry = load_catalogue()["gift_cards"]
    dump = load_dump(prepare_raw_files(entry, shared_data / "raw" / "gift_cards"), entry)
    check_tables(dump)
    assert (dump.users.height, dump.items.height, dump.interactions.height) == (458, 148, 2965)
    assert (dump.counts["review_lines"], dump.counts["repeated_rows"], dump.counts["repeated_pairs"]) == (2972, 3, 4)
    assert (dump.counts["metadata_lines"], dump.counts["items_without_metadata"]) == (1547, 0)
    assert dump.rejects.is_empty()
    assert dump.reviews.height == dump.interactions.height
    split = split_interactions(dump.interactions, "random")
    assert len(without_training(split, 458, 148)[0]) == 0


def test_the_sample_of_2014_loads_without_metadata(shared_data: Path) -> None:
    files = {Role.REVIEWS: "reviews_2014_sample.json"}
    entry = DatasetEntry(
        key="sample", title="Sample", domain="music", sources={"amazon2014": Source(files=files, k_core=1)}
    )
    dump = load_dump(prepare_raw_files(entry, shared_data / "raw" / "samples"), entry)
    check_tables(dump)
    assert dump.interactions.height == 50
    assert dump.counts["items_without_text"] == dump.items.height


@pytest.mark.parametrize("key", ["baby", "sports", "clothing"])
def test_the_published_data_sets_load_with_their_published_counts(shared_data: Path, key: str) -> None:
    entry = load_catalogue()[key]
    manifest = prepare_raw_files(entry, shared_data / "mmrec" / key)
    assert manifest.format == "mmrec"
    dump = load_dump(manifest, entry)
    check_tables(dump)
    split = split_interactions(dump.interactions, entry.sources["mmrec"].split)
    assert entry.published is not None
    assert differences(sizes(split, dump.users.height, dump.items.height), entry.published) == {}
    assert dump.reviews.is_empty()
    assert dump.rejects.is_empty()
    assert fewest_interactions(dump.interactions)["user"] >= 5
    assert read_image_embeddings(manifest, dump.items).is_empty()
    assert read_text_features(manifest, dump.items).is_empty()
    for role in (Role.IMAGE_KNN, Role.TEXT_KNN):
        neighbours = read_imported_knn(manifest, role, dump.items)
        assert neighbours.height == (0 if key == "clothing" else 10 * dump.items.height)
        assert neighbours.is_empty() or neighbours["rank"].max() == 9


def test_published_texts_and_neighbours_are_those_of_the_files(shared_data: Path) -> None:
    entry = load_catalogue()["baby"]
    manifest = prepare_raw_files(entry, shared_data / "mmrec" / "baby")
    dump = load_dump(manifest, entry)
    assert dump.items["title"][0] == "Baby Tracker® - Daily Childcare Journal, Schedule Log"
    assert (dump.items["title"] != "").sum() == 3416
    assert dump.counts["items_without_text"] == 7050 - 3416
    stored = pl.read_parquet(shared_data / "mmrec" / "baby" / "image_knn.parquet")
    ours = read_imported_knn(manifest, Role.IMAGE_KNN, dump.items)
    assert ours.select("src", "dst").equals(stored.select("src", "dst"))


def import_folder(folder: Path, inter: str, items: str) -> tuple[DatasetEntry, Path]:
    (folder / "x.inter.gz").write_bytes(gzip.compress(inter.encode()))
    (folder / "items.tsv").write_text(items)
    files = {
        Role.INTERACTIONS: "x.inter",
        Role.ITEMS: "items.tsv.gz",
        Role.IMAGE_FEATURES: "image.npy",
        Role.TEXT_FEATURES: "text.npy",
    }
    source = Source(files=files, split="published")
    return DatasetEntry(key="x", title="X", domain="things", sources={"mmrec": source}), folder


def test_an_import_keeps_its_ids_and_may_bring_features(tmp_path: Path) -> None:
    entry, folder = import_folder(
        tmp_path, "userID\titemID\tx_label\n1\t0\t0\n0\t2\t1\n0\t0\t0\n", "itemID\ttitle\n1\tone\n"
    )
    np.save(folder / "image.npy", np.eye(3, 5))
    manifest = prepare_raw_files(entry, folder)
    dump = load_dump(manifest, entry)
    check_tables(dump)
    assert dump.items["title"].to_list() == ["", "one", ""]
    assert dump.users["reviewer_id"].to_list() == ["0", "1"]
    assert dump.counts["items_without_metadata"] == 2
    assert read_image_embeddings(manifest, dump.items)["present"].all()
    assert read_text_features(manifest, dump.items).is_empty()
    assert manifest.absent == [Role.TEXT_FEATURES]


def test_an_import_with_gaps_in_its_ids_is_an_error(tmp_path: Path) -> None:
    entry, folder = import_folder(tmp_path, "userID\titemID\tx_label\n0\t0\t0\n0\t900000000\t0\n", "itemID\ttitle\n")
    with pytest.raises(InputError, match=r"ids of items: expected every id from 0 to 900,000,000"):
        load_dump(prepare_raw_files(entry, folder), entry)


def test_a_data_set_without_images_has_an_empty_table(tmp_path: Path) -> None:
    dump = load(tmp_path, [review("A", "1")], [])
    manifest = prepare_raw_files(entry_of(), tmp_path)
    assert read_image_embeddings(manifest, dump.items).is_empty()
    assert read_imported_knn(manifest, Role.TEXT_KNN, dump.items).schema == KNN
