"""Texts of the dumps made plain."""

import html
import time

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recmodels.raw.text import clean_texts


def clean(text: str | None) -> str:
    return clean_texts(pl.Series([text], dtype=pl.String)).item()


@pytest.mark.parametrize(
    ("raw", "plain"),
    [
        (None, ""),
        ("Tracker&reg; &amp; Log", "Tracker® & Log"),
        ("twice &amp;amp; escaped", "twice & escaped"),
        ("a &#34;quoted&#34; word", 'a "quoted" word'),
        ("<p>one</p><br />two", "one two"),
        ("I <3 this, 5 < 6 and 7 > 6", "I <3 this, 5 < 6 and 7 > 6"),
        ("&lt;b&gt;bold&lt;/b&gt;", "bold"),
        ("a<!-- hidden <b> -->b", "a b"),
        ("x<script type='a'>if (1 < 2) {}</script>y<STYLE>p {}</style>z", "x y z"),
        ("  a\t\n\r b\u00a0c\u2003d ", "a b c d"),
        ("nul\x00 and bell\x07", "nul and bell"),
        ("&nbsp;&nbsp;", ""),
        ("shown &amp;amp;amp;lt;b&amp;amp;amp;gt;", "shown &lt;b&gt;"),
        ("&amp;#1" + "0" * 5000 + ";", "&#1" + "0" * 5000 + ";"),
    ],
)
def test_markup_goes_and_words_stay(raw: str | None, plain: str) -> None:
    assert clean(raw) == plain


@given(st.text(alphabet=st.characters(categories=["L", "N", "P", "Zs"]), max_size=60))
def test_a_text_that_is_escaped_reads_as_before(text: str) -> None:
    escaped_once = clean(html.escape(text))
    assert escaped_once == clean(text)
    assert clean(escaped_once) == escaped_once


PARTS = ["&", "amp;", "&amp;", "&lt;", "&#x26;", "&#38", "&#" + "9" * 5000, "<", "<!--", "<script", "-->", "x"]
hostile = st.lists(
    st.builds(lambda part, length: part * (1 + length // len(part)), st.sampled_from(PARTS), st.integers(0, 20_000)),
    max_size=4,
).map("".join)


@settings(max_examples=60, deadline=2000)
@given(hostile)
def test_no_text_takes_long_or_fails(text: str) -> None:
    assert len(clean(text)) <= len(text)


def test_time_grows_with_the_length_of_a_text_alone() -> None:
    def seconds(repetitions: int) -> float:
        text = "&" + "amp;" * repetitions
        start = time.perf_counter()
        clean(text)
        return time.perf_counter() - start

    assert seconds(200_000) < 60 * max(seconds(20_000), 1e-3)


def test_a_column_keeps_its_name_and_order() -> None:
    texts = pl.Series("title", ["b &amp; c", None, "a", "<i>d</i>"], dtype=pl.String)
    cleaned = clean_texts(texts)
    assert (cleaned.name, cleaned.to_list()) == ("title", ["b & c", "", "a", "d"])
