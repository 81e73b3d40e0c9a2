"""Files are whole or absent, and stay below the data root."""

import errno
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recmodels.errors import InputError, MissingObject
from recmodels.io.files import (
    Content,
    atomic_directory,
    atomic_file,
    data_root,
    disk_errors_told,
    file_digest,
    safe_join,
)
from recmodels.io.tables import read_table


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "expected room on its disk to write it, found"),
        (OSError(errno.EDQUOT, "Quota"), "expected room on its disk to write it, found"),
        (RuntimeError("database or disk is full"), "expected room on its disk to write it, found"),
        (PermissionError(errno.EACCES, "Permission denied"), "expected a disk that can be written, found Permission"),
        (
            OSError(errno.EROFS, "Read-only file system", "/x"),
            "^/x: expected a disk that can be written, found Read",
        ),
    ],
)
def test_what_a_disk_refuses_is_said_in_one_line(tmp_path: Path, error: Exception, told: str) -> None:
    with pytest.raises(InputError, match=told), disk_errors_told(tmp_path / "new" / "folder" / "table"):
        raise error


def test_other_errors_of_the_system_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(ConnectionResetError), disk_errors_told(tmp_path):
        raise ConnectionResetError(errno.ECONNRESET, "reset")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "table"
    path.write_text("old")

    def fail() -> None:
        with atomic_file(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("another error")

    with pytest.raises(RuntimeError, match="another error"):
        fail()
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


WRITE = """
import os, signal, sys
from pathlib import Path
from recmodels.io.files import atomic_directory, atomic_file

kind, path = sys.argv[1], Path(sys.argv[2])
with (atomic_file if kind == "file" else atomic_directory)(path) as temporary:
    (temporary if kind == "file" else temporary / "weights").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_what_a_killed_writer_left_goes_with_the_next_write_and_nothing_else_does(tmp_path: Path, kind: str) -> None:
    path, write = tmp_path / "target", atomic_file if kind == "file" else atomic_directory
    killed = subprocess.run([sys.executable, "-c", WRITE, kind, str(path)])
    assert killed.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".target.")
    lately, long_ago = tmp_path / ".target.0abc0def-1-aa.tmp", tmp_path / ".target.0abc0def-1-bb.tmp"
    of_another = tmp_path / left.name.replace("target", "other")
    for other in (lately, long_ago, of_another):
        other.write_text("of a process of another machine")
    os.utime(long_ago, (time.time() - 2 * 86400,) * 2)

    with write(path) as living:
        (living if kind == "file" else living / "weights").write_text("whole")
        with write(tmp_path / "target") as second:
            (second if kind == "file" else second / "weights").write_text("whole")
            assert living.exists()
            assert {*tmp_path.iterdir()} == {living, second, lately, of_another}
        if kind == "directory":
            shutil.rmtree(path)
    assert {*tmp_path.iterdir()} == {path, lately, of_another}


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


def test_a_file_has_the_content_it_was_written_with_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    path.write_bytes(b"as written")
    content = Content.of(path)
    content.require(path, "Restore it.")
    path.touch()
    content.require(path, "Restore it.")
    for other, found in ((b"as changed", "other bytes, with sha256 "), (b"cut", "found 3 bytes")):
        path.write_bytes(other)
        with pytest.raises(MissingObject, match=rf"table\.parquet: expected the 10 bytes .*{found}.* Restore it\."):
            content.require(path, "Restore it.")
    path.unlink()
    with pytest.raises(MissingObject, match="found No such file"):
        content.require(path, "Restore it.")


def test_a_file_is_hashed_again_only_when_it_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "table.parquet"
    path.write_bytes(b"as written")
    os.utime(path, (1_000_000_000, 1_000_000_000))
    read: list[object] = []
    digest = hashlib.file_digest
    monkeypatch.setattr("hashlib.file_digest", lambda file, kind: (read.append(file), digest(file, kind))[1])
    assert file_digest(path) == file_digest(path) == hashlib.sha256(b"as written").hexdigest()
    assert len(read) == 1
    path.write_bytes(b"as changed")
    assert file_digest(path) == hashlib.sha256(b"as changed").hexdigest()
    path.write_bytes(b"as mended.")  # perhaps within the same tick of the file system's clock
    assert file_digest(path) == hashlib.sha256(b"as mended.").hexdigest()


def test_a_damaged_table_is_told_in_one_line(tmp_path: Path) -> None:
    for content in (None, b"PAR1 and no more"):
        if content is not None:
            (tmp_path / "table.parquet").write_bytes(content)
        with pytest.raises(MissingObject, match=r"table\.parquet: expected a whole Parquet file, found .* Make it\.$"):
            read_table(tmp_path / "table.parquet", "Make it.")
