"""Dagster's own command line, `dg`, works in the repository by the settings in `pyproject.toml`."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
import yaml

from pipelines.definitions import defs

REPOSITORY = Path(__file__).resolve().parents[2]


def _dg(folder: Path, *arguments: str) -> str:
    """Return what `dg` prints in a folder; it succeeds."""
    environment = os.environ | {"PYTHONPATH": str(folder), "COLUMNS": "160"}
    done = subprocess.run(
        [Path(sys.executable).with_name("dg"), *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _assets(folder: Path) -> set[str]:
    return {asset["asset_key"] for asset in json.loads(_dg(folder, "list", "defs", "--json"))["assets"]}


@pytest.mark.slow
def test_dg_loads_the_definitions_and_lists_every_asset() -> None:
    assert "All definitions loaded successfully." in _dg(REPOSITORY, "check", "defs")
    assert _assets(REPOSITORY) == {key.to_user_string() for key in defs.resolve_asset_graph().get_all_asset_keys()}


@pytest.mark.slow
def test_a_scaffolded_asset_is_in_the_graph(tmp_path: Path) -> None:
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    for package in ("assets", "pipelines", "recmodels"):
        shutil.copytree(REPOSITORY / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    _dg(tmp_path, "scaffold", "defs", "dagster.asset", "bestsellers.py")
    assert (tmp_path / "assets" / "bestsellers.py").is_file()
    assert "bestsellers" in _assets(tmp_path)


def test_the_workspace_names_the_same_definitions() -> None:
    (location,) = yaml.safe_load((REPOSITORY / "workspace.yaml").read_text())["load_from"]
    assert location == {"python_module": "pipelines.definitions"}
    assert isinstance(defs, dg.Definitions)
