"""Imports: published split, item texts, feature arrays and neighbour tables, with the ids they bring."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recmodels.errors import InputError
from recmodels.raw.formats.mmrec import read_feature_array, read_interactions, read_items, read_neighbours
from recmodels.schemas.tables import INTERACTIONS, KNN


def write(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def test_pairs_come_with_their_published_split(tmp_path: Path) -> None:
    path = write(tmp_path / "x.inter", "userID\titemID\tx_label", "1\t0\t2", "0\t1\t0", "0\t0\t1")
    imported = read_interactions(path)
    assert imported.table.schema == INTERACTIONS
    assert imported.table.select("user_id", "item_id", "split").rows() == [
        (0, 0, "valid"),
        (0, 1, "train"),
        (1, 0, "test"),
    ]
    assert imported.table["rating"].null_count() == imported.table["timestamp"].null_count() == 3


def test_ratings_and_times_are_read_where_they_are(tmp_path: Path) -> None:
    path = write(
        tmp_path / "x.inter", "userID:token\titemID:token\trating:float\ttimestamp:float", "0\t0\t4.5\t1.3935456e9"
    )
    assert read_interactions(path).table.rows() == [(0, 0, 4.5, 1393545600, None)]


def test_a_pair_in_two_splits_counts_for_the_earlier_one(tmp_path: Path) -> None:
    lines = ["0\t0\t2", "0\t0\t0", "0\t0\t1", "0\t1\t1"]
    for order in (lines, lines[::-1]):
        imported = read_interactions(write(tmp_path / "x.inter", "userID\titemID\tx_label", *order))
        assert imported.table.select("item_id", "split").rows() == [(0, "train"), (1, "valid")]
        assert imported.duplicates == 2


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("0\t1", "2 fields instead of 3"),
        ("0\t1\t0\t9", "4 fields instead of 3"),
        ("-1\t1\t0", "userID is not an id"),
        ("x\t1\t0", "userID is not an id"),
        ("0\t99999999999\t0", "itemID is not an id"),
        ("0\t1.5\t0", "itemID is not an id"),
        ("0\t1\0\t0", "itemID is not an id"),
        ("0\t1\t3", "x_label is not 0, 1 or 2"),
        ("0\t1\t", "x_label is not 0, 1 or 2"),
    ],
)
def test_a_bad_line_is_rejected_with_its_place_and_reason(tmp_path: Path, line: str, reason: str) -> None:
    path = write(tmp_path / "x.inter", "userID\titemID\tx_label", "0\t0\t0", "", line)
    imported = read_interactions(path)
    assert imported.rejects.rows() == [("x.inter", 4, reason, line)]
    assert (imported.table.height, imported.lines) == (1, 2)


fields = st.one_of(st.integers(-2, 5).map(str), st.sampled_from(["0", "1", "2", "", "x", "1e3", "é", "\0"]))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(fields, min_size=1, max_size=4).map("\t".join), max_size=12))
def test_rows_in_are_rows_kept_duplicates_and_rejects(tmp_path_factory, lines: list[str]) -> None:
    lines = ["0\t0\t0", *lines]
    path = write(tmp_path_factory.mktemp("mmrec") / "x.inter", "userID\titemID\tx_label", *lines)
    imported = read_interactions(path)
    total = imported.table.height + imported.duplicates + imported.rejects.height
    assert total == imported.lines == sum(1 for line in lines if line.strip())
    items = read_items(path)
    assert items.table.height + items.duplicates + items.rejects.height == items.lines == imported.lines


@pytest.mark.parametrize("header", ["user\titem\tlabel", "{}", "itemID\tuserid"])
def test_another_header_is_an_error(tmp_path: Path, header: str) -> None:
    with pytest.raises(InputError, match="expected a tab-separated table with the columns userID, itemID"):
        read_interactions(write(tmp_path / "x.inter", header, "0\t0\t0"))


def test_a_file_without_a_valid_row_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none among 1 lines"):
        read_interactions(write(tmp_path / "x.inter", "userID\titemID\tx_label", "a\tb\tc"))


def test_item_texts_are_cleaned_and_may_be_empty(tmp_path: Path) -> None:
    path = write(
        tmp_path / "items.tsv",
        "itemID\tasin\ttitle_keywords\tbrand\tcategories\tprice\timUrl",
        '1\tB000000001\ta "quoted" &amp; b\t3M\tSports | Cycling &amp; More |  \t$5.00\thttp://x',
        "0\t\t\t\t\t\t",
    )
    assert read_items(path).table.rows() == [
        (0, "", "", "", "", [], None, ""),
        (1, "B000000001", 'a "quoted" & b', "", "3M", ["Sports", "Cycling & More"], 5.0, "http://x"),
    ]


def test_of_several_rows_of_an_item_one_is_kept_wherever_it_stands(tmp_path: Path) -> None:
    lines = ["0\tA", "0\tB", "0\t"]
    for order in (lines, lines[::-1]):
        items = read_items(write(tmp_path / "items.tsv", "itemID\ttitle", *order))
        assert items.table["title"].to_list() == ["B"]
        assert items.duplicates == 2


def test_a_feature_array_becomes_an_embedding_table(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([[1.0, 2.0], [0.0, 0.0], [np.nan, 1.0], [3.0, 4.0]]))
    frame = read_feature_array(tmp_path / "x.npy", 4)
    assert frame.schema["embedding"] == pl.Array(pl.Float32, 2)
    assert frame["present"].to_list() == [True, False, False, True]
    assert frame["embedding"].to_list() == [[1, 2], [2, 3], [2, 3], [3, 4]]


@pytest.mark.parametrize(
    ("array", "found"),
    [
        (np.zeros((3, 2)), "none with finite values"),
        (np.ones((4, 2)), r"shape \(4, 2\)"),
        (np.ones((3, 0)), r"shape \(3, 0\)"),
        (np.ones(3), "float64"),
        (np.ones((3, 2), dtype=np.int64), "int64"),
        (np.array([{"a": 1}] * 3, dtype=object), "Python objects in dtype"),
    ],
)
def test_another_array_is_an_error_and_nothing_is_unpickled(tmp_path: Path, array: np.ndarray, found: str) -> None:
    np.save(tmp_path / "x.npy", array, allow_pickle=True)
    with pytest.raises(InputError, match=found):
        read_feature_array(tmp_path / "x.npy", 3)


@pytest.mark.parametrize("content", [b"", b"not an array", b"\x93NUMPY\x01\x00"])
def test_a_damaged_array_is_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(InputError, match="expected a float matrix of 3 rows"):
        read_feature_array(tmp_path / "x.npy", 3)


def test_neighbours_keep_their_published_rank(tmp_path: Path) -> None:
    table = pl.DataFrame({"src": [1, 0, 1, 0], "dst": [0, 0, 1, 1], "cosine": [0.5, 1.0, None, float("nan")]})
    table.write_parquet(tmp_path / "knn.parquet")
    found = read_neighbours(tmp_path / "knn.parquet", 2)
    assert found.schema == KNN
    assert found.rows() == [(0, 0, 0, 1.0), (0, 1, 1, None), (1, 0, 0, 0.5), (1, 1, 1, None)]


@pytest.mark.parametrize(
    "table",
    [
        {"src": [0], "dst": [2]},
        {"src": [-1], "dst": [0]},
        {"src": [0, 0], "dst": [1, 1]},
        {"src": [0], "dst": [None]},
        {"a": [0], "b": [1]},
        {"src": ["x"], "dst": [1]},
    ],
)
def test_other_neighbour_tables_are_errors(tmp_path: Path, table: dict[str, list]) -> None:
    pl.DataFrame(table).write_parquet(tmp_path / "knn.parquet")
    with pytest.raises(InputError, match="expected a Parquet table of src and dst from 0 to 1"):
        read_neighbours(tmp_path / "knn.parquet", 2)


def test_a_file_that_is_no_parquet_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "knn.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(InputError, match="expected a Parquet table"):
        read_neighbours(tmp_path / "knn.parquet", 2)
