"""Digests follow the content of a table and nothing else."""

from pathlib import Path

import polars as pl
import pytest

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
