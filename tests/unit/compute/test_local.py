"""Blocks and parts in this process: the order, laziness and what a part is asked."""

from collections.abc import Iterator

import pytest

from recmodels.compute.local import LOCAL
from recmodels.errors import InputError


def _add(shared: int, block: int) -> int:
    return shared + block


class _Part:
    def __init__(self, shared: int, part: int) -> None:
        self.value = shared * part

    def plus(self, *numbers: int) -> int:
        return self.value + sum(numbers)


def test_results_come_in_the_order_of_the_blocks_and_no_block_is_taken_before_it_is_needed() -> None:
    taken: list[int] = []

    def blocks() -> Iterator[int]:
        for block in (3, 1, 2):
            taken.append(block)
            yield block

    results = LOCAL.map(_add, blocks(), shared=10)
    assert next(results) == 13
    assert taken == [3]
    assert list(results) == [11, 12]


def test_every_part_answers_in_order_with_what_all_and_what_each_is_given() -> None:
    with LOCAL.group(_Part, [1, 2, 3], shared=10) as group:
        assert group.call("plus") == [10, 20, 30]
        assert group.call("plus", 1) == [11, 21, 31]
        assert group.call("plus", 1, each=[100, 200, 300]) == [111, 221, 331]


def test_an_error_of_a_block_comes_as_itself() -> None:
    def wrong(shared: None, block: int) -> None:
        raise InputError(f"block {block}", expected="nothing", found="something")

    with pytest.raises(InputError, match="block 7"):
        list(LOCAL.map(wrong, [7]))


def test_the_record_names_the_engine() -> None:
    assert LOCAL.record() == {"engine": "local"}
