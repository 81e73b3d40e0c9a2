"""What `recmodels run` refuses before anything starts."""

from pathlib import Path

import pytest

from pipelines.cli.run import run
from recmodels.errors import InputError


def test_a_raw_folder_that_is_not_there_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECMODELS_DATA", str(tmp_path / "data"))
    with pytest.raises(InputError, match="folder of the raw files: expected one that exists"):
        run("demo", raw_dir=tmp_path / "nope")
    assert list(tmp_path.iterdir()) == []
