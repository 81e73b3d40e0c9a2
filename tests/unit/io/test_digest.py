"""Digests follow the content of a table and nothing else."""

from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recmodels.io.digest import digest_of, frame_digest

FRAME = pl.DataFrame(
    {
        "n": [1, None, 3],
        "text": ["a", "bé", None],
        "list": [["x", ""], [], None],
        "vector": pl.Series([[1.0, 2.0]] * 3, dtype=pl.Array(pl.Float32, 2)),
    }
)


def test_storage_does_not_matter(tmp_path: Path) -> None:
    FRAME.write_parquet(tmp_path / "x.parquet")
    assert frame_digest(pl.read_parquet(tmp_path / "x.parquet")) == frame_digest(FRAME)
    assert frame_digest(pl.concat([FRAME[:1], FRAME[1:]], rechunk=False)) == frame_digest(FRAME)


@pytest.mark.parametrize(
    "changed",
    [
        FRAME[[1, 0, 2]],
        FRAME.rename({"n": "m"}),
        FRAME.cast({"n": pl.Int32}),
        FRAME.with_columns(n=pl.Series([1, 3, None])),
        FRAME.with_columns(text=pl.Series(["ab", "é", None])),
        FRAME.with_columns(text=pl.Series(["a", "bé", ""])),
        FRAME.with_columns(list=pl.Series([["x"], [""], None])),
        FRAME.with_columns(list=pl.Series([["x", ""], None, []], dtype=pl.List(pl.String))),
    ],
)
def test_any_change_matters(changed: pl.DataFrame) -> None:
    assert frame_digest(changed) != frame_digest(FRAME)


def test_borders_between_strings_matter() -> None:
    assert digest_of("ab", "c") != digest_of("a", "bc")


def test_a_digest_is_the_same_on_every_machine_and_with_every_library() -> None:
    day = pl.Series([0, 10**12], dtype=pl.Datetime("ms", "UTC"))
    frame = FRAME[:2].with_columns(
        split=pl.Series(["test", None], dtype=pl.Enum(["train", "test"])), flag=pl.Series([True, False]), day=day
    )
    assert frame_digest(frame) == "b9361dbae34cbfca17f7505e32fa6cc2"
    assert frame_digest(FRAME.cast({"n": pl.Int16}).clear()) == "a1b1d95f335a6a2ffab70156cb21bce3"
    assert (
        frame_digest(pl.select(x=pl.int_range(100_000).cast(pl.Float32), y=pl.lit("é")))
        == "a61dd2e977c42a8ed2098ead25fbeff5"
    )


def test_a_type_without_a_definition_is_refused() -> None:
    with pytest.raises(TypeError, match="Categorical"):
        frame_digest(pl.DataFrame({"x": pl.Series(["a"], dtype=pl.Categorical)}))


@given(st.integers(8190, 8194), st.integers(0, 3))
def test_rows_on_both_sides_of_a_block_matter(rows: int, moved: int) -> None:
    frame = pl.select(x=pl.int_range(rows), t=pl.int_range(rows).cast(pl.String))
    other = frame.with_columns(t=pl.when(pl.col("x") == rows - 1 - moved).then(None).otherwise("t"))
    assert frame_digest(pl.concat([frame[:7], frame[7:]], rechunk=False)) == frame_digest(frame) != frame_digest(other)
