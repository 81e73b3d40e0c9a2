"""What `recmodels run` refuses before anything starts."""

from pathlib import Path

import pytest

from pipelines.cli.options import choices, model_names
from pipelines.cli.run import run
from recmodels.errors import InputError


def test_a_raw_folder_that_is_not_there_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECMODELS_DATA", str(tmp_path / "data"))
    with pytest.raises(InputError, match="folder of the raw files: expected one that exists"):
        run("demo", raw_dir=tmp_path / "nope")
    assert list(tmp_path.iterdir()) == []


def test_no_seed_is_told_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECMODELS_DATA", str(tmp_path / "data"))
    with pytest.raises(InputError, match="--seeds: expected at least one seed, found ','"):
        run("demo", seeds=",")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_model_is_answered_by_the_nearest_and_no_more_names_than_can_be_read() -> None:
    with pytest.raises(InputError) as told:
        choices("--models", "lightgnc", model_names())
    assert "Did you mean lightgcn?" in str(told.value)
    assert len(str(told.value)) < 400
    assert f"and {len(model_names()) - 20} more, found 'lightgnc'" in str(told.value)
    with pytest.raises(InputError) as told:
        choices("--models", "x" * 10_000, model_names())
    assert len(str(told.value)) < 600


def test_a_name_that_is_given_twice_counts_once() -> None:
    assert choices("--models", "bpr, ease,bpr,", model_names()) == ["bpr", "ease"]
