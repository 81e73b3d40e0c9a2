"""Plain tables: every spelling of the same rows reads the same, and what is no row is told with its line."""

import csv
import gzip
import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recmodels.catalogue.entries import DatasetEntry, load_catalogue
from recmodels.data.by_user import Limits
from recmodels.data.dump import load_dump, read_image_embeddings, read_text_features
from recmodels.data.raw_files import prepare_raw_files
from recmodels.data.split import split_interactions
from recmodels.errors import InputError
from recmodels.raw.formats import table_json, table_rows
from recmodels.raw.formats.table import read_interactions, read_items, read_order
from recmodels.raw.lines import read_blocks
from recmodels.raw.rejects import RejectLog
from recmodels.settings import raw_settings

NOON = int(datetime(2020, 1, 31, 12, tzinfo=UTC).timestamp())
ROWS = [("ann", "cup", 5.0, NOON), ("bob", "pen", 2.5, NOON + 60), ("ann", "hat", 1.0, NOON + 3600)]


def frame() -> pl.DataFrame:
    return pl.DataFrame(ROWS, schema=["user", "item", "rating", "timestamp"], orient="row")


def written(path: Path, table: pl.DataFrame, **options: Any) -> Path:
    if path.suffix == ".parquet":
        table.write_parquet(path)
    else:
        data = (table.write_ndjson() if ".json" in path.name else table.write_csv(**options)).encode()
        path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def entry_of(folder: Path, files: str, more: str = "") -> DatasetEntry:
    (folder / "catalogue.toml").write_text(
        f'[shop]\ntitle = "Shop"\ndomain = "things"\n[shop.sources.table]\nfiles = {{ {files} }}\nk_core = 1\n{more}'
    )
    return load_catalogue(folder / "catalogue.toml")["shop"]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("r.csv", {}),
        ("r.csv.gz", {}),
        ("r.tsv", {"separator": "\t"}),
        ("r.csv", {"separator": ";"}),
        ("r.csv", {"quote_style": "always"}),
        ("r.csv", {"line_terminator": "\r\n", "include_bom": True}),
        ("r.json", {}),
        ("r.jsonl.gz", {}),
        ("r.parquet", {}),
    ],
)
@pytest.mark.parametrize(
    "names",
    [
        ("user_id", "item_id", "rating", "timestamp"),
        ("userId", "movieId", "rating", "timestamp"),
        ("reviewerID", "asin", "overall", "unixReviewTime"),
        ("UID", "Product ID", "Stars", "ts"),
    ],
)
def test_every_form_and_every_usual_name_reads_the_same(
    name: str, options: dict[str, Any], names: tuple[str, ...], tmp_path: Path
) -> None:
    table = frame().rename(dict(zip(frame().columns, names, strict=True)))
    read = read_interactions(written(tmp_path / name, table, **options), {})
    assert read.table.rows() == ROWS
    assert (read.lines, read.rejects.height) == (3, 0)


@pytest.mark.parametrize(
    "times",
    [
        [str(row[3] * 1000) for row in ROWS],
        [str(row[3] * 10**9) for row in ROWS],
        [f"{row[3]}.0" for row in ROWS],
        [datetime.fromtimestamp(row[3], UTC).isoformat() for row in ROWS],
        [datetime.fromtimestamp(row[3], UTC).strftime("%Y-%m-%d %H:%M:%S") for row in ROWS],
        [datetime.fromtimestamp(row[3], UTC).strftime("%Y-%m-%dT%H:%M:%SZ") for row in ROWS],
        ["2020-01-31T13:00:00+01:00", *[str(row[3]) for row in ROWS[1:]]],
    ],
)
def test_times_may_be_of_any_usual_form(times: list[str], tmp_path: Path) -> None:
    path = written(tmp_path / "r.csv", frame().with_columns(timestamp=pl.Series(times)))
    assert read_interactions(path, {}).table["timestamp"].to_list() == [row[3] for row in ROWS]


