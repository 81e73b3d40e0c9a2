"""A small shop and a language model server on a loopback port."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback_llm import LoopbackLLM
from profile_shop import Shop, make_shop


@pytest.fixture
def shop() -> Shop:
    return make_shop()


@pytest.fixture
def llm() -> Iterator[LoopbackLLM]:
    with LoopbackLLM() as server:
        yield server


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "profiles.sqlite"
