"""The report in a real browser: on a telephone and a large screen, by day and by night, with hostile titles."""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import polars as pl
import pytest
from browser import READABLE, contrast, luminance, running_browser
from playwright.sync_api import Browser, Page
from report_example import example_report

from recmodels.reporting.build import build_report

OVERRIDE, END = "\N{RIGHT-TO-LEFT OVERRIDE}", "\N{POP DIRECTIONAL ISOLATE}"
MODELS = 20

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A running browser."""
    with running_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with many models, long words and titles that turn round."""
    inputs = example_report()
    titles = [f"turned {OVERRIDE}{END}{OVERRIDE}round", "W" * 300, "\N{HEBREW LETTER ALEF}" * 20]
    recommended = pl.DataFrame({"user_id": [0] * 8, "rank": range(1, 9), "item_id": range(8)})
    path = tmp_path_factory.mktemp("report") / "report.html"
    items = inputs.items.with_columns(title=pl.Series(list(itertools.islice(itertools.cycle(titles), 8))))
    path.write_text(
        build_report(
            replace(
                inputs,
                title=titles[0],
                items=items,
                notes=[f"{titles[1]} {titles[0]}"],
                recommendations={f"a model with a name {index}": recommended for index in range(MODELS)},
            )
        )
    )
    return path


def _opened(browser: Browser, report: Path, width: int, scheme: Literal["light", "dark"] = "light") -> Page:
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page.goto(report.as_uri())
    return page


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_the_page_never_scrolls_sideways_and_wide_tables_do_in_their_own_box(
    browser: Browser, report: Path, width: int
) -> None:
    page = _opened(browser, report, width)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    boxes = page.locator("section .scroll")
    assert boxes.count() > 0
    for box in boxes.all():
        if box.locator("th").count():
            wider = box.evaluate("box => [box.scrollWidth, box.clientWidth]")
            assert wider[0] > wider[1]
    page.close()


def test_by_night_texts_are_light_on_dark_with_enough_contrast_in_both(browser: Browser, report: Path) -> None:
    backgrounds: list[float] = []
    for scheme in ("light", "dark"):
        page = _opened(browser, report, 390, scheme)
        for selector in ("body", ".muted", "a", "td.hit", ".note"):
            assert contrast(page.locator(selector).first) >= READABLE, (scheme, selector)
        backgrounds.append(luminance(page.locator("body"), "backgroundColor"))
        page.close()
    assert backgrounds[0] > 0.9
    assert backgrounds[1] < 0.02


def test_a_title_that_turns_round_leaves_what_follows_as_it_is(browser: Browser, report: Path) -> None:
    page = _opened(browser, report, 1280)
    turned = page.locator("li", has_text="turned round").filter(has=page.locator("span.muted")).first
    assert turned.evaluate(_LEFT_TO_RIGHT)
    assert page.title() == "turned round: recommendation report"
    page.close()


def test_contents_lead_to_their_sections_and_nothing_else_is_fetched(browser: Browser, report: Path) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 800})
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(report.as_uri())
    for link in page.locator("nav a").all():
        link.click()
        place = (link.get_attribute("href") or "").removeprefix("#")
        box = page.locator(f"h2#{place}").bounding_box()
        assert box is not None
        assert -1 < box["y"] < 800
    assert {request.partition("#")[0] for request in requests if not request.startswith("data:")} == {report.as_uri()}
    page.close()


_LEFT_TO_RIGHT = """item => {
  const text = item.querySelector("span.muted").firstChild, range = document.createRange(), lefts = [];
  for (let index = 0; index < 6; index++) {
    range.setStart(text, index);
    range.setEnd(text, index + 1);
    lefts.push(range.getBoundingClientRect().left);
  }
  return lefts.every((left, index) => index === 0 || left > lefts[index - 1]);
}"""
