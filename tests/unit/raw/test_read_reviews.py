"""Review files of the three releases: every line is kept or rejected, and the good ones do not feel the bad ones."""

import gzip
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from recmodels.errors import InputError
from recmodels.raw.formats.reviews import RAW_REVIEWS, read_reviews

GOOD: dict[str, Any] = {
    "reviewerID": "A1",
    "asin": "B000000001",
    "reviewerName": "Ann",
    "helpful": [0, 1],
    "reviewText": "Nice &amp; soft",
    "overall": 5.0,
    "summary": "Good",
    "unixReviewTime": 1393545600,
    "reviewTime": "02 28, 2014",
}


def encode(record: object) -> bytes:
    return json.dumps(record).encode()


def write(folder: Path, lines: list[bytes], *, packed: bool = False) -> Path:
    content = b"".join(line + b"\n" for line in lines)
    path = folder / "reviews.json"
    path.write_bytes(gzip.compress(content) if packed else content)
    return path


def test_the_fields_of_a_line_are_read(tmp_path: Path) -> None:
    reviews = read_reviews(write(tmp_path, [encode(GOOD)]), "amazon2014")
    assert reviews.table.schema == RAW_REVIEWS
    assert reviews.table.rows() == [("A1", "B000000001", 5.0, 1393545600, "Good", "Nice & soft")]
    assert (reviews.lines, reviews.rejects.height) == (1, 0)


def test_the_2023_release_has_other_names_and_milliseconds(tmp_path: Path) -> None:
    record = {
        "rating": 4.0,
        "title": "Good<br />",
        "text": "Works",
        "images": [{"small_image_url": "x"}],
        "asin": "B00VARIANT",
        "parent_asin": "B00PARENT1",
        "user_id": "AGKHLEW2SOWHNMFQIJGBECAF7INQ",
        "timestamp": 1588687728923,
        "helpful_vote": 0,
        "verified_purchase": True,
    }
    reviews = read_reviews(write(tmp_path, [encode(record)]), "amazon2023")
    assert reviews.table.rows() == [("AGKHLEW2SOWHNMFQIJGBECAF7INQ", "B00PARENT1", 4.0, 1588687728, "Good", "Works")]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"garbage", "not JSON"),
        (b"[1, 2]", "not a JSON object"),
        (encode(GOOD)[:-4], "not JSON"),
        (encode(GOOD) + encode(GOOD), "not JSON"),
        (encode(GOOD).replace(b"Nice", b"Ni\0ce"), "NUL byte"),
        (encode(GOOD).replace(b"Nice", b"caf\xe9"), "not UTF-8"),
        (json.dumps(GOOD).encode("utf-16-le"), "NUL byte"),
        (encode({**GOOD, "reviewerID": None}), "reviewerID is missing"),
        (encode({**GOOD, "reviewerID": " "}), "reviewerID is missing"),
        (encode({key: GOOD[key] for key in GOOD if key != "asin"}), "asin is missing"),
        (encode({key: GOOD[key] for key in GOOD if key != "unixReviewTime"}), "unixReviewTime is missing"),
        (encode({key: GOOD[key] for key in GOOD if key != "overall"}), "overall is missing"),
        (encode({**GOOD, "asin": "B00"}), "asin is not 10 letters or digits"),
        (encode({**GOOD, "asin": "../../etc."}), "asin is not 10 letters or digits"),
        (encode({**GOOD, "overall": "5.0"}), "overall is not a number"),
        (encode({**GOOD, "overall": True}), "overall is not a number"),
        (encode({**GOOD, "overall": 11}), "overall is outside 0-5"),
        (encode({**GOOD, "overall": -1}), "overall is outside 0-5"),
        (encode(GOOD).replace(b"5.0", b"NaN"), "not a JSON object with the expected types"),
        (encode(GOOD).replace(b"5.0", b"1e999"), "not a JSON object with the expected types"),
        (encode({**GOOD, "unixReviewTime": -5}), "unixReviewTime is outside 1995-2100"),
        (encode({**GOOD, "unixReviewTime": 1393545600000}), "unixReviewTime is outside 1995-2100"),
        (encode({**GOOD, "unixReviewTime": 10**30}), "not a JSON object with the expected types"),
        (
            encode(GOOD)[:-1] + b', "x": ' + b"[" * 90_000 + b"]" * 90_000 + b"}",
            "not a JSON object with the expected types",
        ),
        (encode({**GOOD, "unixReviewTime": "now"}), "unixReviewTime is not a number"),
    ],
)
def test_a_bad_line_is_rejected_with_its_place_and_reason(tmp_path: Path, bad: bytes, reason: str) -> None:
    lines = [encode(GOOD), b"", bad, encode({**GOOD, "reviewerID": "A2"})]
    reviews = read_reviews(write(tmp_path, lines), "amazon2014")
    assert reviews.table["reviewer"].to_list() == ["A1", "A2"]
    (file, line, found, text) = reviews.rejects.row(0)
    assert (file, line, reviews.rejects.height, reviews.lines) == ("reviews.json", 3, 1, 3)
    assert found.startswith(reason)
    assert len(text) <= 200
    assert text == bad.decode(errors="replace")[:200]


