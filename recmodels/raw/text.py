"""Texts of the dumps made plain: entities unescaped, tags stripped, whitespace folded."""

import html

import polars as pl

_INVISIBLE = r"(?is)<!--.*?-->|<(script|style)\b[^>]*>.*?</(script|style)\s*>"
_TAG = r"</?[A-Za-z][^<>]*>"


def clean_texts(texts: pl.Series) -> pl.Series:
    """
    Return the texts with HTML entities unescaped, comments, scripts and tags stripped and whitespace folded.

    Null becomes the empty string. The dumps escape some texts twice, so that entities are unescaped until none is left.
    Control characters count as whitespace.
    """
    texts = texts.fill_null("")
    escaped = texts.str.contains("&", literal=True)
    if escaped.any():
        plain = pl.Series(texts.name, [_unescape(text) for text in texts.filter(escaped)], dtype=pl.String)
        texts = texts.scatter(escaped.arg_true(), plain)
    tagged = texts.str.contains("<", literal=True)
    if tagged.any():
        stripped = texts.filter(tagged).str.replace_all(_INVISIBLE, " ").str.replace_all(_TAG, " ")
        texts = texts.scatter(tagged.arg_true(), stripped)
    return texts.str.replace_all(r"[\s\p{Cc}]+", " ").str.strip_chars()


def _unescape(text: str) -> str:
    while (plain := html.unescape(text)) != text:
        text = plain
    return text
