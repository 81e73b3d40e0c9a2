"""A raw format that comes from outside: a CSV of user, item and, where there are, rating, time and titles."""

import sys
from collections.abc import Collection
from pathlib import Path

import polars as pl
import pytest

from recmodels.catalogue.entries import DatasetEntry, load_catalogue
from recmodels.data.dump import load_dump, read_image_embeddings
from recmodels.data.raw_files import prepare_raw_files
from recmodels.data.split import split_interactions
from recmodels.errors import InputError
from recmodels.raw.formats.base import Format, RawTable, Role
from recmodels.raw.formats.registry import FORMATS, format_named
from recmodels.raw.rejects import RejectLog
from recmodels.schemas.tables import problem_of

CATALOGUE = """
[shop]
title = "Shop"
domain = "things"
[shop.sources.csv]
files = { interactions = "bought.csv"%s }
k_core = 1
split = "leave_last_out"
"""
BOUGHT = "user,item,rating,timestamp\nann,cup,5,30\nann,cup,4,20\nbob,pen,3,10\nann,pen,2,10\nann,hat,1,5\n"
PLUGIN = """
import polars as pl
from recmodels.raw.formats.base import Format, RawTable
from recmodels.raw.rejects import RejectLog

def read(path):
    table = pl.read_csv(path).rename({"user": "reviewer", "item": "asin"})
    return RawTable(table, RejectLog(path.name).frame(), table.height)

CSV = Format(read)
"""


def read_csv(path: Path) -> RawTable:
    table = pl.read_csv(path).rename({"user": "reviewer", "item": "asin"})
    log = RejectLog(path.name)
    for row in table.select(pl.arg_where(pl.col("reviewer").is_null())).to_series():
        log.add(row + 2, "no user", b"")
    table = table.drop_nulls("reviewer")
    return RawTable(table, log.frame(), table.height + len(log))


def read_titles(path: Path, wanted: Collection[str]) -> RawTable:
    table = pl.read_csv(path).rename({"item": "asin"})
    kept = table.filter(pl.col("asin").is_in(list(wanted)))
    return RawTable(kept, RejectLog(path.name).frame(), table.height, unwanted=table.height - kept.height)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(FORMATS, "csv", Format(read_csv, read_titles))
    (tmp_path / "bought.csv").write_text(BOUGHT)
    return tmp_path


def entry_of(folder: Path, more: str = "") -> DatasetEntry:
    path = folder / "catalogue.toml"
    path.write_text(CATALOGUE % more)
    return load_catalogue(path)["shop"]


def test_interactions_alone_are_a_data_set(shop: Path) -> None:
    entry = entry_of(shop)
    manifest = prepare_raw_files(entry, shop)
    dump = load_dump(manifest, entry)
    assert manifest.format == "csv"
    assert dump.users["reviewer_id"].to_list() == ["ann", "bob"]
    assert dump.items["asin"].to_list() == ["cup", "hat", "pen"]
    assert dump.reviews.is_empty()
    assert read_image_embeddings(manifest, dump.items).is_empty()
    assert dump.counts["interaction_lines"] == 5
    assert dump.counts["repeated_pairs"] == 1
    interactions = split_interactions(dump.interactions, "leave_last_out")
    assert dict(zip(interactions["item_id"], interactions["split"], strict=True)) | {2: ""} == {
        0: "test",
        1: "train",
        2: "",
    }
    tables = {
        "items": dump.items,
        "item_ids": dump.items.select("item_id", "asin"),
        "users": dump.users,
        "reviews": dump.reviews,
        "interactions": interactions,
        "rejects": dump.rejects,
    }
    assert [problem_of(name, table, tables) for name, table in tables.items()] == [""] * 6


def test_titles_are_read_where_there_are_and_broken_rows_are_told(shop: Path) -> None:
    (shop / "bought.csv").write_text("user,item\nann,cup\n,pen\n")
    (shop / "titles.csv").write_text("item,title\ncup,A cup\nhat,A hat\n")
    entry = entry_of(shop, ', items = "titles.csv"')
    dump = load_dump(prepare_raw_files(entry, shop), entry)
    assert dump.items["title"].to_list() == ["A cup"]
    assert dump.counts["item_unwanted"] == 1
    assert dump.interactions.select("rating", "timestamp").row(0) == (None, None)
    assert dump.rejects.select("file", "line", "reason").row(0) == ("bought.csv", 3, "no user")


@pytest.mark.parametrize("files", ["", ', items = "t.csv", image_knn = "k.parquet"'])
def test_the_catalogue_asks_for_the_files_of_the_format(shop: Path, files: str) -> None:
    text = CATALOGUE % files if files else (CATALOGUE % "").replace("interactions", "items")
    (shop / "catalogue.toml").write_text(text)
    with pytest.raises(InputError, match="csv needs a file `interactions` and may have items"):
        load_catalogue(shop / "catalogue.toml")


def test_an_installed_package_adds_a_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"raw format 'toycsv': expected one of amazon2014, .*recmodels\.formats"):
        format_named("toycsv")
    information = tmp_path / "toy_formats-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Name: toy-formats\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(
        "[recmodels.formats]\ntoycsv = toy_formats:CSV\nwrong = toy_formats:read\n"
    )
    (tmp_path / "toy_formats.py").write_text(PLUGIN)
    (tmp_path / "bought.csv").write_text(BOUGHT)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("recmodels.raw.formats.registry.FORMATS", dict(FORMATS))
    (tmp_path / "catalogue.toml").write_text((CATALOGUE % "").replace("csv]", "toycsv]"))
    entry = load_catalogue(tmp_path / "catalogue.toml")["shop"]
    assert load_dump(prepare_raw_files(entry, tmp_path), entry).interactions.height == 4
    with pytest.raises(InputError, match="expected a Format at toy_formats:read"):
        format_named("wrong")
    sys.modules.pop("toy_formats")


def test_every_format_reads_its_interactions_from_a_file_it_names() -> None:
    assert all(form.roles[0] in (Role.REVIEWS, Role.INTERACTIONS) for form in FORMATS.values())
