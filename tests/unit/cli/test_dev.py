"""What `recmodels dev` looks at before anything starts."""

import importlib
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipelines.cli.main import main

dev = importlib.import_module("pipelines.cli.dev")


def _no_process(command: list[str], **_: object) -> None:
    STARTED.append(command)


STARTED: list[list[str]] = []
"""Commands of processes that would have been started."""


@pytest.fixture(autouse=True)
def data_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data root, and a Dagster that only says it was started."""

    def refuse(*_: object) -> None:
        raise SystemExit(99)

    monkeypatch.setattr(os, "execv", refuse)
    monkeypatch.setattr(dev, "subprocess", SimpleNamespace(Popen=_no_process))
    monkeypatch.setenv("PYTHONWARNINGS", "")
    monkeypatch.delenv("RECMODELS_EXPLORER", raising=False)
    STARTED.clear()
    monkeypatch.setenv("RECMODELS_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "data" / "dagster"))
    return tmp_path / "data"


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_port_that_is_taken_is_told_with_who_has_it_and_nothing_starts(
    taken: int, data_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["dev", "--port", str(taken)]) == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"error: --port {taken}: expected a port")
    assert f"process {os.getpid()} " in line
    assert f"--port {taken + 1}" in line
    assert not data_root.exists()


@pytest.mark.parametrize("port", ["0", "65536", "99999", "-1", "abc"])
def test_what_is_no_port_is_refused(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dev", "--port", port]) == 2
    assert "--port" in capsys.readouterr().err


def test_a_free_port_starts_dagster(free: int, data_root: Path) -> None:
    assert main(["dev", "--port", str(free)]) == 99
    assert (data_root / "dagster" / "dagster.yaml").exists()


@pytest.fixture
def free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_what_the_links_of_records_lead_to_starts_with_it(
    free: int, taken: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dev, "DEFAULT_PORT", free)
    assert main(["dev", "--port", str(free)]) == 99
    assert [command[1:] for command in STARTED] == [["-m", "pipelines.cli", "explore", "--beside-parent"]]

    STARTED.clear()
    monkeypatch.setattr(dev, "DEFAULT_PORT", taken)
    assert main(["dev", "--port", str(free)]) == 99
    assert not STARTED
    assert f"process {os.getpid()} " in capsys.readouterr().out

    monkeypatch.setenv("RECMODELS_EXPLORER", "https://explorer.example")
    monkeypatch.setattr(dev, "DEFAULT_PORT", free)
    assert main(["dev", "--port", str(free)]) == 99
    assert not STARTED


def test_in_the_background_of_a_script_it_can_be_ended(free: int) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert main(["dev", "--port", str(free)]) == 99
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_instance_of_another_data_root_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other" / "tables").mkdir(parents=True)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "other" / "dagster"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]
    assert main(["dev", "--port", str(free)]) == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("error: DAGSTER_HOME")
    assert str(tmp_path / "data") in line
    assert f"RECMODELS_DATA={tmp_path / 'other'}" in line
