"""The user interface in a real browser: what one clicks, and what one sees then."""

import gzip
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest
from browser import (
    SIZE,
    launch,
    metadata_entry,
    new_context,
    open_markdown,
    open_partition,
    running_browser,
    select_assets,
)
from deployment import PATIENCE, Deployment, local_deployment
from playwright.sync_api import Browser, Page, expect

from recmodels.raw.demo import METADATA_NAME, REVIEWS_NAME

TABLES = ("raw_dumps", "items", "item_ids", "users", "reviews", "interactions", "rejects")
READING = 'group:"raw" or group:"interactions"'
CHECKPOINT, SEEDED = "checkpoint/bpr", "demo|0"

ATTACK = "<img src=x onerror=attacked=1><script>attacked=1</script>"
UNCLOSED_ATTACK = "<img src=x onerror=attacked=1//"
"""An attack that whatever tag follows would close."""
LEFT_OF_IT = "=1//"
"""What a title has of it after its texts were cleaned."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A running browser."""
    with running_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[Deployment]:
    """A running local deployment over tiny data sets."""
    folder = tmp_path_factory.mktemp("local")
    with local_deployment(folder, ("demo", "baby", "sports", "clothing"), "epochs = 4") as deployment:
        yield deployment


@pytest.fixture
def page(browser: Browser, local: Deployment) -> Iterator[Page]:
    """A page of the interface, as in a browser that was never there."""
    context = new_context(browser, f"http://127.0.0.1:{local.port}")
    yield context.new_page()
    context.close()


@pytest.fixture(scope="module")
def checkpoint(local: Deployment) -> Path:
    """The folder of a checkpoint that was just trained."""
    if not local.materializations("interactions", "demo"):
        run = local.launch_run("demo", assets=TABLES)
        assert local.wait_for_run(run) == "SUCCESS", local.messages(run)
    run = local.launch_run(SEEDED, assets=[CHECKPOINT])
    assert local.wait_for_run(run) == "SUCCESS", local.messages(run)
    return local.folder / "data" / "checkpoints" / CHECKPOINT / "demo" / "0" / run


def test_a_partition_of_the_demo_is_materialised_from_the_asset_graph(page: Page, local: Deployment) -> None:
    select_assets(page, READING)
    run = launch(page, [["demo"]])
    expect(page.get_by_text("Success", exact=True)).to_be_visible(timeout=1000 * PATIENCE)

    assert [record["run"] for record in local.materializations("interactions", "demo")] == [run]
    (path,) = (local.folder / "data" / "tables" / "interactions" / "demo").glob("*.parquet")
    stored = pl.read_parquet(path)
    open_partition(page, "interactions", "demo")
    expect(metadata_entry(page, "dagster/row_count")).to_contain_text(str(stored.height))


def test_a_checkpoint_shows_how_it_was_trained(page: Page, checkpoint: Path) -> None:
    history = pl.read_parquet(checkpoint / "history.parquet")
    open_partition(page, CHECKPOINT, SEEDED)
    expect(metadata_entry(page, "epochs")).to_contain_text("4")
    best = history.sort("valid_recall", descending=True, maintain_order=True)["epoch"][0]
    expect(metadata_entry(page, "best_epoch")).to_contain_text(str(best))
    progress = metadata_entry(page, "progress").get_by_role("row").filter(has_text="best")
    expect(progress.get_by_role("cell").first).to_have_text(str(best))

    curve = open_markdown(page, "curve").locator("img")
    expect(curve).to_be_visible()
    assert curve.evaluate("picture => picture.naturalWidth") > SIZE[0] / 3


def test_a_backfill_is_launched_and_followed_to_its_end(page: Page, local: Deployment) -> None:
    select_assets(page, READING)
    backfill = launch(page, [["sports", "clothing"]])
    expect(page.get_by_text("Succeeded", exact=True)).to_have_count(2, timeout=1000 * PATIENCE)
    assert local.backfill(backfill)["status"] == "COMPLETED_SUCCESS"
    assert sorted(local.run_partitions(backfill).values()) == ["clothing", "sports"]


@pytest.fixture(scope="module")
def attacked(local: Deployment) -> str:
    """A failed run; titles and a rejected line of `baby`, and the error of `sports`, hold scripts."""
    raw = local.folder / "data" / "raw"
    _rewrite(raw / "baby" / METADATA_NAME, lambda text: text.replace("'title': '", f"'title': '{UNCLOSED_ATTACK} <b>"))
    _rewrite(raw / "baby" / REVIEWS_NAME, lambda text: f"{text}{ATTACK}\n")
    _rewrite(raw / "sports" / REVIEWS_NAME, lambda _: f"{ATTACK}\n")
    runs = [
        local.launch_run("baby", assets=[*TABLES, "item_profiles"]),
        local.launch_run("sports", assets=TABLES),
    ]
    assert [local.wait_for_run(run) for run in runs] == ["SUCCESS", "FAILURE"], local.messages(runs[0])
    status = local.launch_run(None, job="status")
    assert local.wait_for_run(status) == "SUCCESS", local.messages(status)
    return runs[1]


def _rewrite(path: Path, change: Callable[[str], str]) -> None:
    path.write_bytes(gzip.compress(change(gzip.decompress(path.read_bytes()).decode()).encode()))


def test_scripts_in_the_data_are_shown_and_never_run(page: Page, attacked: str) -> None:
    for attack in (ATTACK, UNCLOSED_ATTACK):  # they work where they are taken for HTML
        page.goto("about:blank")
        page.set_content(f"<p>{attack}</p>")
        page.wait_for_function("attacked")
        expect(page.locator("[onerror]")).to_have_count(1)

    def only_shown(text: str) -> None:
        expect(page.get_by_text(text).first).to_be_visible()
        expect(page.locator("[onerror]")).to_have_count(0)
        assert not page.evaluate("'attacked' in window")

    for asset, text in (("items", LEFT_OF_IT), ("item_profiles", LEFT_OF_IT), ("rejects", ATTACK)):
        open_partition(page, asset, "baby")
        only_shown(text)
    page.goto(f"/runs/{attacked}")
    only_shown(ATTACK)
    page.goto("/assets/pipeline_status")
    open_markdown(page, "summary")
    only_shown(ATTACK)
