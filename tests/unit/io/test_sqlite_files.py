"""SQLite files lie on a disk of this machine only."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from recmodels.errors import InputError
from recmodels.io.sqlite import SqliteFile, require_local

TABLES = "CREATE TABLE IF NOT EXISTS things (name TEXT);"


def mount(monkeypatch: pytest.MonkeyPatch, *mounts: tuple[Path | str, str]) -> None:
    listed = [SimpleNamespace(mountpoint=str(point), fstype=kind) for point, kind in mounts]
    monkeypatch.setattr("psutil.disk_partitions", lambda *, all: listed)


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "fuse.sshfs", "lustre", "ceph", "9p"])
def test_a_network_file_system_is_refused_with_a_way_out(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mount(monkeypatch, ("/", "ext4"), (tmp_path, kind))
    with pytest.raises(InputError, match=rf"cache of things.*{kind} at {tmp_path}.*RECMODELS_CACHE"):
        SqliteFile(tmp_path / "cache" / "things.sqlite", "cache of things", TABLES)
    assert not (tmp_path / "cache" / "things.sqlite").exists()


def test_the_closest_mount_decides_and_the_last_of_one_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mount(monkeypatch, ("/", "nfs4"), (tmp_path / "disk", "nfs"), (tmp_path / "disk", "xfs"), (tmp_path / "d", "nfs"))
    with SqliteFile(tmp_path / "disk" / "things.sqlite", "cache of things", TABLES):
        assert (tmp_path / "disk" / "things.sqlite").exists()


@pytest.mark.parametrize("kind", ["ext4", "xfs", "overlay", "tmpfs", "zfs", "fuseblk", "fuse.fuse-overlayfs"])
def test_disks_and_layers_of_containers_are_local(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mount(monkeypatch, ("/", kind))
    require_local(tmp_path / "things.sqlite", "cache of things")
