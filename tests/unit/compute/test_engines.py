"""The engine of large stages by name: what is refused, and that nothing of Ray is imported before it is needed."""

import importlib.util
import subprocess
import sys

import pytest

from recmodels.compute.engines import ADDRESS_VARIABLE, ENGINE_VARIABLE, compute_from
from recmodels.errors import InputError


@pytest.fixture(autouse=True)
def _unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (ENGINE_VARIABLE, ADDRESS_VARIABLE):
        monkeypatch.delenv(name, raising=False)


def test_without_a_name_this_process_computes_and_the_environment_names_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert compute_from().engine == "local"
    monkeypatch.setenv(ENGINE_VARIABLE, "ray")
    assert compute_from().engine == "ray"
    assert compute_from("local").engine == "local"


def test_an_unknown_engine_is_refused_with_those_there_are() -> None:
    with pytest.raises(InputError, match=r"expected one of local, ray, found 'dask'"):
        compute_from("dask")


def test_ray_without_its_extra_is_refused_with_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"recmodels\[cluster\]"):
        compute_from("ray")


def test_the_client_mode_of_ray_is_refused() -> None:
    with pytest.raises(InputError, match="inside its network"):
        compute_from("ray", "ray://head:10001")


def test_naming_ray_imports_nothing_of_it() -> None:
    code = "import sys, recmodels.compute.engines as e; e.compute_from('ray'); print('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
