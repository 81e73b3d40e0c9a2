"""Metadata of the three releases: the wanted items, without evaluating or even parsing the others."""

import ast
import gzip
import json
from itertools import permutations
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from recmodels.errors import InputError
from recmodels.raw.formats.metadata import clean_categories, read_metadata
from recmodels.raw.formats.reviews import AmazonRelease

RECORD_2014: dict[str, Any] = {
    "asin": "B000000001",
    "related": {"also_bought": ["B000000002"]},
    "title": "Tracker&reg; it's\\d here",
    "price": 12.5,
    "salesRank": {"Baby": 3},
    "imUrl": "http://images.example.com/1.jpg",
    "brand": "Acme",
    "categories": [["Baby", "Baby", "Gifts &amp; Keepsakes"], ["Other"]],
    "description": "<p>Soft.</p>",
}


def write(folder: Path, lines: list[bytes], *, packed: bool = False) -> Path:
    content = b"".join(line + b"\n" for line in lines)
    path = folder / "meta.json"
    path.write_bytes(gzip.compress(content) if packed else content)
    return path


def literal(record: dict[str, Any]) -> bytes:
    return repr(record).encode()


def test_a_2014_record_is_read(tmp_path: Path) -> None:
    metadata = read_metadata(write(tmp_path, [literal(RECORD_2014)]), "amazon2014", ["B000000001"])
    assert metadata.table.rows() == [
        (
            "B000000001",
            "Tracker® it's\\d here",
            "Soft.",
            "Acme",
            ["Baby", "Gifts & Keepsakes"],
            12.5,
            "http://images.example.com/1.jpg",
        )
    ]


def test_a_2018_record_is_read(tmp_path: Path) -> None:
    record = {
        "category": ["Gift Cards", "Gift Cards"],
        "description": ["One.", "Two."],
        "title": "A card",
        "brand": "Amazon",
        "price": "$1,025.50 - $2,000.00",
        "asin": "B000000001",
        "imageURL": ["http://small"],
        "imageURLHighRes": ["http://large"],
    }
    metadata = read_metadata(write(tmp_path, [json.dumps(record).encode()]), "amazon2018", ["B000000001"])
    assert metadata.table.rows() == [
        ("B000000001", "A card", "One. Two.", "Amazon", ["Gift Cards"], 1025.5, "http://large")
    ]


def test_a_2023_record_is_read(tmp_path: Path) -> None:
    record = {
        "main_category": "Baby",
        "title": "A mat",
        "features": ["Soft"],
        "description": ["One.", "Two."],
        "price": "None",
        "images": [{"thumb": "http://thumb", "large": "http://large", "hi_res": None, "variant": "MAIN"}],
        "store": "Acme Store",
        "categories": ["Baby", "Mats"],
        "details": {"Brand": "Acme", "asin": "B000000009"},
        "parent_asin": "B000000001",
    }
    metadata = read_metadata(write(tmp_path, [json.dumps(record).encode()]), "amazon2023", ["B000000001"])
    assert metadata.table.rows() == [
        ("B000000001", "A mat", "One. Two.", "Acme", ["Baby", "Mats"], None, "http://large")
    ]


@pytest.mark.parametrize("source_format", ["amazon2014", "amazon2018", "amazon2023"])
def test_an_item_may_have_nothing_but_its_asin_or_nonsense_in_every_field(
    tmp_path: Path, source_format: AmazonRelease
) -> None:
    key = "parent_asin" if source_format == "amazon2023" else "asin"
    encode = literal if source_format == "amazon2014" else lambda record: json.dumps(record).encode()
    fields = ["title", "description", "brand", "categories", "category", "price", "imUrl", "images", "details"]
    lines = [encode({key: "B000000001"})]
    for number, nonsense in enumerate([None, 5, [], {}, [None], [[]], [{}], "", {"hi_res": 1}], start=2):
        lines.append(encode({key: f"B{number:09d}", **dict.fromkeys(fields, nonsense)}))
    wanted = [f"B{number:09d}" for number in range(1, 11)]
    metadata = read_metadata(write(tmp_path, lines), source_format, wanted)
    assert metadata.table["asin"].to_list() == wanted
    assert metadata.table.row(0) == ("B000000001", "", "", "", [], None, "")


