"""
Pictures of the user interface for the documentation.

`python tests/service/screenshots.py http://127.0.0.1:3000 docs/images` takes them from what `make dev` shows after
`make run`, the job `status`, and a backfill of `demo`, the newest run; `python tests/service/screenshots.py explorer
http://127.0.0.1:3100 docs/images` takes the one of `make explore`.
"""

import sys
from pathlib import Path

from browser import SIZE, metadata_entry, new_context, open_markdown, open_partition, running_browser
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect

COLOURS = 96


def main(address: str, folder: Path) -> None:
    """Take every picture."""
    with running_browser() as browser:
        page = opened(browser, address)
        asset_graph(page, folder / "asset-graph.png")
        checkpoint(page, folder / "checkpoint.png", folder / "training-curve.png")
        recorded(page, "leaderboard", "demo", folder / "leaderboard.png", height=910)
        backfill(page, folder / "backfill.png")
        pipeline_status(page, folder / "pipeline-status.png")


def explorer(address: str, folder: Path) -> None:
    """Take the lists of a user of the demo whose held-out item most models find, with a reason."""
    with running_browser() as browser:
        page = new_context(browser, address, scale=2).new_page()
        sized(page, 800)
        page.goto("/?dataset=demo&user=AUIR4W9DNCM383")
        page.locator(".list summary").first.click()
        expect(page.locator(".list details li").first).to_be_visible()
        page.locator("#lists, .lists").first.scroll_into_view_if_needed()
        save(page, folder / "explorer.png")


def opened(browser: Browser, address: str) -> Page:
    """Return a page with its navigation folded, in twice the usual resolution."""
    page = new_context(browser, address, scale=2).new_page()
    page.goto("/")
    page.get_by_text("Hide navigation").click()
    return page


def asset_graph(page: Page, path: Path) -> None:
    """Take what LightGCN is made from, with every group open."""
    sized(page, 750)
    page.goto('/asset-groups~%2Bkey%3A"metrics%2Flightgcn"')
    expect(icon_button(page, "zoom_in")).to_be_visible()
    icon_button(page, "settings").last.click()
    page.get_by_role("menuitem", name="Expand all groups").click()
    page.keyboard.press("Escape")
    icon_button(page, "panel_show_right").first.click()
    expect(page.get_by_text("item_ids", exact=True).first).to_be_visible()
    width, height = SIZE[0], 750
    page.mouse.dblclick(width - 200, height - 50)  # on the background: zoom to the whole graph
    expect(page.get_by_text("Asset checks").nth(5)).to_be_visible()
    save(page, path)


def checkpoint(page: Page, path: Path, curve: Path) -> None:
    """Take how BLAST was trained, and its training curve."""
    recorded(page, "checkpoint/blast", "demo|0", path, height=910)
    save(open_markdown(page, "curve"), curve)


def recorded(page: Page, asset: str, partition: str, path: Path, *, height: int) -> None:
    """Take what is recorded of a partition of an asset."""
    sized(page, height)
    open_partition(page, asset, partition)
    expect(metadata_entry(page, "dagster/column_schema").or_(metadata_entry(page, "config")).first).to_be_visible()
    save(page, path)


def backfill(page: Page, path: Path) -> None:
    """Take the newest backfill."""
    sized(page, 550)
    page.goto("/runs?view=backfills")
    page.get_by_role("link").filter(has_text="Backfill").or_(page.locator("a[href*='/runs/b/']")).first.click()
    expect(page.get_by_text("Partitions targeted")).to_be_visible()
    save(page, path)


def pipeline_status(page: Page, path: Path) -> None:
    """Take what of every data set is stale, and why."""
    sized(page, 900)
    page.goto("/assets/pipeline_status")
    save(open_markdown(page, "summary"), path)


def icon_button(page: Page, icon: str) -> Locator:
    """Return the buttons that show an icon."""
    return page.get_by_role("button").filter(has=page.get_by_label(icon))


def sized(page: Page, height: int) -> None:
    """Set the height of the page."""
    page.set_viewport_size({"width": SIZE[0], "height": height})


def save(shown: Page | Locator, path: Path) -> None:
    """Save what is shown as a small PNG, once nothing moves or loads."""
    page = shown if isinstance(shown, Page) else shown.page
    page.mouse.move(0, 0)
    page.wait_for_load_state("networkidle")
    shown.screenshot(path=path, animations="disabled")
    Image.open(path).convert("RGB").quantize(COLOURS).save(path, optimize=True)


if __name__ == "__main__":
    if sys.argv[1] == "explorer":
        explorer(sys.argv[2], Path(sys.argv[3]))
    else:
        main(sys.argv[1], Path(sys.argv[2]))
