"""What the pages of docs/ and the README tell people to type is there."""

import re
from pathlib import Path

import pytest
import typer.main

from pipelines.cli.main import app

REPOSITORY = Path(__file__).resolve().parents[3]
COMMANDS = vars(typer.main.get_command(app))["commands"]
TYPED = [
    (page.name, line)
    for page in [REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md")]
    for line in re.findall(r"`(?:\.venv/bin/)?recmodels ([^`]+)`", page.read_text())
    if not line.startswith("--")
]


@pytest.mark.parametrize(("page", "line"), TYPED)
def test_every_command_and_option_that_is_shown_exists(page: str, line: str) -> None:
    name, *rest = line.replace("[", " ").replace("]", " ").split()
    assert name in COMMANDS, page
    known = {option for parameter in COMMANDS[name].params for option in (*parameter.opts, *parameter.secondary_opts)}
    shown = {word.partition("=")[0] for word in rest if re.match(r"--?[a-z]", word)}
    assert shown <= known | {"--help"}, page


def test_every_command_by_name_is_documented() -> None:
    shown = {line.split()[0] for page, line in TYPED if page == "operating.md"}
    assert {"recommend", "similar", "leaderboard", "compare", "datasets", "models"} <= shown
