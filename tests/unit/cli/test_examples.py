"""The recommendations that a run ends with: ids of users come from strangers, and nothing of them acts."""

import contextlib
import shlex
from types import SimpleNamespace
from unittest.mock import Mock

import polars as pl
import pytest

from pipelines.cli.examples import print_examples

ITEMS = pl.DataFrame({"item_id": [0], "asin": ["B1"], "title": ["A drum"]})


def _printed(user: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[str]:
    checkpoint = SimpleNamespace(
        seen=pl.DataFrame({"user_id": [0], "item_id": [0], "split": ["train"]}),
        users=pl.DataFrame({"user_id": [0], "reviewer_id": [user]}),
    )
    recommender = SimpleNamespace(checkpoint=checkpoint, items=ITEMS, recommend_for=Mock(return_value=ITEMS))
    monkeypatch.setattr("pipelines.instance.open_instance", contextlib.nullcontext)
    monkeypatch.setattr("assets.serving.best_model", Mock(return_value="bpr"))
    monkeypatch.setattr("assets.serving.trained_seeds", Mock(return_value=[0]))
    monkeypatch.setattr("assets.serving.open_recommender", Mock(return_value=recommender))
    print_examples("demo", pl.DataFrame())
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("user", ["A1", "ann smith", "$(touch x)", "a'b; `id`", "--json"])
def test_the_command_to_copy_asks_for_that_user_and_does_nothing_else(
    user: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    *_, to, more = _printed(user, monkeypatch, capsys)
    assert to == f"    to {user}, who had A drum"
    command = more.removeprefix("More: `").removesuffix("`")
    assert shlex.split(command) == ["recmodels", "recommend", "--dataset", "demo", "--model", "bpr", "--user", user]


@pytest.mark.parametrize("user", ["\x1b[2Jx", "\u202egnp", "x" * 100_000])
def test_a_name_that_no_line_can_show_is_cut_and_stands_in_no_command(
    user: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = _printed(user, monkeypatch, capsys)
    assert [len(line) < 120 and line.isprintable() for line in lines] == [True] * 3
    assert "to " in lines[-1]
