"""Rows on a terminal and in a pipe, and the list of models, which needs no data."""

import json

import pytest

from pipelines.cli.main import main
from pipelines.cli.rows import printable, show_rows
from recmodels.models.registry import MODELS

HOSTILE = "\x1b[31mred\x1b[0m \u202egnp.exe\n[bold]x[/] :smile: <b>"
ROWS = [
    {"asin": "B1", "rank": 1, "title": HOSTILE, "score": 0.5, "tags": ["a", "b"]},
    {"asin": "B22", "rank": 10, "title": None, "score": 12.25, "tags": []},
]


def test_a_title_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    show_rows(ROWS, as_json=False)
    output = capsys.readouterr().out
    assert "\x1b" not in output
    assert "\u202e" not in output
    assert len(output.splitlines()) == 3
    assert "[bold]x[/] :smile: <b>" in output


def test_columns_are_whole_and_numbers_stand_to_the_right(capsys: pytest.CaptureFixture[str]) -> None:
    show_rows([{"name": "x" * 60, "k": 5, "other": "y" * 60}, {"name": "書", "k": 20, "other": ""}], as_json=False)
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.split() == ["name", "k", "other"]
    assert first == f"{'x' * 60}   5  {'y' * 60}"
    assert second == f"書{' ' * 58}  20"  # a wide character takes two places


def test_json_is_what_was_given(capsys: pytest.CaptureFixture[str]) -> None:
    show_rows(ROWS, as_json=True)
    assert json.loads(capsys.readouterr().out) == ROWS
    show_rows([], as_json=True)
    assert json.loads(capsys.readouterr().out) == []


def test_long_texts_are_cut() -> None:
    assert printable("x" * 80, 10) == "x" * 9 + "…"
    assert printable(" a\tb ", 10) == "a b"


def test_the_models_and_what_they_need(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--json"]) == 0
    rows = {row["model"]: row for row in json.loads(capsys.readouterr().out)}
    assert list(rows) == list(MODELS)
    assert rows["ease"]["needs"] == ["interactions"]
    assert rows["ease"]["calibrated"] == "calibrated/ease"
    assert rows["vbpr"]["inputs"] == ["item_image_embeddings", "item_text_embeddings"]
    assert {"item texts", "user profiles", "transport plan"} < set(rows["blast"]["needs"])
    assert all(set(row["inputs"]) == MODELS[name].inputs for name, row in rows.items())
    assert main(["models"]) == 0
    text = capsys.readouterr().out
    assert "Steck, WWW 2019" in text
    assert "calibrated/<model>" in text
