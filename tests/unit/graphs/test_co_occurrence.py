"""Cosines of co-occurrence against sets and scikit-learn, and pruning against a sort."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.metrics.pairwise import cosine_similarity

from recmodels.errors import InputError
from recmodels.graphs import co_occurrence
from recmodels.graphs.co_occurrence import cosines_of_columns, largest_of_rows

ROWS, COLUMNS = 12, 9


def pairs(seed: int) -> sparse.csr_array:
    """A random 0/1 matrix with an empty column and two equal ones."""
    dense = (np.random.default_rng(seed).random((ROWS, COLUMNS)) < 0.3).astype(np.float32)
    dense[:, 3], dense[:, 5] = 0, dense[:, 6]
    return sparse.csr_array(dense)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), block=st.sampled_from([1, 40, 1 << 23]))
def test_cosines_are_those_of_the_sets_of_rows(seed: int, block: int) -> None:
    matrix = pairs(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(co_occurrence, "_BLOCK_PRODUCTS", block)
        found = cosines_of_columns(matrix).toarray()
        shrunk = cosines_of_columns(matrix, shrinkage=2.0).toarray()
    expected = cosine_similarity(matrix.toarray().T)
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_array_equal(found, found.T)
    members = [set(np.flatnonzero(column)) for column in matrix.toarray().T]
    for first in range(COLUMNS):
        for second in range(COLUMNS):
            if first != second:
                equal = members[first] == members[second] != set()
                assert (found[first, second] == 1) == equal
                common = len(members[first] & members[second])
                size = math.sqrt(len(members[first]) * len(members[second])) + 2
                assert shrunk[first, second] == pytest.approx(common / size)
    assert not np.diagonal(found).any()
    assert 0 <= found.min() <= found.max() <= 1


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), k=st.integers(1, COLUMNS))
def test_the_largest_of_each_row_stay_and_the_first_of_equals(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    dense = rng.integers(0, 4, size=(ROWS, COLUMNS)).astype(np.float32)
    expected = np.zeros_like(dense)
    for row, values in enumerate(dense):
        best = [column for column in np.argsort(-values, kind="stable")[:k] if values[column]]
        expected[row, best] = values[best]
    np.testing.assert_array_equal(largest_of_rows(sparse.csr_array(dense), k).toarray(), expected)


def test_pruned_cosines_are_the_largest_of_all() -> None:
    matrix = pairs(3)
    pruned = cosines_of_columns(matrix, 2).toarray()
    np.testing.assert_array_equal(pruned, largest_of_rows(cosines_of_columns(matrix), 2).toarray())


def test_no_neighbours_and_negative_shrinkage_are_refused() -> None:
    with pytest.raises(InputError, match="neighbours: expected at least 1, found 0"):
        cosines_of_columns(pairs(0), 0)
    with pytest.raises(InputError, match="shrinkage"):
        cosines_of_columns(pairs(0), shrinkage=-1.0)
