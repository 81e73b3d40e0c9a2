"""From a folder of files to a data set that can be read, in one command."""

import gzip
import importlib
import io
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from pipelines.cli.main import main
from recmodels.catalogue.entries import CATALOGUE_VARIABLE, DatasetEntry, load_catalogue
from recmodels.data.dump import Dump, load_dump, read_image_embeddings
from recmodels.data.raw_files import prepare_raw_files
from recmodels.data.split import split_interactions
from recmodels.raw.demo import write_demo_dump
from recmodels.raw.formats.base import Role

RATINGS = "userId,movieId,rating,timestamp\n" + "".join(
    f"u{u},{m},4,{100 * u + m}\n" for u in range(3) for m in range(4)
)
MOVIES = "movieId,title,genres\n" + "".join(f"{m},Movie {m},Drama|Crime\n" for m in range(4))


@pytest.fixture
def catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "catalogue.toml"
    monkeypatch.setenv(CATALOGUE_VARIABLE, str(path))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (folder := tmp_path / "raw").mkdir()
    return folder


def read(folder: Path, name: str = "mine") -> tuple[DatasetEntry, Dump]:
    entry = load_catalogue()[name]
    return entry, load_dump(prepare_raw_files(entry, folder, fetch=False), entry)


def test_a_folder_of_tables_becomes_a_data_set(folder: Path, catalogue: Path, capsys) -> None:
    (folder / "ratings.csv").write_text(RATINGS)
    (folder / "movies.csv").write_text(MOVIES)
    (folder / "tags.csv").write_text("userId,movieId,tag,timestamp\nu1,1,good,5\n")
    (folder / "README.txt").write_text("About these files\n")
    np.save(folder / "image_vectors.npy", np.eye(4, dtype=np.float32))
    np.save(folder / "text_vectors.npy", np.eye(9, dtype=np.float32))
    assert main(["new-dataset", "mine", str(folder), "--title", 'My "shop"']) == 0
    told = capsys.readouterr().out
    assert "ratings.csv: interactions (user = userId, item = movieId, rating = rating, timestamp = timestamp)" in told
    assert "tags.csv: could be interactions, too" in told
    assert "README.txt: no file of the format table" in told
    assert "text_vectors.npy: 9 rows, but movies.csv has 4 rows; it is left out" in told
    assert f"recmodels run --dataset mine --raw-dir {folder}" in told
    assert "export" not in told
    entry, dump = read(folder)
    assert entry.title == 'My "shop"'
    assert dump.interactions.height == 12
    assert dump.items["categories"].to_list() == [["Drama", "Crime"]] * 4
    images = read_image_embeddings(prepare_raw_files(entry, folder), dump.items)
    assert images["embedding"].to_numpy().tolist() == np.eye(4).tolist()


def test_a_terminal_shows_what_is_being_read(folder: Path, catalogue: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "ratings.csv").write_text(RATINGS)
    shown = io.StringIO()
    terminal = Console(file=shown, force_terminal=True, width=1000)
    monkeypatch.setattr(importlib.import_module("pipelines.cli.new_dataset"), "CONSOLE", terminal)
    assert main(["new-dataset", "mine", str(folder)]) == 0
    assert f"reading the files of {folder} ..." in shown.getvalue()


def test_a_single_parquet_file_is_a_data_set(folder: Path, catalogue: Path) -> None:
    pl.read_csv(RATINGS.encode()).write_parquet(folder / "r.parquet")
    assert main(["new-dataset", "mine", str(folder / "r.parquet")]) == 0
    assert read(folder)[1].users.height == 3


