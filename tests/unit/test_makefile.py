"""What `make setup` decides about PyTorch, with commands that only note how they are called."""

import contextlib
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOWHERE = "http://127.0.0.1:9"


class _Index(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def index() -> Iterator[str]:
    """The address of an index that answers."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Index) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def _setup(folder: Path, *, hardware: str, cpu_index: str, extra: str = "") -> tuple[str, list[str]]:
    """Return what `make setup` prints and the calls of pip."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    python = folder / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\necho "$@" >> {folder}/calls\n')
    python.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "MAKE", "MFLAGS"))}
    environment |= {"PIP_EXTRA_INDEX_URL": extra} if extra else {}
    done = subprocess.run(
        ["make", "setup", f"HARDWARE={hardware}", f"CPU_INDEX={cpu_index}"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (folder / ".venv" / ".installed").exists()
    return done.stdout, (folder / "calls").read_text().splitlines()


def test_without_an_nvidia_driver_pytorch_comes_from_the_index_of_cpu_builds(tmp_path: Path, index: str) -> None:
    printed, (install, _) = _setup(tmp_path, hardware="cpu", cpu_index=index)
    assert f"--extra-index-url {index} -c constraints.txt" in install
    (line,) = printed.splitlines()
    assert line.startswith("installing into .venv (about 2 minutes)")
    assert index in line


class _Dripping(_Index):
    def do_GET(self) -> None:
        self.send_response(200)
        self.flush_headers()
        with contextlib.suppress(OSError):
            for _ in range(60):
                self.wfile.write(b"X-Drop: 1\r\n")
                time.sleep(0.5)


@pytest.fixture
def dripping() -> Iterator[str]:
    """The address of an index that never comes to the end of its answer."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Dripping) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_an_index_that_takes_longer_than_three_seconds_is_left_out(tmp_path: Path, dripping: str) -> None:
    started = time.monotonic()
    printed, (install, _) = _setup(tmp_path, hardware="cpu", cpu_index=dripping)
    assert time.monotonic() - started < 15
    assert "--extra-index-url" not in install
    assert "does not answer" in printed


def test_an_index_that_does_not_answer_is_left_out(tmp_path: Path) -> None:
    printed, (install, _) = _setup(tmp_path, hardware="cpu", cpu_index=NOWHERE)
    assert "--extra-index-url" not in install
    (line,) = printed.splitlines()
    assert line.startswith("installing into .venv (about ")
    assert "does not answer" in line


@pytest.mark.parametrize(("hardware", "extra"), [("gpu", ""), ("cpu", "https://own.example/simple")])
def test_a_gpu_and_an_index_of_ones_own_go_before(tmp_path: Path, index: str, hardware: str, extra: str) -> None:
    printed, (install, _) = _setup(tmp_path, hardware=hardware, cpu_index=index, extra=extra)
    assert "--extra-index-url" not in install
    (line,) = printed.splitlines()
    assert (extra or "NVIDIA driver is here") in line
