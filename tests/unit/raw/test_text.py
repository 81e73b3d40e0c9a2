"""Texts of the dumps made plain."""

import html

import polars as pl
import pytest
from hypothesis import given
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
    ],
)
def test_markup_goes_and_words_stay(raw: str | None, plain: str) -> None:
    assert clean(raw) == plain


@given(st.text(alphabet=st.characters(categories=["L", "N", "P", "Zs"]), max_size=60))
def test_a_text_that_is_escaped_reads_as_before(text: str) -> None:
    escaped_once = clean(html.escape(text))
    assert escaped_once == clean(text)
    assert clean(escaped_once) == escaped_once


def test_a_column_keeps_its_name_and_order() -> None:
    texts = pl.Series("title", ["b &amp; c", None, "a", "<i>d</i>"], dtype=pl.String)
    cleaned = clean_texts(texts)
    assert (cleaned.name, cleaned.to_list()) == ("title", ["b & c", "", "a", "d"])
