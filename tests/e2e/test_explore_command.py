"""The command `recmodels explore` as a process: it answers on loopback alone, and ends when it is told to."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from explored import Explored

from assets.support.links import EXPLORER_PORT
from pipelines.cli.explore import DEFAULT_PORT
from pipelines.cli.main import main
from pipelines.instance import open_instance

pytestmark = pytest.mark.slow
SECONDS = 120


@pytest.fixture(scope="module")
def environment_of_finished(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a data root in which everything is finished."""
    folder = tmp_path_factory.mktemp("finished")
    variables = {"RECMODELS_DATA": str(folder / "data"), "DAGSTER_HOME": ""}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        with open_instance() as instance:
            Explored(folder, instance).everything()
    return os.environ | variables


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def _running(environment: dict[str, str], port: int) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "pipelines.cli", "explore", "--port", str(port)]
    with subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as server:
        try:
            deadline = time.monotonic() + SECONDS
            while True:
                assert server.poll() is None, server.communicate()[0]
                assert time.monotonic() < deadline
                try:
                    httpx.get(f"http://127.0.0.1:{port}/")
                    break
                except httpx.TransportError:
                    time.sleep(0.2)
            yield server
        finally:
            server.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_answers_on_loopback_until_it_is_told_to_end(
    environment_of_finished: dict[str, str], number: signal.Signals
) -> None:
    port = _free_port()
    with _running(environment_of_finished, port) as server, httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        found = client.get("/api/recommendations", params={"dataset": "demo", "user": "R2", "model": "ease"})
        assert found.json()["rows"][0]["rank"] == 1
        assert client.get("/api/datasets", headers={"host": "evil.example"}).status_code == 400
        addresses = {address for address, of in _listening(server.pid) if of == port}
        assert addresses == {"127.0.0.1"}
        started = time.monotonic()
        server.send_signal(number)
        output = server.communicate(timeout=SECONDS)[0]
        assert time.monotonic() - started < 10
        assert f"http://127.0.0.1:{port}/?dataset=demo" in output
        assert "Traceback" not in output


def test_beside_another_process_it_ends_with_that(environment_of_finished: dict[str, str]) -> None:
    port = _free_port()
    command = f"{sys.executable} -m pipelines.cli explore --port {port} --beside-parent & echo $!; read _"
    with subprocess.Popen(
        ["bash", "-c", command], env=environment_of_finished, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout
        explorer = psutil.Process(int(parent.stdout.readline()))
        deadline = time.monotonic() + SECONDS
        while ("127.0.0.1", port) not in _listening(explorer.pid):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        parent.kill()
        explorer.wait(timeout=SECONDS)


def _listening(pid: int) -> set[tuple[str, int]]:
    return {tuple(one.laddr) for one in psutil.Process(pid).net_connections("tcp") if one.status == psutil.CONN_LISTEN}


def test_a_port_that_is_taken_is_told_and_nothing_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RECMODELS_DATA", str(tmp_path / "data"))
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert main(["explore", "--port", str(port)]) == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"error: --port {port}: expected a port of 127.0.0.1")
    assert f"process {os.getpid()} " in line
    assert f"`recmodels explore --port {port + 1}`" in line
    assert not (tmp_path / "data").exists()


def test_an_address_of_no_interface_and_an_unknown_data_set_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RECMODELS_DATA", str(tmp_path / "data"))
    assert main(["explore", "--dataset", "dem"]) == 1
    assert "Did you mean demo?" in capsys.readouterr().out
    assert main(["explore", "--host", "192.0.2.1"]) == 1
    assert capsys.readouterr().out.startswith("error: --port")


def test_records_link_to_the_port_that_it_has_by_default() -> None:
    assert DEFAULT_PORT == EXPLORER_PORT


def test_recommend_says_on_standard_error_that_a_checkpoint_is_stale(environment_of_finished: dict[str, str]) -> None:
    command = [sys.executable, "-m", "pipelines.cli", "recommend", "--model", "ease", "--user", "R2", "--json"]
    done = subprocess.run(command, env=environment_of_finished, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("[")
    (note,) = [line for line in done.stderr.splitlines() if line.startswith("note: ")]
    told = r"note: ease of demo, seed 0, is not what a run would make now \(.*no settings.*\); `recmodels run"
    assert re.match(told, note)