def test_only_wanted_lines_are_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [literal({**RECORD_2014, "asin": f"B{number:09d}"}) for number in range(100)]
    parsed: list[str] = []
    real = ast.literal_eval
    monkeypatch.setattr(ast, "literal_eval", lambda text: parsed.append(text) or real(text))
    metadata = read_metadata(write(tmp_path, lines), "amazon2014", ["B000000007", "B000000093"])
    assert len(parsed) == 2
    assert (metadata.table.height, metadata.unwanted, metadata.lines) == (2, 98, 100)


@pytest.mark.parametrize(
    "line",
    [
        b'{"asin": "B000000001", "title": "x"}',
        b"{'asin':'B000000001','title':'x'}",
        b"{'title': 'x', 'asin' : 'B000000001'}",
        b"{'description': \"about 'asin': 'B999999999' it\", 'asin': 'B000000001', 'title': 'x'}",
        b"{'title': 'x', 'also': {'asin': 'B999999999'}, 'asin': 'B000000001'}",
    ],
)
def test_the_asin_is_found_however_it_is_written(tmp_path: Path, line: bytes) -> None:
    other = literal({**RECORD_2014, "asin": "B000000002"})
    metadata = read_metadata(write(tmp_path, [other, line]), "amazon2014", ["B000000001"])
    assert metadata.table.select("asin", "title").rows() == [("B000000001", "x")]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{'asin': 'B000000001', 'title': 'x'", "not a Python literal"),
        (b"{'asin': 'B000000001', 'title': open('x')}", "not a Python literal"),
        (b"{'asin': 'B000000001', 'title': 'caf\xe9'}", "not UTF-8"),
        (b"{'asin': 'B000000001', 'title': 'a\0b'}", "NUL byte"),
        (b"{'title': 'no asin'}", "asin is missing"),
        (b"['asin', 'B000000001']", "not a record"),
        (b"{'asin': 'B000000001', 'x': " + b"(" * 5000 + b")" * 5000 + b"}", "not a Python literal"),
        (b"{'asin': 'B000000001', 'x': " + b"-" * 900_000 + b"1}", "not a Python literal"),
        (b"{'asin': 'B000000001', 'x': " + b"+".join([b"1"] * 90_000) + b"}", "not a Python literal"),
        (b"{'asin': 'B000000001', 'x': " + b"9" * 5000 + b"}", "not a Python literal"),
    ],
)
def test_a_bad_line_is_rejected_with_its_place_and_reason(tmp_path: Path, line: bytes, reason: str) -> None:
    good = literal({**RECORD_2014, "asin": "B000000002"})
    metadata = read_metadata(write(tmp_path, [good, b"", line]), "amazon2014", ["B000000001", "B000000002"])
    file, number, found, text = metadata.rejects.row(0)
    assert (file, number, metadata.lines, metadata.table.height) == ("meta.json", 3, 2, 1)
    assert found.startswith(reason)
    assert text == line.decode(errors="replace")[:200]


def test_code_in_a_literal_is_never_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    line = f"{{'asin': 'B000000001', 'title': __import__('pathlib').Path({str(marker)!r}).touch()}}".encode()
    metadata = read_metadata(write(tmp_path, [line]), "amazon2014", ["B000000001"])
    assert metadata.rejects.height == 1
    assert not marker.exists()


def test_of_several_lines_the_fullest_is_kept_wherever_it_stands(tmp_path: Path) -> None:
    lines = [
        literal({"asin": "B000000001", "title": "short"}),
        literal(RECORD_2014),
        literal({**RECORD_2014, "title": "Another"}),
    ]
    tables = []
    for order in permutations(lines):
        metadata = read_metadata(write(tmp_path, list(order)), "amazon2014", ["B000000001"])
        assert metadata.duplicates == 2
        tables.append(metadata.table)
    for table in tables[1:]:
        assert_frame_equal(table, tables[0])
    assert tables[0]["description"].item() == "Soft."