good_records = st.fixed_dictionaries(
    {
        "reviewerID": st.text("ABC123", min_size=1, max_size=4),
        "asin": st.text("B01", min_size=10, max_size=10),
        "overall": st.sampled_from([1, 2.0, 3, 4.5, 5.0]),
        "unixReviewTime": st.integers(800_000_000, 4_000_000_000),
    },
    optional={
        "reviewText": st.one_of(st.none(), st.text(max_size=20), st.integers(), st.booleans()),
        "summary": st.text(max_size=10),
        "helpful": st.lists(st.integers(0, 9), max_size=2),
        "style": st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2),
    },
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
odd_records = st.dictionaries(st.sampled_from(list(GOOD)), values, max_size=9)
broken_lines = st.one_of(
    st.binary(max_size=60).map(lambda line: line.replace(b"\n", b"").replace(b"\x1f\x8b", b"")),
    odd_records.map(encode),
    st.builds(lambda record, cut: encode(record)[:cut], good_records, st.integers(0, 80)),
)


@pytest.mark.parametrize("opening", [b"[", b" [ ", b"\xef\xbb\xbf[\n", b"\n["])
@pytest.mark.parametrize("packed", [True, False])
def test_an_array_of_reviews_is_refused_with_what_makes_lines_of_it(
    tmp_path: Path, opening: bytes, packed: bool
) -> None:
    text = opening + b",\n".join([encode(GOOD)] * 4) + b"\n]"
    path = write(tmp_path, text.split(b"\n"), packed=packed)
    with pytest.raises(InputError) as refused:
        read_reviews(path, "amazon2014")
    told = str(refused.value)
    assert told.startswith(f"{path}: expected one JSON record a line, found a JSON array of records.")
    assert f"{'gunzip -c' if packed else 'cat'} {path.name} | jq -c '.[]'" in told
    assert "\n" not in told


@settings(max_examples=150, deadline=None)
@given(lines=st.lists(st.one_of(good_records.map(encode), broken_lines), max_size=15), packed=st.booleans())
def test_rows_in_are_rows_kept_and_rejects(tmp_path_factory, lines: list[bytes], packed: bool) -> None:
    lines = [encode(GOOD), *lines]
    reviews = read_reviews(write(tmp_path_factory.mktemp("reviews"), lines, packed=packed), "amazon2014")
    assert reviews.table.height + reviews.rejects.height == sum(1 for line in lines if line.strip())
    assert reviews.rejects["line"].is_unique().all()
    assert reviews.table.null_count().select("reviewer", "asin", "rating", "timestamp").sum_horizontal().item() == 0


@settings(max_examples=80, deadline=None)
@given(
    good=st.lists(good_records, min_size=1, max_size=10),
    bad=st.lists(broken_lines, min_size=1, max_size=4),
    data=st.data(),
)
def test_good_lines_read_the_same_among_bad_ones(tmp_path_factory, good: list, bad: list[bytes], data) -> None:
    folder = tmp_path_factory.mktemp("reviews")
    bad = [line for line in bad if not is_review(folder, line)]
    alone = read_reviews(write(folder, [encode(record) for record in good]), "amazon2014")
    mixed: list[bytes] = [encode(record) for record in good]
    for line in bad:
        mixed.insert(data.draw(st.integers(0, len(mixed))), line)
    assert_frame_equal(read_reviews(write(folder, mixed), "amazon2014").table, alone.table)


def is_review(folder: Path, line: bytes) -> bool:
    try:
        return read_reviews(write(folder, [line]), "amazon2014").table.height > 0
    except InputError:
        return False


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ([b"<html>", b"</html>"], "2 unreadable lines, the first: not JSON"),
        ([encode({"user_id": "A", "parent_asin": "B000000001", "rating": 5, "timestamp": 1})], "reviewerID is missing"),
        ([b"", b" "], "only blank lines"),
    ],
)
def test_a_file_of_another_format_is_an_error(tmp_path: Path, lines: list[bytes], found: str) -> None:
    with pytest.raises(InputError, match=r"reviews of the amazon2014 format .JSON lines with reviewerID") as error:
        read_reviews(write(tmp_path, lines), "amazon2014")
    assert found in str(error.value)


def test_the_sample_of_2014_is_read_whole(shared_data: Path) -> None:
    path = shared_data / "raw" / "samples" / "reviews_2014_sample.json"
    reviews = read_reviews(path, "amazon2014")
    first = json.loads(path.read_bytes().splitlines()[0])
    assert (reviews.table.height, reviews.rejects.height) == (50, 0)
    assert reviews.table.row(0)[:4] == (first["reviewerID"], first["asin"], first["overall"], first["unixReviewTime"])


def test_many_blocks_are_one_table(tmp_path: Path) -> None:
    lines = [encode({**GOOD, "reviewerID": f"A{i}", "reviewText": "x" * 4000}) for i in range(5000)]
    lines[4000] = b"garbage"
    reviews = read_reviews(write(tmp_path, lines, packed=True), "amazon2014")
    assert reviews.table["reviewer"].to_list() == [f"A{i}" for i in range(5000) if i != 4000]
    assert reviews.rejects.select("line", "text").rows() == [(4001, "garbage")]
    assert isinstance(reviews.table, pl.DataFrame)