def test_parquet_keeps_dates_numbers_and_lists(tmp_path: Path) -> None:
    when = pl.from_epoch(pl.Series([row[3] for row in ROWS]))
    table = frame().with_columns(timestamp=when, user=pl.Series([1.0, 2.0, 1.0]), item=pl.Series([7, 8, 9]))
    read = read_interactions(written(tmp_path / "r.parquet", table), {})
    assert read.table["timestamp"].to_list() == [row[3] for row in ROWS]
    assert read.table.select("reviewer", "asin").rows() == [("1", "7"), ("2", "8"), ("1", "9")]
    items = pl.DataFrame({"item": [7, 8], "genres": [["a", "b"], []], "price": [1.5, None]})
    found = read_items(written(tmp_path / "i.parquet", items), ["7", "8"], {}).table
    assert found.select("asin", "categories", "price").rows() == [("7", ["a", "b"], 1.5), ("8", [], None)]


def test_what_is_no_row_is_told_with_its_line_and_reason(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_bytes(
        b"user,item,rating,timestamp\n"
        b"ann,cup,5,10\n"
        b",cup,5,10\n"
        b"ann, ,5,10\n"
        b"ann,cup,good,10\n"
        b"ann,cup,inf,10\n"
        b"ann,cup,5,yesterday\n"
        b"ann,cup,5,-1\n"
        b"ann,cup,5\n"
        b"\n"
        b"ann,c\xff,5,10\n"
        b'ann,"cup,5,10\n'
        b"bob,pen,,\n"
    )
    read = read_interactions(path, {})
    assert read.table.rows() == [("ann", "cup", 5.0, 10), ("bob", "pen", None, None)]
    time = "timestamp is not seconds, milliseconds or an ISO date from 1970 to 2100"
    assert read.rejects.select("line", "reason").rows() == [
        (3, "user is missing"),
        (4, "item is missing"),
        (5, "rating is not a number"),
        (6, "rating is not a number"),
        (7, time),
        (8, time),
        (9, "3 fields instead of 4"),
        (11, "not UTF-8"),
        (12, "no row of fields: unexpected end of data"),
    ]
    assert read.lines == 11


def test_what_is_no_record_is_told_with_its_line_and_reason(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(
        b'\xef\xbb\xbf{"user": "ann", "item": 7}\r\n'
        b'{"user": "bob", "item": "pen", "rating": 4, "date": "2020-01-31 12:00:00", "user_": {"a": [1]}}\n'
        b"\n"
        b'{"user": "bob", "item": "pen", "rating": NaN}\n'
        b'{"user": null, "item": "pen"}\n'
        b'{"user": "bob"}\n'
        b'["bob", "pen"]\n'
        b'{"user": "bob", "item": "p\xff"}\n'
        b'{"user": "bob", "item": "p\0"}\n'
        + b'{"user": ' + b"[" * 100_000 + b"}\n"
        b'{"user": "\\ud83d\\ude00", "item": "\\ud83dcup", "rating": true}\n'
        b'{"user": "bob", "item"\n'
    )  # fmt: skip
    read = read_interactions(path, {"timestamp": "date"})
    assert read.table.rows() == [("ann", "7", None, None), ("bob", "pen", 4.0, NOON)]
    assert read.rejects.select("line", "reason").rows() == [
        (4, "rating is not a number"),
        (5, "user is missing"),
        (6, "item is missing"),
        (7, "not a record of keys and values"),
        (8, "not UTF-8"),
        (9, "NUL byte"),
        (10, "not JSON"),
        (11, "rating is not a number"),
        (12, "not JSON"),
    ]
    assert read.lines == 11


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.sampled_from(["user", "item", "a"]), each, max_size=3),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(JSON, max_size=6), st.integers(1, 40))
def test_records_of_any_shape_are_rows_or_rejects(
    tmp_path_factory: pytest.TempPathFactory, lines: list[Any], size: int
) -> None:
    path = tmp_path_factory.mktemp("records") / "r.json"
    path.write_text("".join(json.dumps(line) + "\n" for line in [{"user": "ann", "item": "cup"}, *lines]))
    read = read_interactions(path, {})
    assert read.lines == len(lines) + 1
    whole = pl.concat(table_rows.read_rows(path, ("user", "item"), (), {}, RejectLog("r.json")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table_json, "read_blocks", lambda *args: read_blocks(*args, chunk_bytes=size))
        parts = pl.concat(table_rows.read_rows(path, ("user", "item"), (), {}, RejectLog("r.json")))
    assert parts.equals(whole)
    records = [line for line in lines if isinstance(line, dict)]
    assert whole.height == 1 + len(records)
    for row, record in zip(whole.rows(named=True)[1:], records, strict=True):
        for key in ("user", "item"):
            if isinstance(record.get(key), str | int) and not isinstance(record[key], bool):
                assert row[key] == str(record[key])


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=8)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=12), st.sampled_from([",", "\t", ";"]))
def test_fields_come_back_as_another_writer_quoted_them(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], separator: str
) -> None:
    path = tmp_path_factory.mktemp("quoted") / "r.csv"
    lines = io.StringIO()
    writer = csv.writer(lines, delimiter=separator, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerows([("user", "item"), *rows])
    path.write_text(lines.getvalue(), encoding="utf-8", newline="")
    parts = list(table_rows.read_rows(path, ("user", "item"), ("user",), {}, log := RejectLog("r.csv")))
    # A line within a field that is blank is no line of the table.
    expected = [tuple("\n".join(filter(str.strip, text.split("\n"))) for text in row) for row in rows]
    found = [
        tuple("\n".join(filter(str.strip, text.split("\n"))) for text in row[1:]) for row in pl.concat(parts).rows()
    ]
    assert (found, len(log)) == (expected, 0)


def test_rows_are_the_same_in_blocks_of_any_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "i.csv"
    lines = ["item,title", *(f'i{i},"A ""long"",\ntitle {i}"' if i % 3 else f"i{i},plain {i}" for i in range(40))]
    path.write_text("\n".join(lines))
    wanted = [f"i{i}" for i in range(40)]
    whole = read_items(path, wanted, {})
    assert whole.table.height == 40
    real = table_rows.read_blocks
    for size in (7, 64, 200):
        monkeypatch.setattr(table_rows, "read_blocks", lambda *args, size=size: real(*args, chunk_bytes=size))
        assert read_items(path, wanted, {}).table.equals(whole.table)


def test_inch_signs_in_tab_separated_files_are_texts(tmp_path: Path) -> None:
    path = tmp_path / "i.tsv"
    path.write_text('item\ttitle\na\t"Heroes" on 12"\nb\t12"\nc\t"quoted"\n')
    assert read_items(path, ["a", "b", "c"], {}).table["title"].to_list() == ['"Heroes" on 12"', '12"', "quoted"]


def test_items_are_the_wanted_ones_with_clean_texts(tmp_path: Path) -> None:
    path = tmp_path / "i.csv"
    path.write_text(
        "movieId,title,genres,price\n"
        "1,<b>Toy</b> &amp; Story,Animation|Comedy,$3.50\n"
        "2,Heat,Crime > Drama,\n"
        "1,,,\n"
        "9,Other,,\n"
        ",No item,,\n"
    )
    read = read_items(path, ["1", "2"], {})
    assert read.table.select("asin", "title", "categories", "price").rows() == [
        ("1", "Toy & Story", ["Animation", "Comedy"], 3.5),
        ("2", "Heat", ["Crime", "Drama"], None),
    ]
    assert (read.lines, read.duplicates, read.unwanted, read.rejects.height) == (5, 1, 1, 1)


def test_columns_of_other_names_are_given_in_the_entry(tmp_path: Path) -> None:
    table = frame().rename({"user": "kunde", "item": "artikel"})
    written(tmp_path / "r.csv", table)
    with pytest.raises(InputError, match=r"a column user .*found the columns kunde, artikel.*columns = \{ user"):
        read_interactions(tmp_path / "r.csv", {})
    (tmp_path / "i.csv").write_text("sku,title\ncup,A cup\n")
    plain = entry_of(tmp_path, 'interactions = "r.csv", items = "i.csv"')
    entry = entry_of(
        tmp_path, 'interactions = "r.csv", items = "i.csv"', 'columns = { user = "kunde", item = "artikel" }'
    )
    manifest = prepare_raw_files(entry, tmp_path)
    dump = load_dump(manifest, entry)
    assert dump.users["reviewer_id"].to_list() == ["ann", "bob"]
    assert dump.items["title"].to_list() == ["A cup", "", ""]
    assert type(manifest).parse(manifest.model_dump_json()) == manifest
    assert manifest.digest != prepare_raw_files(plain, tmp_path).digest
    assert raw_settings(entry).changes_since(raw_settings(plain).values)


@pytest.mark.parametrize(
    ("source", "columns", "message"),
    [
        ("table", "usr", "Did you mean user?"),
        ("amazon2018", "user", "files of this format have fixed names"),
    ],
)
def test_the_catalogue_refuses_columns_that_cannot_be(source: str, columns: str, message: str, tmp_path: Path) -> None:
    role = "reviews" if source != "table" else "interactions"
    (tmp_path / "c.toml").write_text(
        f'[s]\ntitle = "S"\ndomain = "s"\n[s.sources.{source}]\nfiles = {{ {role} = "r" }}\n'
        f'columns = {{ {columns} = "x" }}\n'
    )
    with pytest.raises(InputError) as refused:
        load_catalogue(tmp_path / "c.toml")
    assert message in str(refused.value)


def test_a_named_column_that_is_not_there_is_told(tmp_path: Path) -> None:
    path = written(tmp_path / "r.csv", frame())
    with pytest.raises(InputError, match="expected a column points, found the columns user, item"):
        read_interactions(path, {"rating": "points"})


def test_a_split_of_the_table_is_kept(tmp_path: Path) -> None:
    table = frame().with_columns(split=pl.Series(["training", "val", "TEST"]))
    written(tmp_path / "r.csv", table)
    entry = entry_of(tmp_path, 'interactions = "r.csv"', 'split = "published"')
    split = split_interactions(load_dump(prepare_raw_files(entry, tmp_path), entry).interactions, "published")
    assert dict(split.select("item_id", "split").rows()) == {0: "train", 1: "test", 2: "valid"}


def test_the_files_of_a_split_are_one_table(tmp_path: Path) -> None:
    written(tmp_path / "r.csv", frame())
    # Other columns in another order, a user of its own, a pair of training, a row that is none.
    (tmp_path / "v.tsv").write_text("item\tuser\ncup\tbob\nhat\t\n")
    written(tmp_path / "t.parquet", pl.DataFrame({"user": ["cid", "ann"], "item": ["pen", "cup"], "text": ["a", "b"]}))
    files = 'interactions = "r.csv", valid = "v.tsv", test = "t.parquet"'
    entry = entry_of(tmp_path, files, 'split = "published"')
    for limits in (Limits(), Limits(part_bytes=20, held_bytes=0)):
        dump = load_dump(prepare_raw_files(entry, tmp_path), entry, limits=limits)
        assert dump.users["reviewer_id"].to_list() == ["ann", "bob", "cid"]
        assert dump.items["asin"].to_list() == ["cup", "hat", "pen"]
        assert dump.interactions.rows() == [
            (0, 0, None, None, "test"),
            (0, 1, 1.0, NOON + 3600, "train"),
            (1, 0, None, None, "valid"),
            (1, 2, 2.5, NOON + 60, "train"),
            (2, 2, None, None, "test"),
        ]
        assert dump.rejects.select("file", "line", "reason").rows() == [("v.tsv", 3, "user is missing")]
        assert (dump.counts["interaction_lines"], dump.counts["repeated_pairs"]) == (7, 1)
        assert dump.reviews.height == 0
    pooled = entry_of(tmp_path, files, 'split = "random"')
    assert split_interactions(dump.interactions, pooled.sources["table"].split)["split"].to_list() == ["train"] * 5
    (tmp_path / "catalogue.toml").write_text(
        '[shop]\ntitle = "Shop"\ndomain = "x"\n[shop.sources.amazon2014]\nfiles = { reviews = "r", test = "t" }\n'
    )
    with pytest.raises(InputError, match="amazon2014 needs a file `reviews`"):
        load_catalogue(tmp_path / "catalogue.toml")


def test_review_texts_are_read_with_rating_and_time(tmp_path: Path) -> None:
    written(tmp_path / "r.csv", frame().with_columns(review=pl.lit("<i>good</i>")))
    entry = entry_of(tmp_path, 'interactions = "r.csv"')
    assert load_dump(prepare_raw_files(entry, tmp_path), entry).reviews["text"].to_list() == ["good"] * 3


@pytest.mark.parametrize("ids", [False, True])
def test_features_find_their_items(ids: bool, tmp_path: Path) -> None:
    written(tmp_path / "r.csv", frame())
    (tmp_path / "i.csv").write_text("item,title\nhat,A hat\nbroken\nunknown,x\ncup,A cup\n")
    order = ["pen", "cup"] if ids else ["hat", None, "unknown", "cup"]
    (tmp_path / "ids.csv").write_text("item\npen\ncup\n")
    features = np.arange(3 * len(order), dtype=np.float32).reshape(len(order), 3) + 1
    np.save(tmp_path / "f.npy", features)
    files = 'interactions = "r.csv", items = "i.csv", image_features = "f.npy", text_features = "f.npy"'
    entry = entry_of(tmp_path, files + (', feature_ids = "ids.csv"' if ids else ""))
    manifest = prepare_raw_files(entry, tmp_path)
    items = load_dump(manifest, entry).items
    table = read_image_embeddings(manifest, items.select("item_id", "asin"))
    assert table.equals(read_text_features(manifest, items.select("item_id", "asin")))
    for asin, vector, present in zip(items["asin"], table["embedding"].to_list(), table["present"], strict=True):
        assert present == (asin in order)
        if present:
            assert vector == features[order.index(asin)].tolist()
    np.save(tmp_path / "f.npy", features[1:])
    with pytest.raises(InputError, match=f"float matrix of {len(order)} rows"):
        read_image_embeddings(prepare_raw_files(entry, tmp_path), items)


def test_features_without_an_order_are_refused(tmp_path: Path) -> None:
    written(tmp_path / "r.csv", frame())
    np.save(tmp_path / "f.npy", np.ones((3, 2)))
    entry = entry_of(tmp_path, 'interactions = "r.csv", image_features = "f.npy"')
    manifest = prepare_raw_files(entry, tmp_path)
    with pytest.raises(InputError, match="a file `items` or `feature_ids`"):
        read_image_embeddings(manifest, load_dump(manifest, entry).items)


@pytest.mark.parametrize("content", [b"PAR1 and no more", b"", b"user,item\n"])
def test_a_damaged_or_empty_file_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "r").write_bytes(content)
    with pytest.raises(InputError):
        read_interactions(tmp_path / "r", {})


def test_names_that_are_no_utf8_are_refused_and_no_row_is_taken_for_them(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_bytes("größe,user,item\n1,ann,cup\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"first line of names in UTF-8.*Save the file as UTF-8"):
        read_interactions(tmp_path / "r.csv", {})


def test_metadata_of_a_release_gives_features_no_order(tmp_path: Path) -> None:
    (tmp_path / "meta.jsonl").write_text('{"title": "A thing", "parent_asin": "1"}\n')
    with pytest.raises(InputError, match="as feature_ids"):
        read_order(tmp_path / "meta.jsonl", {})
