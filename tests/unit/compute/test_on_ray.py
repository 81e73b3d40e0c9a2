"""Blocks and parts on Ray in this machine: the order, bounded laziness, and errors as themselves."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from unittest import mock

import numpy as np
import pytest

from recmodels.compute.local import LOCAL
from recmodels.compute.on_ray import OnRay
from recmodels.errors import InputError, TransientFailure

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ray_here() -> Iterator[OnRay]:
    """Ray with two processors in this machine, whose processes find this module."""
    import ray

    handler = signal.getsignal(signal.SIGTERM)
    with mock.patch.dict(os.environ, {"PYTHONPATH": os.pathsep.join(sys.path)}):
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    signal.signal(signal.SIGTERM, handler)
    yield OnRay()
    ray.shutdown()


def _scaled(shared: np.ndarray, block: int) -> np.ndarray:
    time.sleep(0.1 * (block % 3))
    return shared * block


def _wrong(shared: None, block: int) -> int:
    if block == 3:
        raise InputError(f"block {block}", expected="nothing", found="something", action="Mend it.")
    return block


def _ends_its_process(shared: None, block: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class _Part:
    def __init__(self, shared: np.ndarray, part: int) -> None:
        self.values = shared * part

    def plus(self, *numbers: float) -> np.ndarray:
        return self.values + sum(numbers)

    def refuse(self) -> None:
        raise InputError("part", expected="nothing", found="something")


def test_results_are_those_of_this_process_in_their_order(ray_here: OnRay) -> None:
    shared = np.arange(5.0)
    local = list(LOCAL.map(_scaled, range(9), shared=shared))
    np.testing.assert_array_equal(list(ray_here.map(_scaled, range(9), shared=shared)), local)


def test_blocks_are_taken_as_they_are_needed(ray_here: OnRay) -> None:
    taken: list[int] = []

    def blocks() -> Iterator[int]:
        for block in range(100):
            taken.append(block)
            yield block

    results = ray_here.map(_scaled, blocks(), shared=np.ones(1))
    assert [next(results)[0] for _ in range(3)] == [0, 1, 2]
    assert len(taken) <= 8
    results.close()


def test_an_error_comes_as_itself_after_the_results_before_it(ray_here: OnRay) -> None:
    results = ray_here.map(_wrong, range(6))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(InputError) as caught:
        next(results)
    assert type(caught.value) is InputError
    assert str(caught.value) == "block 3: expected nothing, found something. Mend it."
    assert ray_here.record()["repeated"] == 0


def test_an_error_where_blocks_come_from_comes_after_the_results_before_it(ray_here: OnRay) -> None:
    def blocks() -> Iterator[int]:
        yield from (1, 2)
        raise InputError("line 3", expected="a number", found="none")

    results = ray_here.map(_scaled, blocks(), shared=np.ones(1))
    assert [next(results)[0], next(results)[0]] == [1, 2]
    with pytest.raises(InputError, match="line 3"):
        next(results)


def test_a_block_that_ends_its_process_again_and_again_is_given_up(ray_here: OnRay) -> None:
    compute = OnRay()
    with pytest.raises(TransientFailure, match="block 0: its machine or process ended 5 times"):
        list(compute.map(_ends_its_process, [0]))
    assert compute.record() == {"engine": "ray", "nodes": 1, "blocks": 0, "repeated": 4}


def test_more_parts_than_processors_answer_in_their_order(ray_here: OnRay) -> None:
    shared = np.arange(3.0)
    each = [10.0 * part for part in range(7)]
    with LOCAL.group(_Part, range(7), shared=shared) as local, ray_here.group(_Part, range(7), shared=shared) as group:
        np.testing.assert_array_equal(group.call("plus", 1.0), local.call("plus", 1.0))
        np.testing.assert_array_equal(group.call("plus", 1.0, each=each), local.call("plus", 1.0, each=each))
        with pytest.raises(InputError, match="part: expected nothing"):
            group.call("refuse")
        np.testing.assert_array_equal(group.call("plus"), local.call("plus"))


def test_the_end_of_a_group_frees_its_processors(ray_here: OnRay) -> None:
    for _ in range(3):
        with ray_here.group(_Part, range(4), shared=np.ones(1)) as group:
            assert len(group.call("plus")) == 4


def test_an_address_where_nothing_answers_is_refused() -> None:
    code = "from recmodels.compute.on_ray import OnRay; list(OnRay('127.0.0.1:9').map(print, [1]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "InputError: Ray at 127.0.0.1:9: expected a head of Ray" in done.stderr
