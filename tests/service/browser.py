"""The Chromium of the distribution, driven as a user of the interface drives it."""

import contextlib
import re
import shutil
from collections.abc import Generator, Sequence
from urllib.parse import quote

from deployment import absent_service
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect, sync_playwright

ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SIZE = (1400, 900)
SECONDS = 60
"""How long anything on a page may take to appear; the end of a run takes longer, and says so."""
READABLE = 4.5
"""Contrast of texts at level AA of WCAG 2."""


def chromium_binary() -> str:
    """Return the browser's program; skip or fail the test where there is none."""
    found = shutil.which("chromium")
    return found or absent_service("no chromium on the PATH: `make services` installs one")


@contextlib.contextmanager
def running_browser() -> Generator[Browser]:
    """Yield a browser without a window."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_binary(), args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


def new_context(browser: Browser, address: str, *, scale: float = 1) -> BrowserContext:
    """Return a context for pages of an interface."""
    width, height = SIZE
    context = browser.new_context(
        base_url=address, viewport={"width": width, "height": height}, device_scale_factor=scale
    )
    context.set_default_timeout(1000 * SECONDS)
    expect.set_options(timeout=1000 * SECONDS)
    return context


def select_assets(page: Page, selection: str) -> None:
    """Show those assets of the graph that Dagster's selection syntax names."""
    page.goto("/")
    page.locator("a[href='/asset-groups']").click()
    page.locator(".CodeMirror").click()
    page.keyboard.insert_text(selection)
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("asset-groups~.+"))


def launch(page: Page, partitions: Sequence[Sequence[str]]) -> str:
    """
    Materialise the assets that are shown, and open the page of what that started.

    Parameters
    ----------
    partitions
        What to choose in each dimension, in the dialog's order.

    Returns
    -------
    str
        Id of the run or the backfill.
    """
    page.get_by_role("button", name="Materialize").first.click()
    dialog = page.get_by_role("dialog")
    for chosen in partitions:
        dialog.get_by_text("Select a partition").first.click()
        for partition in chosen:
            page.get_by_role("menuitem", name=partition).click()
        page.keyboard.press("Escape")
    dialog.get_by_role("button", name="Launch").click()
    page.get_by_text("View", exact=True).click()
    page.wait_for_url(re.compile("/runs/.+"))
    return page.url.rpartition("/")[2]


def open_partition(page: Page, asset: str, partition: str) -> None:
    """Open what is recorded of one partition of an asset."""
    page.goto(f"/assets/{asset}?view=partitions&partition={quote(partition)}")
    expect(page.get_by_text("Latest materialization")).to_be_visible()


def metadata_entry(page: Page, name: str) -> Locator:
    """Return the row of an entry of the metadata."""
    return page.get_by_role("row").filter(has=page.get_by_text(name, exact=True))


def open_markdown(page: Page, entry: str) -> Locator:
    """Open an entry of the metadata that is too long for its row, and return where it is shown."""
    metadata_entry(page, entry).get_by_text("[Show Markdown]").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text(entry)
    return dialog


_COLOUR = """(element, property) => {
  for (let at = element; at; at = at.parentElement) {
    const colour = getComputedStyle(at)[property];
    if (colour !== "rgba(0, 0, 0, 0)") return colour;
  }
}"""


def luminance(element: Locator, property_name: str) -> float:
    """Return the relative luminance, as WCAG 2 defines it, of an element's ``color`` or ``backgroundColor``."""
    colour = element.evaluate(_COLOUR, property_name)
    shares = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(element: Locator) -> float:
    """Return the contrast of an element's text with what is behind it."""
    darker, lighter = sorted(luminance(element, name) for name in ("color", "backgroundColor"))
    return (lighter + 0.05) / (darker + 0.05)