@pytest.mark.parametrize(
    ("source_format", "line", "found"),
    [
        ("amazon2014", b'{"asin": "B000000001"}', "JSON lines"),
        ("amazon2018", b"{'asin': 'B000000001'}", "Python literals"),
    ],
)
def test_the_syntax_of_another_release_is_an_error(
    tmp_path: Path, source_format: AmazonRelease, line: bytes, found: str
) -> None:
    with pytest.raises(InputError, match=f"found {found}.*Correct the format in the catalogue entry"):
        read_metadata(write(tmp_path, [line]), source_format, ["B000000001"])


records = st.fixed_dictionaries(
    {"asin": st.sampled_from([f"B{number:09d}" for number in range(6)])},
    optional={
        "title": st.text(max_size=12),
        "price": st.one_of(st.none(), st.floats(), st.text(max_size=6)),
        "categories": st.lists(st.lists(st.text(max_size=5), max_size=3), max_size=2),
        "related": st.dictionaries(st.just("also_bought"), st.lists(st.just("B000000002"), max_size=2)),
    },
)


@settings(max_examples=150, deadline=None)
@given(
    lines=st.lists(
        st.one_of(
            records.map(literal),
            records.map(lambda record: json.dumps(record).encode()),
            st.binary(max_size=50).map(lambda line: line.replace(b"\n", b"").replace(b"\x1f\x8b", b"")),
            st.builds(lambda record, cut: literal(record)[:cut], records, st.integers(0, 60)),
        ),
        max_size=12,
    ),
    packed=st.booleans(),
)
def test_rows_in_are_rows_kept_duplicate_unwanted_and_rejects(
    tmp_path_factory, lines: list[bytes], packed: bool
) -> None:
    lines = [literal(RECORD_2014), *lines]
    path = write(tmp_path_factory.mktemp("metadata"), lines, packed=packed)
    metadata = read_metadata(path, "amazon2014", ["B000000001", "B000000002", "B000000003"])
    total = metadata.table.height + metadata.duplicates + metadata.unwanted + metadata.rejects.height
    assert total == metadata.lines == sum(1 for line in lines if line.strip())
    assert metadata.table["asin"].is_unique().all()


def test_category_paths_are_cleaned_and_absent_ones_stay_empty() -> None:
    paths = pl.Series("categories", [["A &amp; B", "", "A & B", "C"], None, [], ["C", "A", "C"]])
    assert clean_categories(paths).to_list() == [["A & B", "C"], [], [], ["C", "A", "C"]]


@pytest.mark.parametrize("release", ["amazon2014", "amazon2018", "amazon2023"])
def test_an_array_of_records_is_refused(tmp_path: Path, release: AmazonRelease) -> None:
    path = write(tmp_path, [b"[", *(encode + b"," for encode in [json.dumps(RECORD_2014).encode()] * 2), b"]"])
    with pytest.raises(InputError, match="expected one JSON record a line, found a JSON array of records"):
        read_metadata(path, release, ["B000000001"])


def test_a_title_that_is_a_cut_off_tag_is_none(tmp_path: Path) -> None:
    record = {
        "asin": "B000000001",
        "title": '<span class="a-size-medium a-color-secondary"',
        "brand": "<span class='a-color-secondary'",
        "description": ['<div id="iframeContent"', "A magazine of gardens. \u202e", "#productTitle { color: red; }"],
        "category": ["Magazines"],
    }
    items = read_metadata(write(tmp_path, [json.dumps(record).encode()]), "amazon2018", {"B000000001"}).table
    assert items.select("title", "brand", "description").row(0) == ("", "", "A magazine of gardens.")


def test_half_of_a_surrogate_pair_is_dropped(tmp_path: Path) -> None:
    line = b'{"asin": "B000000001", "title": "A \\ud83d\\ude00 drum\\ud83d, or two\\ude00"}'
    items = read_metadata(write(tmp_path, [line]), "amazon2018", {"B000000001"}).table
    assert items["title"].to_list() == ["A \U0001f600 drum, or two"]
