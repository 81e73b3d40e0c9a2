"""The k-core is the largest part in which everyone has k edges."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recmodels.data.kcore import k_core_mask, k_core_masks

edges = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=60)


def brute_force(pairs: list[tuple[int, int]], k: int) -> list[tuple[int, int]]:
    while True:
        kept = [
            (user, item)
            for user, item in pairs
            if sum(u == user for u, _ in pairs) >= k and sum(i == item for _, i in pairs) >= k
        ]
        if kept == pairs:
            return kept
        pairs = kept


@given(edges, st.integers(1, 6))
def test_it_is_what_removing_one_round_after_another_leaves(pairs: list[tuple[int, int]], k: int) -> None:
    table = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    mask = k_core_mask(table[:, 0], table[:, 1], k)
    assert [pair for pair, kept in zip(pairs, mask, strict=True) if kept] == brute_force(pairs, k)


@given(edges, st.integers(2, 6), st.randoms())
def test_it_does_not_depend_on_the_order(pairs: list[tuple[int, int]], k: int, random) -> None:
    def core(pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
        table = np.array(pairs, dtype=np.int64).reshape(-1, 2)
        return sorted(pair for pair, kept in zip(pairs, k_core_mask(*table.T, k), strict=True) if kept)

    shuffled = list(pairs)
    random.shuffle(shuffled)
    assert core(shuffled) == core(pairs)


@pytest.mark.parametrize("k", [0, 1])
def test_one_keeps_everything(k: int) -> None:
    assert k_core_mask(np.array([0, 5]), np.array([3, 3]), k).all()


@given(edges, st.integers(1, 6), st.integers(1, 5))
def test_parts_of_users_keep_what_the_whole_keeps(pairs: list[tuple[int, int]], k: int, n_parts: int) -> None:
    parts = [[pair for pair in pairs if pair[0] % n_parts == part] for part in range(n_parts)]
    tables = [np.array(part, dtype=np.int64).reshape(-1, 2) for part in parts]
    masks = k_core_masks([(table[:, 0] // n_parts, table[:, 1]) for table in tables], k)
    kept = [
        pair for part, mask in zip(parts, masks, strict=True) for pair, keep in zip(part, mask, strict=True) if keep
    ]
    assert sorted(kept) == sorted(brute_force(pairs, k))
