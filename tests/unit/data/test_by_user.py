"""Wherever a raw file is cut into blocks, and its users into parts, the same tables come out."""

import json
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from recmodels.catalogue.entries import DatasetEntry, Source
from recmodels.data.by_user import Limits
from recmodels.data.dump import Dump, load_dump
from recmodels.data.raw_files import prepare_raw_files
from recmodels.errors import InputError
from recmodels.raw.formats.base import InBlocks
from recmodels.raw.formats.registry import FORMATS
from recmodels.raw.formats.reviews import reviews_in_blocks
from recmodels.raw.formats.table import interactions_in_blocks

TABLES = ("items", "users", "reviews", "interactions", "rejects")
UNCUT = Limits(part_bytes=1 << 40, held_bytes=1 << 40)

Row = tuple[str, str, int, int, str]
rows = st.lists(
    st.tuples(
        st.sampled_from(["Ann", "Bob", "Çem", ""]),
        st.sampled_from("123"),
        st.integers(0, 2),
        st.integers(1, 5),
        st.sampled_from(["", "good", "bad,\n“so”", '"']),
    ),
    min_size=8,
    max_size=40,
)
WHOLE: list[Row] = [(user, item, 1, 3, "") for user in ("Ann", "Bob", "Dan") for item in "3124"]
cuts = st.builds(Limits, part_bytes=st.integers(400, 2000), held_bytes=st.sampled_from([0, 200, 1 << 30]))


def expected(found: list[Row], k: int) -> list[tuple[str, str, int, int, str]]:
    """Return the rows that stay, in a few lines of plain Python."""
    first: dict[tuple[str, str], tuple[int, int, str]] = {}
    for user, item, time, rating, text in found:
        if user:
            first[user, item] = min(first.get((user, item), (time, rating, text)), (time, rating, text))
    while True:
        kept = {
            (user, item): row
            for (user, item), row in first.items()
            if sum(u == user for u, _ in first) >= k and sum(i == item for _, i in first) >= k
        }
        if len(kept) == len(first):
            return sorted((user, item, *row) for (user, item), row in kept.items())
        first = kept


def as_reviews(path: Path, found: list[Row]) -> None:
    records = [
        {"reviewerID": u, "asin": f"B00000000{i}", "unixReviewTime": 10**9 + t, "overall": r, "reviewText": x}
        for u, i, t, r, x in found
    ]
    lines = [json.dumps(record) for record in records]
    path.write_text("\n".join(["no record", *lines[:2], "", *lines[2:], "{}"]) + "\n")


def as_parquet(path: Path, found: list[Row]) -> None:
    columns = ("user", "item", "timestamp", "rating", "text")
    table = pl.DataFrame(dict(zip(columns, zip(*found, strict=True), strict=True)))
    table.write_parquet(path, row_group_size=7)


def loaded(folder: Path, form: str, k: int, limits: Limits, in_blocks: InBlocks | None = None) -> Dump:
    path = next(folder.iterdir())
    role = FORMATS[form].interactions
    source = Source(files={role: path.name}, k_core=k)
    entry = DatasetEntry(key="cut", title="Cut", domain="things", sources={form: source})
    with pytest.MonkeyPatch.context() as patch:
        if in_blocks is not None:
            patch.setitem(FORMATS, form, replace(FORMATS[form], in_blocks=in_blocks, mapped=None))
        return load_dump(prepare_raw_files(entry, folder), entry, limits=limits)


def check(folder: Path, form: str, found: list[Row], k: int, limits: Limits, in_blocks: InBlocks) -> Dump | None:
    """Make sure that a cut gives what none gives, and what plain Python finds; return it."""
    kept = expected(found, k)
    if not kept:
        with pytest.raises(InputError):
            loaded(folder, form, k, limits, in_blocks)
        return None
    whole, cut = loaded(folder, form, k, UNCUT), loaded(folder, form, k, limits, in_blocks)
    for table in TABLES:
        assert_frame_equal(getattr(whole, table), getattr(cut, table))
    assert whole.counts == cut.counts
    names = cut.interactions.join(cut.users, on="user_id").join(cut.items, on="item_id").sort("user_id", "item_id")
    assert names.select("reviewer_id", pl.col("asin").str.tail(1), "rating").rows() == [
        (user, item, rating) for user, item, _, rating, _ in kept
    ]
    assert cut.users["reviewer_id"].to_list() == sorted({user for user, *_ in kept})
    return cut


@settings(max_examples=20, deadline=None)
@example(WHOLE, 2, Limits(part_bytes=200), 50)
@given(rows, st.integers(1, 3), cuts, st.integers(1, 400))
def test_reviews(
    tmp_path_factory: pytest.TempPathFactory, found: list[Row], k: int, limits: Limits, block_bytes: int
) -> None:
    folder = tmp_path_factory.mktemp("reviews")
    as_reviews(folder / "reviews.json", found)
    cut = check(folder, "amazon2014", found, k, limits, reviews_in_blocks("amazon2014", block_bytes=block_bytes))
    if cut is not None:
        assert cut.rejects["line"].to_list()[0] == 1
        assert cut.rejects.height == 2 + sum(not user for user, *_ in found)
        assert cut.counts["review_lines"] == len(found) + 2


@settings(max_examples=20, deadline=None)
@example(WHOLE, 2, Limits(part_bytes=200), 2)
@given(rows, st.integers(1, 3), cuts, st.integers(1, 20))
def test_a_table(
    tmp_path_factory: pytest.TempPathFactory, found: list[Row], k: int, limits: Limits, rows_a_block: int
) -> None:
    folder = tmp_path_factory.mktemp("table")
    as_parquet(folder / "ratings.parquet", found)
    cut = check(folder, "table", found, k, limits, interactions_in_blocks({}, rows_a_block=rows_a_block))
    if cut is not None:
        assert cut.rejects["line"].to_list() == [line for line, row in enumerate(found, start=1) if not row[0]]


def test_a_format_that_reads_files_whole_is_dealt_out_the_same(tmp_path: Path) -> None:
    found: list[Row] = [(user, item, 1, 3, "") for user in ("Ann", "Bob", "Dan") for item in "123"]
    as_parquet(tmp_path / "ratings.parquet", found)
    whole = loaded(tmp_path, "table", 2, UNCUT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FORMATS, "table", replace(FORMATS["table"], in_blocks=None))
        dump = loaded(tmp_path, "table", 2, Limits(part_bytes=1))
    assert_frame_equal(whole.interactions, dump.interactions)
    assert dump.counts == whole.counts


def test_what_waited_on_disk_is_gone(tmp_path: Path) -> None:
    scratch, folder = tmp_path / "scratch", tmp_path / "raw"
    folder.mkdir()
    as_parquet(folder / "ratings.parquet", [("Ann", "1", 1, 3, ""), ("Bob", "1", 1, 3, "")])
    assert loaded(folder, "table", 1, Limits(1, 0, scratch)).interactions.height == 2
    with pytest.raises(InputError):
        loaded(folder, "table", 9, Limits(1, 0, scratch))
    assert list(scratch.iterdir()) == []
