"""`recmodels tune` says what it would try without trying it, and refuses in one line what it cannot."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines.cli.main import app
from recmodels.errors import InputError


@pytest.fixture(autouse=True)
def nothing_made_yet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RECMODELS_DATA", str(tmp_path))
    monkeypatch.delenv("DAGSTER_HOME", raising=False)


def _dry(*options: str) -> list[dict]:
    result = CliRunner().invoke(app, ["tune", "--dry-run", "--json", *options], catch_exceptions=False)
    assert result.exit_code == 0
    return json.loads(result.stdout)


def test_a_dry_run_says_what_is_searched_and_how_many_tries_are_given() -> None:
    freedom, ease = _dry("--models", "freedom,ease", "--trials", "7", "--hours", "0.5")
    assert (freedom["model"], freedom["tries"], freedom["given"], freedom["hours"]) == ("freedom", 7, 7, 0.5)
    assert "edge_drop 0.0 to 0.95" in freedom["searched"]
    assert ease["given"] == 6
    (plain,) = _dry("--models", "freedom")
    assert (plain["tries"], plain["given"], plain["hours"], plain["hours_expected"]) == (30, 8, None, None)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--models", "freedm"], "Did you mean freedom?"),
        (["--models", ","], "names of models"),
        (["--models", "freedom", "--dataset", "dem"], "Did you mean demo?"),
        (["--models", "freedom", "--hours", "0"], "greater than 0"),
    ],
)
def test_what_it_cannot_do_is_refused_before_anything_runs(options: list[str], told: str) -> None:
    with pytest.raises(InputError, match=told.replace("?", r"\?")):
        CliRunner().invoke(app, ["tune", *options], catch_exceptions=False)