def test_tables_of_json_records_are_a_data_set(folder: Path, catalogue: Path, capsys) -> None:
    rows = [{"text": "", "user_id": f"u{u}", "business_id": f"b{i}", "stars": 4.0} for u in range(3) for i in range(4)]
    places = [{"business_id": f"b{i}", "name": f"Place {i}", "categories": ["Food", "Bars"]} for i in range(4)]
    likes = [{"user": "u1", "asin": "B000000001", "parent": None}]
    for name, records in (("review.json", rows), ("business.json", places), ("likes.jsonl", likes)):
        (folder / name).write_text("".join(json.dumps(record) + "\n" for record in records))
    assert main(["new-dataset", "mine", str(folder)]) == 0
    told = capsys.readouterr().out
    assert "review.json: interactions (user = user_id, item = business_id, rating = stars, text = text)" in told
    assert "likes.jsonl: could be interactions, too (user = user, item = asin); it is left out" in told
    assert "business.json: items (item = business_id, title = name, categories = categories)" in told
    dump = read(folder)[1]
    assert (dump.users.height, dump.interactions.height) == (3, 12)
    assert dump.items.select("title", "categories").row(0) == ("Place 0", ["Food", "Bars"])


def test_columns_of_other_names_are_named_on_the_command_line(folder: Path, catalogue: Path, capsys) -> None:
    (folder / "k.csv").write_text(RATINGS.replace("userId", "kunde").replace("movieId", "artikel"))
    assert main(["new-dataset", "mine", str(folder)]) == 1
    told = capsys.readouterr().out
    assert "k.csv (kunde, artikel, rating, timestamp)" in told
    assert "--column user=NAME" in told
    assert not catalogue.exists()
    assert main(["new-dataset", "mine", str(folder), "--column", "user=kunde", "--column", "item=artikel"]) == 0
    assert read(folder)[1].users["reviewer_id"].to_list() == ["u0", "u1", "u2"]


@pytest.mark.parametrize(
    ("review", "metadata", "expected"),
    [
        ({"reviewerID": "u", "asin": "B000000001", "overall": 5, "unixReviewTime": 10**9, "helpful": [0, 0]}, repr,
         "amazon2014"),
        ({"reviewerID": "u", "asin": "B000000001", "overall": 5, "unixReviewTime": 10**9}, repr, "amazon2014"),
        ({"reviewerID": "u", "asin": "B000000001", "overall": 5, "unixReviewTime": 10**9}, json.dumps, "amazon2018"),
        ({"user_id": "u", "parent_asin": "B000000001", "rating": 5, "timestamp": 10**12}, json.dumps, "amazon2023"),
    ],
)  # fmt: skip
def test_amazon_releases_are_told_apart(review, metadata, expected: str, folder: Path, catalogue: Path, capsys) -> None:
    (folder / "Shop_5.json").write_text(json.dumps(review) + "\n")
    key = "parent_asin" if "parent_asin" in review else "asin"
    (folder / "meta_Shop.json").write_text(metadata({key: "B000000001", "title": "A thing"}) + "\n")
    assert main(["new-dataset", "mine", str(folder), "--column", "user=kunde"]) == 0
    assert f"columns: files of the format {expected} have fixed names; user is left out" in capsys.readouterr().out
    entry, dump = read(folder)
    assert "columns" not in catalogue.read_text()
    assert list(entry.sources) == [expected]
    assert entry.sources[expected].k_core == 1
    assert dump.items["title"].to_list() == ["A thing"]


@pytest.mark.parametrize(
    ("key", "line"),
    [
        ("parent_asin", json.dumps({"title": "A thing", "store": "Maker", "parent_asin": "1"})),
        ("asin", json.dumps({"title": "A thing", "brand": "Maker", "asin": "1"})),
        ("asin", repr({"asin": "1", "title": "A thing", "brand": "Maker"})),
    ],
)
def test_a_table_of_ratings_goes_with_the_metadata_of_its_release(
    key: str, line: str, folder: Path, catalogue: Path, capsys
) -> None:
    (folder / "Shop.csv").write_text(RATINGS.replace("userId,movieId", f"user_id,{key}"))
    (folder / "meta_Shop.jsonl.gz").write_bytes(gzip.compress(f"{line}\n".encode()))
    np.save(folder / "image_vectors.npy", np.eye(4, dtype=np.float32))
    assert main(["new-dataset", "mine", str(folder)]) == 0
    assert "image_vectors.npy: 4 rows, but no table says whose they are; it is left out" in capsys.readouterr().out
    items = read(folder)[1].items
    assert items.select("asin", "title", "brand").rows() == [
        (name, "A thing" if name == "1" else "", "Maker" if name == "1" else "") for name in "0123"
    ]


