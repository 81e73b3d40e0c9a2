"""The page's example runs as it stands, and its catalogue is valid."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

from recmodels.catalogue.entries import load_catalogue
from recmodels.settings import tuning_config, validated_entry

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "tuning.md").read_text()


def test_the_example_runs() -> None:
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    checks = "\nassert result.table.height == 4\nassert config.training.epochs == 3\n"
    run = subprocess.run([sys.executable, "-c", block + checks], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_the_settings_are_valid() -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", PAGE, flags=re.DOTALL)
    entry = load_catalogue()["baby"].model_copy(update=tomllib.loads(block)["baby"])
    assert tuning_config(validated_entry(entry)).patience == 100
