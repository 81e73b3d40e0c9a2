"""Freed arrays stay with the process during a training, and go back to the operating system after it."""

import ctypes
import resource
import sys

import psutil
import pytest
import torch

from recmodels.models.example import example_data
from recmodels.models.registry import build_model, resolve_config
from recmodels.training.memory import freed_memory_kept
from recmodels.training.trainer import fit

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"), reason="no GNU C library"
)
PAGES_A_ROUND = 4 * 5120


def _faults_of_a_round() -> int:
    """Fill four arrays of 20 MiB, free them, and return how many pages the operating system handed out for them."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    arrays = [torch.ones(5 << 20) for _ in range(4)]
    del arrays
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def test_freed_arrays_are_used_again_and_given_back_at_the_end() -> None:
    with freed_memory_kept():
        _faults_of_a_round()
        assert sum(_faults_of_a_round() for _ in range(5)) < PAGES_A_ROUND / 2
        kept = psutil.Process().memory_info().rss
    assert psutil.Process().memory_info().rss < kept - 2 * (20 << 20)


def test_a_training_keeps_them() -> None:
    data = example_data()
    config = resolve_config("bpr", {"embedding_size": 4, "training": {"epochs": 7, "patience": 100, "device": "cpu"}})
    faults: list[int] = []
    fit(
        build_model("bpr", config, data, 0), data, seed=0, on_epoch=[lambda record: faults.append(_faults_of_a_round())]
    )
    assert sum(faults[1:]) < PAGES_A_ROUND / 2