def test_what_is_left_out_is_told(folder: Path, catalogue: Path, capsys) -> None:
    review = {"user_id": "u", "parent_asin": "B000000001", "rating": 5, "timestamp": 10**12}
    (folder / "Shop.jsonl").write_text(json.dumps(review) + "\n")
    (folder / "Shop.csv").write_text(RATINGS)
    assert main(["new-dataset", "mine", str(folder)]) == 0
    assert "Shop.csv: no file of the format amazon2023; it is left out" in capsys.readouterr().out
    (folder / "Shop.jsonl").unlink()
    (folder / "Shop.csv").rename(folder / "Shop.train.csv")
    (folder / "Shop.test.csv").write_text(RATINGS[:50])
    assert main(["new-dataset", "other", str(folder)]) == 0
    told = capsys.readouterr().out
    assert "Shop.test.csv: could be interactions, too" in told
    assert "Shop.train.csv: a part by its name; to keep a split, have its train, valid and test files here" in told


@pytest.mark.parametrize("names", ["{}.csv", "Shop.{}.csv", "shop_{}_set.tsv"])
def test_a_split_in_three_files_is_kept(names: str, folder: Path, catalogue: Path, capsys) -> None:
    header, *rows = RATINGS.splitlines(keepends=True)
    parts = {"train": rows[:7], "val": rows[7:9], "test": rows[9:]}
    for word, part in parts.items():
        text = "".join([header, *part]).replace(",", "\t" if names.endswith("tsv") else ",")
        (folder / names.format(word)).write_text(text)
    assert main(["new-dataset", "mine", str(folder)]) == 0
    told = capsys.readouterr().out
    assert f"{names.format('val')}: valid (user = userId" in told
    assert "k_core = 1: the split is kept whole" in told
    assert "could be" not in told
    entry, dump = read(folder)
    source = entry.sources["table"]
    assert (source.k_core, source.split) == (1, "published")
    assert source.files[Role.INTERACTIONS] == names.format("train")
    split = split_interactions(dump.interactions, source.split)
    assert dict(split.group_by("split").len().rows()) == {"train": 7, "valid": 2, "test": 3}


def test_a_copy_with_another_name_is_not_taken(folder: Path, catalogue: Path, capsys) -> None:
    for name in ("ratings.csv", "ratings (1).csv"):
        (folder / name).write_text(RATINGS)
    assert main(["new-dataset", "mine", str(folder)]) == 0
    assert read(folder)[0].sources["table"].files == {Role.INTERACTIONS: "ratings.csv"}
    assert "ratings (1).csv: could be interactions, too" in capsys.readouterr().out


def test_the_demo_is_recognised_with_its_images(folder: Path, catalogue: Path) -> None:
    write_demo_dump(folder)
    assert main(["new-dataset", "mine", str(folder)]) == 0
    source = load_catalogue()["mine"].sources["amazon2014"]
    assert source.files == load_catalogue()["demo"].sources["amazon2014"].files


def test_an_import_with_its_split_is_recognised(folder: Path, catalogue: Path) -> None:
    rows = [f"{u}\t{i}\t{(u + i) % 3}" for u in range(3) for i in range(3)]
    (folder / "toy.inter").write_text("\n".join(["userID\titemID\tx_label", *rows]) + "\n")
    np.save(folder / "image_feat.npy", np.ones((3, 2)))
    np.save(folder / "text_feat.npy", np.ones((3, 2)))
    assert main(["new-dataset", "mine", str(folder)]) == 0
    entry, dump = read(folder)
    assert entry.sources["mmrec"].split == "published"
    assert set(entry.sources["mmrec"].files) == {Role.INTERACTIONS, Role.IMAGE_FEATURES, Role.TEXT_FEATURES}
    assert dump.interactions["split"].null_count() == 0


