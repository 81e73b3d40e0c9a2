"""Fixtures for every test: the real data that lies beside the repository, where it does."""

import os
from pathlib import Path

import pytest

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
