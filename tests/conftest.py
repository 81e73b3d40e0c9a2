"""Fixtures for every test: its own environment variables, and the real data beside the repository, where it lies."""

import os
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import settings

# How long one example takes says something of the machine, not of the code.
settings.register_profile("recmodels", deadline=None)
settings.load_profile("recmodels")
# For a night, chosen with --hypothesis-profile=thorough.
settings.register_profile("thorough", deadline=None, max_examples=2000)

SHARED_DATA_VARIABLE = "RECMODELS_SHARED_DATA"
REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with the real data sets; tests that ask for it are skipped where there is none."""
    folder = Path(os.environ.get(SHARED_DATA_VARIABLE) or REPOSITORY.parent / "shared" / "data")
    if not (folder / "mmrec").is_dir():
        pytest.skip(f"no real data at {folder}: name its folder with {SHARED_DATA_VARIABLE}")
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs CUDA where there is none."""
    if not any(item.get_closest_marker("gpu") for item in items):
        return
    import torch

    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """Forget what a test sets in the environment, as commands that run in its process do."""
    with mock.patch.dict(os.environ):
        yield
