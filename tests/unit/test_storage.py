"""Files are whole or absent, and stay below the data root."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recmodels.errors import InputError
from recmodels.storage import atomic_directory, atomic_file, data_root, safe_join


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "table"
    path.write_text("old")

    def fill_the_disk() -> None:
        with atomic_file(path) as temporary:
            temporary.write_text("half")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        fill_the_disk()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_successful_write_replaces_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "table"
    for content in ("first", "second"):
        with atomic_file(path) as temporary:
            temporary.write_text(content)
    assert path.read_text() == "second"
    assert list(path.parent.iterdir()) == [path]


def test_a_directory_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"

    def stop_half_way() -> None:
        with atomic_directory(path) as temporary:
            (temporary / "weights").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        stop_half_way()
    assert not list(tmp_path.iterdir())
    with atomic_directory(path) as temporary:
        (temporary / "weights").write_text("whole")
        assert not path.exists()
    assert (path / "weights").read_text() == "whole"
    assert list(tmp_path.iterdir()) == [path]


@given(st.text(max_size=20))
def test_no_name_leads_out_of_the_root(name: str) -> None:
    root = Path("/data")
    try:
        joined = safe_join(root, name)
    except InputError:
        return
    assert joined.resolve().parent == root.resolve()


def test_the_data_root_is_named_by_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RECMODELS_DATA", str(tmp_path / "elsewhere"))
    assert data_root() == (tmp_path / "elsewhere").resolve()
    monkeypatch.setenv("RECMODELS_DATA", "")
    assert data_root() == (Path.cwd() / "data").resolve()
