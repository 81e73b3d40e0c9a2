"""The report shows what it was given, escapes it, and needs nothing from outside."""

import base64
import re
from dataclasses import replace
from html import escape
from html.parser import HTMLParser

import polars as pl
import pytest

from recmodels.profiles.config import ProfileConfig
from recmodels.profiles.write import item_task, user_task
from recmodels.reporting.build import ReportInputs, build_report
from recmodels.reporting.examples import example_items, example_users
from recmodels.reporting.report import LineageRow
from recmodels.reporting.self_contained import references_to_outside
from recmodels.schemas.tables import REVIEWS

HOSTILE = '<script>alert("x")</script>'


def test_every_text_of_the_data_is_escaped_and_nothing_is_loaded_from_outside(inputs: ReportInputs) -> None:
    html = build_report(inputs)
    assert "&lt;script&gt;" in html
    assert not re.search(r"<script|@import|(?:src|href)\s*=\s*[\"'](?!data:image/png;base64,|#[a-z]+\")", html)
    assert references_to_outside(html) == []


class _Elements(HTMLParser):
    """The elements of a page with their attributes, as a browser takes them; of pictures, that they are inline."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, list[tuple[str, str]]]] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, [(name, (value or "").partition("base64,")[0]) for name, value in attrs]))


def _with_texts(inputs: ReportInputs, text: str) -> ReportInputs:
    """Return the inputs with one text in every place where data may bring any."""

    def told(frame: pl.DataFrame, *columns: str) -> pl.DataFrame:
        return frame.with_columns(pl.lit(text).alias(column) for column in columns)

    items = told(inputs.items, "asin", "title", "description", "brand")
    settings = ProfileConfig()
    reviews = pl.DataFrame([(0, 7, 5.0, 1, text, text)], schema=REVIEWS, orient="row")
    item_profiles = told(inputs.item_profiles, "profile", "source")
    return replace(
        inputs,
        dataset=text,
        title=text,
        split_digest=text,
        split_rule=text,
        notes=[text],
        items=items,
        users=told(inputs.users, "reviewer_id"),
        item_profiles=item_profiles,
        user_profiles=told(inputs.user_profiles, "profile", "source"),
        item_evidence=[item_task(items, reviews, inputs.interactions, domain=text, config=settings).explain(7)],
        user_evidence=[
            user_task(
                items,
                item_profiles,
                reviews,
                inputs.interactions,
                n_users=inputs.users.height,
                domain=text,
                config=settings,
            ).explain(0)
        ],
        funnel=[(text, 2), (text, 1)],
        trainings=[replace(run, settings={text: text}) for run in inputs.trainings],
        lineage=[LineageRow(text, text, text, text, text)],
    )


@pytest.mark.parametrize(
    "attack",
    [
        HOSTILE,
        "</title></style></td><script src=//evil.example/x.js></script>",
        '"><img src=x onerror=alert(1)>',
        "' onmouseover='alert(1)",
        "<svg/onload=alert(1)><a href=javascript:alert(1)>",
        "<!--<script>alert(1)//-->",
        "&lt;script&gt;alert(1)&lt;/script&gt;",
        "{{ 7 * 7 }}{% include 'x' %}",
    ],
)
def test_no_element_and_no_attribute_comes_from_the_data(inputs: ReportInputs, attack: str) -> None:
    harmless = _Elements(build_report(_with_texts(inputs, "harmless"))).found
    attacked = build_report(_with_texts(inputs, attack))
    assert _Elements(attacked).found == harmless
    assert not {tag for tag, _ in harmless} & {"script", "iframe", "object", "embed", "link", "base", "form"}
    links = [dict(attributes)["href"] for tag, attributes in harmless if tag == "a"]
    places = [dict(attributes)["id"] for tag, attributes in harmless if tag == "h2"]
    assert links == [f"#{place}" for place in places]
    assert not {name for _, attributes in harmless for name, _ in attributes if name.startswith("on")}
    assert escape(attack, quote=False).replace("'", "&#39;").replace('"', "&#34;") in attacked


def test_figures_notes_profiles_and_lineage_are_shown(inputs: ReportInputs) -> None:
    html = build_report(inputs)
    for shown in (
        "0.2500 ± 0.0100",
        "0.1250",
        "written by no language model",
        "profile 0",
        "likes 0",
        "0123abcd",
        "abc",
    ):
        assert shown in html
    assert "0.1250 ±" not in html
    pictures = re.findall(r"data:image/png;base64,([^\"]+)", html)
    assert len(pictures) == 3
    assert all(base64.b64decode(picture).startswith(b"\x89PNG") for picture in pictures)


def test_the_same_tables_give_the_same_report(inputs: ReportInputs) -> None:
    assert build_report(inputs) == build_report(inputs)


def test_examples_span_the_activity_of_users_and_show_popular_items(inputs: ReportInputs) -> None:
    assert example_users(inputs.interactions, 2) == [5, 0]
    assert example_items(inputs.interactions, 2) == [6, 7]