def test_a_core_is_taken_only_where_it_keeps_most(folder: Path, catalogue: Path, capsys) -> None:
    full = "".join(f"u{u},i{i}\n" for u in range(6) for i in range(6))
    (folder / "r.csv").write_text("user,item\n" + full + "".join(f"v{n},i0\n" for n in range(9)))
    assert main(["new-dataset", "dense", str(folder)]) == 0
    assert "k_core = 5: as is usual, which keeps 36 of 45 pairs" in capsys.readouterr().out
    assert load_catalogue()["dense"].sources["table"].k_core == 5
    (folder / "r.csv").write_text("user,item\n" + full)
    assert main(["new-dataset", "core", str(folder)]) == 0
    assert "k_core = 1: every user and item has 5 interactions already" in capsys.readouterr().out
    (folder / "r.csv").write_text(RATINGS)
    assert main(["new-dataset", "sparse", str(folder)]) == 0
    assert "would keep 0 of 12 pairs" in capsys.readouterr().out


def test_a_catalogue_keeps_what_it_has(folder: Path, catalogue: Path, capsys) -> None:
    (folder / "r.csv").write_text(RATINGS)
    catalogue.write_text("# mine\n[demo]\ntitle = 'My demo'")
    assert main(["new-dataset", "one", str(folder)]) == 0
    before = catalogue.read_text()
    assert before.startswith("# mine\n[demo]\ntitle = 'My demo'\n")
    for name, message in (("one", "in the catalogue already"), ("demo", "already"), ("../x", "a plain name")):
        assert main(["new-dataset", name, str(folder)]) == 1
        assert message in capsys.readouterr().out
    assert catalogue.read_text() == before
    assert load_catalogue()["demo"].title == "My demo"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "found no files"),
        ({"notes.txt": "a few words\n"}, "found notes.txt (a few words)"),
        ({"bad name.csv": RATINGS}, "found 'bad name.csv'. Rename the file."),
        ({"r.csv": "A1,B1,5.0,1400000000\n"}, "put the names of its columns before it"),
        ({"r.csv": "größe,user,item\n".encode("latin-1")}, "found r.csv (no UTF-8: save it as that)"),
        ({"r.csv": RATINGS.encode("utf-16")}, "found r.csv (no UTF-8: save it as that)"),
        ({"r.xlsx": b"PK\x03\x04\x14"}, "found r.xlsx (a zip archive or spreadsheet: unpack it, or save it as CSV)"),
        ({"r.dat": "1::1193::5::978300760\n"}, "found r.dat (separated by '::': write tabs instead, 1, 1193"),
        ({"r.dat": "1::1193::5::978300760\n"}, "put the names of its columns before it"),
        ({"r.csv": ""}, "found r.csv (an empty one)"),
        ({"r.parquet": b"PAR1garbage"}, "found r.parquet ("),
        ({"r.json": '[{"user_id": 1}]'}, "found r.json (a JSON array: one record a line is needed)"),
        ({"r.csv": "user,item,date\na,b,31/01/2024\n"}, "Correct the column, or rename it so that it is not read."),
    ],
)
def test_a_folder_that_cannot_be_a_data_set_is_refused(
    content: dict[str, str | bytes], message: str, folder: Path, catalogue: Path, capsys
) -> None:
    for name, text in content.items():
        (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
    assert main(["new-dataset", "mine", str(folder)]) == 1
    assert message in capsys.readouterr().out
    assert not catalogue.exists()


def test_without_the_variable_the_file_is_in_the_working_folder_and_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.delenv(CATALOGUE_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    (folder / "r.csv").write_text(RATINGS)
    assert main(["new-dataset", "my.shop", str(folder)]) == 0
    assert f"export {CATALOGUE_VARIABLE}={tmp_path / 'catalogue.toml'}" in capsys.readouterr().out
    assert load_catalogue(tmp_path / "catalogue.toml")["my.shop"].title == "My.Shop"
    for command in (["run"], ["explore"], ["recommend", "--user", "u0"], ["leaderboard"]):
        assert main([*command, "--dataset", "my.shop"]) == 1
        not_read = f"which is not read: export {CATALOGUE_VARIABLE}={tmp_path / 'catalogue.toml'}"
        assert not_read in capsys.readouterr().out
    assert main(["run", "--dataset", "demos"]) == 1
    assert "Did you mean demo?" in capsys.readouterr().out
