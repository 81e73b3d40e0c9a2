"""A page of Dagster's user interface: its web server, and what the page asks of it in headless Chromium."""

import contextlib
import shutil
import socket
import sys
from collections.abc import Generator
from pathlib import Path

from benchmarks.harness import READY_SECONDS, served

SETTLED_MS = 5000


@contextlib.contextmanager
def webserver(root: Path) -> Generator[str]:
    """Run Dagster's web server on an instance, and yield its address when the definitions are loaded."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (root / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    command = [Path(sys.executable).with_name("dagster-webserver"), "-m", "pipelines.definitions", "-p", str(port)]
    address, env = f"http://127.0.0.1:{port}", {"DAGSTER_HOME": str(root), "RECMODELS_DATA": str(root)}
    with served(command, f"{address}/server_info", root / "webserver.log", **env):
        yield address


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
