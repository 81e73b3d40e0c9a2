"""Sparse matrices from tables, and the cutting of their rows into blocks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recmodels.errors import InputError
from recmodels.graphs.matrices import entry_keys, interaction_matrix, occurs_in, row_blocks


@given(st.lists(st.integers(0, 9), max_size=30), st.integers(1, 12))
def test_row_blocks_cover_every_row_once_and_stay_near_their_size(counts: list[int], n_entries: int) -> None:
    indptr = np.concatenate(([0], np.cumsum(counts, dtype=np.int64)))
    blocks = row_blocks(indptr, n_entries)
    assert [row for first, last in blocks for row in range(first, last)] == list(range(len(counts)))
    for first, last in blocks:
        assert indptr[last] - indptr[first] < n_entries + max(counts)


@given(st.lists(st.integers(0, 20)), st.sets(st.integers(0, 20)))
def test_a_key_occurs_in_a_table_where_numpy_finds_it(keys: list[int], table: set[int]) -> None:
    asked, ascending = np.array(keys, dtype=np.int64).reshape(-1, 1), np.array(sorted(table), dtype=np.int64)
    np.testing.assert_array_equal(occurs_in(asked, ascending), np.isin(asked, ascending))


def test_repeated_pairs_count_once_and_come_out_sorted() -> None:
    matrix = interaction_matrix([1, 0, 1, 1], [2, 0, 0, 2], 3, 4)
    assert matrix.shape == (3, 4)
    assert matrix.indices.tolist() == [0, 0, 2]
    assert matrix.indices.dtype == matrix.indptr.dtype == np.int32
    assert matrix.data.tolist() == [1.0, 1.0, 1.0]
    assert entry_keys(matrix).tolist() == [0, 4, 6]


def test_no_pair_gives_an_empty_matrix() -> None:
    assert interaction_matrix([], [], 3, 4).nnz == 0


@pytest.mark.parametrize(
    ("users", "items", "message"),
    [
        ([3], [0], "user ids"),
        ([0], [4], "item ids"),
        ([0], [-1], "item ids"),
        ([0, 1], [0], "as many"),
        ([True], [0.5], "integers"),
    ],
)
def test_pairs_that_do_not_fit_are_refused(users: list[int], items: list[int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        interaction_matrix(users, items, 3, 4)
