"""The explorer in a real browser: by mouse and by keys, on a telephone, at night, with hostile titles and pictures."""

import contextlib
import re
import threading
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Literal

import dagster as dg
import pytest
import uvicorn
from browser import READABLE, SECONDS, contrast, luminance, running_browser
from deployment import free_port
from explored import ATTACK, COLD, PICTURE, Explored, rankers
from playwright.sync_api import Browser, Page, Request, expect

from pipelines.explorer.app import explorer_app
from pipelines.explorer.results import Results

pytestmark = pytest.mark.slow

_LOAD_PICTURE = """address => new Promise((done) => {
  document.addEventListener("securitypolicyviolation", (event) => done(event.effectiveDirective));
  const image = new Image();
  image.onload = () => done("loaded");
  image.src = address;
})"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A running browser."""
    expect.set_options(timeout=1000 * SECONDS)
    with running_browser() as browser:
        yield browser


@contextlib.contextmanager
def _explorer(folder: Path, *, finished: bool) -> Generator[tuple[str, Explored]]:
    """Yield the address of an explorer, and what it shows."""
    (folder / "home").mkdir()
    with dg.DagsterInstance.local_temp(str(folder / "home")) as instance:
        explored = Explored(folder, instance)
        if finished:
            explored.everything()
        port = free_port()
        app = explorer_app(Results(instance, explored.root))
        server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning"))
        thread = threading.Thread(target=server.run)
        thread.start()
        deadline = time.monotonic() + SECONDS
        while not server.started:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        try:
            yield f"http://127.0.0.1:{port}", explored
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an explorer over a finished demo."""
    with _explorer(tmp_path_factory.mktemp("explorer"), finished=True) as (address, _):
        yield address


def _opened(
    browser: Browser, url: str, width: int = 1280, scheme: Literal["light", "dark"] = "light", lists: int = 3
) -> Page:
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page.on("pageerror", lambda error: pytest.fail(str(error)))
    page.goto(url)
    if lists:
        expect(page.locator(".list ol")).to_have_count(lists)
    return page


def test_lists_stand_side_by_side_with_hits_reasons_and_similar_items(browser: Browser, address: str) -> None:
    page = _opened(browser, f"{address}/?dataset=demo&user=R2&model=bpr")
    assert page.locator(".list h3").all_inner_texts() == ["BPR", "EASE", "BPR, calibrated"]
    expect(page.locator(".note")).to_be_visible()  # which comes late and moves what is below it
    boxes = [box for place in page.locator(".list").all() if (box := place.bounding_box())]
    assert len({box["y"] for box in boxes}) == 1
    assert sorted(box["x"] for box in boxes) == [box["x"] for box in boxes]

    held_out = page.locator("#user .panels > div").nth(1).locator("li")
    title = held_out.locator("button").inner_text()
    for place in page.locator(".list").all():
        assert place.locator("li.hit button").inner_text() == title
        assert "held out" in place.locator("li.hit").inner_text()
    expect(held_out.locator(".facts")).to_have_text(re.compile(r"bpr at \d+, ease at \d+, calibrated/bpr at \d+"))
    expect(page.locator("#seed")).to_have_value("0")

    ease = page.locator(".list").nth(1)
    ease.locator("summary").first.click()
    why = ease.locator("details").first
    expect(why).to_contain_text("Adds to the score")
    expect(why).to_contain_text("Other users who had both")
    expect(why).to_contain_text("Neighbour in the text graph")

    ease.locator("li button").first.click()
    dialog = page.get_by_role("dialog")
    expect(dialog.locator("ol li")).to_have_count(10)
    expect(dialog).to_contain_text("Profile of the item")
    before = dialog.locator("ol").inner_text()
    dialog.locator("select").select_option("bpr")
    expect(dialog.locator("ol")).not_to_have_text(before)
    page.keyboard.press("Escape")
    expect(dialog).not_to_be_visible()
    page.close()


def test_a_user_is_chosen_by_id_by_activity_and_at_random_with_keys_alone(browser: Browser, address: str) -> None:
    page = _opened(browser, address)
    assert "user=" in page.url
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to the lists")).to_be_focused()
    for _ in range(2):
        page.keyboard.press("Tab")
    expect(page.locator("#search")).to_be_focused()
    page.keyboard.type("r1")
    expect(page.locator("#found button")).to_have_count(3)
    page.keyboard.press("Enter")
    expect(page.locator("#user h2")).to_have_text("User R1")
    assert "user=R1" in page.url
    page.locator("#search").fill("")
    page.locator("#group").select_option("0-4")
    expect(page.locator("#found button")).to_have_count(1)
    page.locator("#any").press("Enter")
    expect(page.locator("#user h2")).to_have_text(f"User {COLD}")
    expect(page.locator(".list").first).to_contain_text("by popularity")
    page.locator("#search").fill("nobody at all")
    expect(page.locator("#found")).to_have_text("Nobody is called so.")
    page.close()


def test_a_step_is_taken_back_and_an_address_opens_what_it_was_copied_from(browser: Browser, address: str) -> None:
    page = _opened(browser, f"{address}/?dataset=demo&user=R2")
    page.locator("#search").fill("R3")
    page.locator("#found button").first.click()
    expect(page.locator("#user h2")).to_have_text("User R3")
    expect(page.locator(".list ol")).to_have_count(3)
    page.locator(".list .plain").first.click()
    dialog = page.get_by_role("dialog")
    expect(dialog.locator("ol li")).to_have_count(10)
    title = dialog.locator("h2").inner_text()
    dialog.locator("ol button").first.click()
    expect(dialog.locator("h2")).not_to_have_text(title)
    page.go_back()
    expect(dialog.locator("h2")).to_have_text(title)

    copied = _opened(browser, page.url)
    expect(copied.locator("#user h2")).to_have_text("User R3")
    expect(copied.get_by_role("dialog").locator("h2")).to_have_text(title)
    copied.close()

    page.get_by_role("button", name="Close").click()
    expect(dialog).not_to_be_visible()
    page.wait_for_url(lambda url: "item=" not in url)
    expect(page.locator("#user h2")).to_have_text("User R3")
    page.go_back()
    expect(page.locator("#user h2")).to_have_text("User R2")
    expect(page.locator(".list ol")).to_have_count(3)
    page.close()


def test_an_address_of_what_is_not_prepared_shows_nothing_else(browser: Browser, address: str) -> None:
    page = _opened(browser, f"{address}/?dataset=baby&user=R2", lists=0)
    expect(page.locator("#status")).to_contain_text("Nothing is prepared of the data set baby.")
    expect(page.locator("#dataset")).to_have_value("")
    assert page.locator("#user h2, .list").count() == 0
    page.locator("#dataset").select_option("demo")
    expect(page.locator(".list ol")).to_have_count(3)
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_the_page_fits_and_is_readable_by_day_and_by_night(
    browser: Browser, address: str, width: int, scheme: Literal["light", "dark"]
) -> None:
    page = _opened(browser, f"{address}/?user=R2", width, scheme)
    page.locator(".list summary").first.click()
    expect(page.locator(".list details li").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == width
    wide, own = page.locator(".lists").evaluate("box => [box.scrollWidth, box.clientWidth]")
    assert (wide > own) == (width < 1000)
    for selector in ("body", ".muted", ".list .plain", ".hit", ".hit .plain", ".hit .muted", "button#any", "footer a"):
        assert contrast(page.locator(selector).first) >= READABLE, selector
    assert (luminance(page.locator("body"), "backgroundColor") < 0.02) == (scheme == "dark")
    page.locator(".list .plain").first.click()
    expect(page.get_by_role("dialog").locator("ol li")).to_have_count(10)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.locator("dialog").evaluate("box => box.scrollWidth <= box.clientWidth")
    page.close()


def test_hostile_titles_are_text_and_nothing_is_asked_of_others(browser: Browser, address: str) -> None:
    page = browser.new_page()
    requests: list[Request] = []
    page.on("request", lambda request: requests.append(request))
    page.goto(f"{address}/?user=R2")
    expect(page.locator(".list ol")).to_have_count(3)
    expect(page.get_by_role("button", name=ATTACK).first).to_be_visible()
    page.get_by_role("button", name=ATTACK).first.click()
    expect(page.get_by_role("dialog").get_by_role("heading", name=ATTACK)).to_be_visible()
    expect(page.get_by_role("dialog")).to_contain_text(f"profile of 0 {ATTACK}")
    assert page.locator("main img, dialog img, main script, dialog script").count() == 0
    assert page.title() == "recmodels explorer"
    assert {request.url[: len(address)] for request in requests} == {address}
    page.close()


def test_pictures_are_loaded_where_the_reader_asks_for_them_and_from_public_places_alone(
    browser: Browser, address: str
) -> None:
    page = _opened(browser, f"{address}/?user=R2")
    asked: list[Request] = []
    page.on("request", lambda request: asked.append(request) if not request.url.startswith(address) else None)
    page.route("https://pictures.example.com/*", lambda route: route.fulfill(body=b"", content_type="image/jpeg"))
    assert page.evaluate(_LOAD_PICTURE, PICTURE) == "img-src"  # what the policy of the page refused it by
    assert not [request for request in asked if not request.failure]
    asked.clear()
    page.locator("#pictures").check()
    expect(page.locator("#pictures")).to_be_checked()
    page.wait_for_url("**pictures=1**")
    with page.expect_request(PICTURE) as request:
        pass
    assert "referer" not in request.value.all_headers()
    expect(page.locator(".list ol")).to_have_count(3)
    assert {request.url for request in asked} == {PICTURE}
    page.locator("#pictures").uncheck()
    page.wait_for_url(lambda url: "pictures" not in url)
    expect(page.locator(".list ol")).to_have_count(3)
    assert page.locator("main img").count() == 0
    page.close()


def test_stale_models_are_told_and_a_wrong_user_is_one_clear_line(browser: Browser, address: str) -> None:
    page = _opened(browser, f"{address}/?user=R2")
    expect(page.locator(".note")).to_contain_text("3 checkpoints are not what a run would make now.")
    page.locator(".note summary").click()
    expect(page.locator(".note li").first).to_contain_text("(seed 0)")
    page.close()
    page = _opened(browser, f"{address}/?user=R1l", lists=0)
    expect(page.locator("#status")).to_contain_text("user: expected a user of the data set, found 'R1l'.")
    page.locator("#any").click()
    expect(page.locator(".list ol")).to_have_count(3)
    expect(page.locator("#status")).to_contain_text("13 users, 16 items")
    page.close()


def test_the_report_and_the_description_of_the_api_open_from_the_page(browser: Browser, address: str) -> None:
    page = _opened(browser, f"{address}/?user=R2")
    page.get_by_role("link", name="Report").click()
    expect(page.locator("p")).to_have_css("color", "rgb(255, 0, 0)")
    page.go_back()
    page.get_by_role("link", name="API").click()
    expect(page.get_by_role("heading", name="/api/recommendations")).to_be_visible()
    page.close()


def test_an_empty_data_root_says_what_to_run_and_shows_what_comes(browser: Browser, tmp_path: Path) -> None:
    with _explorer(tmp_path, finished=False) as (address, explored):
        page = _opened(browser, address, lists=0)
        expect(page.locator("#status")).to_contain_text("Nothing is prepared yet. Run `recmodels run`")
        explored.everything()
        time.sleep(1.5)
        page.goto(f"{address}/?user=R2")
        expect(page.locator(".list ol")).to_have_count(3)
        explored.train("bpr", rankers()["bpr"], seed=1)
        time.sleep(1.5)
        page.goto(f"{address}/?user=R2&seed=1")
        expect(page.locator(".list", has_text="bpr, seed 1").locator("ol")).to_have_count(1)
        page.close()
