"""Sets of equal rows against numpy, also where hashes of different rows are equal."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from recmodels.graphs import distinct
from recmodels.graphs.distinct import distinct_rows

FEW = arrays(np.float32, st.tuples(st.integers(1, 40), st.integers(1, 3)), elements=st.integers(-1, 1).map(float))


def _expected(x: np.ndarray) -> tuple[list[int], list[int]]:
    seen: dict[tuple[float, ...], int] = {}
    row = [seen.setdefault(tuple(values), len(seen)) for values in x.tolist()]
    return [row.index(number) for number in range(len(seen))], row


@given(FEW)
def test_rows_are_numbered_by_their_first_equal(x: np.ndarray) -> None:
    first, row = distinct_rows(x + np.float32(0))
    assert (first.tolist(), row.tolist()) == _expected(x)


@given(FEW, st.integers(1, 3))
def test_different_rows_with_one_hash_are_told_apart(x: np.ndarray, hashes: int) -> None:
    good = distinct._hashes
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distinct, "_BLOCK_ROWS", 3)
        patch.setattr(distinct, "_hashes", lambda unit, seed: good(unit, seed) % (hashes + seed))
        first, row = distinct_rows(x + np.float32(0))
    assert (first.tolist(), row.tolist()) == _expected(x)


def test_memory_is_a_few_numbers_a_row() -> None:
    unit = np.random.default_rng(0).standard_normal((100_000, 32), dtype=np.float32)
    tracemalloc.start()
    results = distinct_rows(unit)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (peak - sum(result.nbytes for result in results)) / len(unit) < 60  # 25, and blocks of 4096 rows
