"""A page of Dagster's user interface: its web server, and what the page asks of it in headless Chromium."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path

import httpx

READY_SECONDS = 120
SETTLED_MS = 5000


@contextlib.contextmanager
def webserver(root: Path) -> Generator[str]:
    """Run Dagster's web server on an instance, and yield its address when the definitions are loaded."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (root / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    command = [Path(sys.executable).with_name("dagster-webserver"), "-m", "pipelines.definitions", "-p", str(port)]
    with (root / "webserver.log").open("wb") as log:
        server = subprocess.Popen(  # noqa: S603 our own program
            command,
            env={**os.environ, "DAGSTER_HOME": str(root), "RECMODELS_DATA": str(root)},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        address = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + READY_SECONDS
        while not answers(address):
            assert time.monotonic() < deadline, (root / "webserver.log").read_text()[-3000:]
            time.sleep(0.5)
        yield address
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def answers(address: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"{address}/server_info", timeout=READY_SECONDS).is_success
    return False


def requests_of_page(url: str, awaited: str) -> list[str]:
    """Return the bodies of the different GraphQL requests of a page, from the awaited one until it asks nothing new."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium")
    if chromium is None:
        raise FileNotFoundError("no chromium on the PATH")
    bodies: set[str] = set()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.on("request", lambda request: bodies.add(request.post_data or "") if "/graphql" in request.url else None)
        with page.expect_response(
            lambda answer: awaited in (answer.request.post_data or ""), timeout=1000 * READY_SECONDS
        ):
            page.goto(url)
        known = 0
        while known < len(bodies):
            known = len(bodies)
            page.wait_for_timeout(SETTLED_MS)
        browser.close()
    return sorted(bodies - {""})
