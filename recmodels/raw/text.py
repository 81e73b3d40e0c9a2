"""Texts of the dumps made plain: entities unescaped, tags stripped, whitespace folded."""

import html

import polars as pl

_ROUNDS = 3
_INVISIBLE = r"(?is)<!--.*?-->|<(script|style)\b[^>]*>.*?</(script|style)\s*>"
_TAG = r"</?[A-Za-z][^<>]*>"


def clean_texts(texts: pl.Series) -> pl.Series:
    """
    Return the texts with HTML entities unescaped, comments, scripts and tags stripped and whitespace folded.

    Null becomes the empty string. The dumps escape some texts twice, so that entities are unescaped up to three times;
    markup that was escaped more often is shown and stays. Control characters count as whitespace.

    Examples
    --------
    >>> clean_texts(pl.Series(["<p>Tracker&reg; &amp;amp; Log</p>", None])).to_list()
    ['Tracker® & Log', '']
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
    for _ in range(_ROUNDS):
        try:
            plain = html.unescape(text)
        except ValueError:  # a character number of thousands of digits
            return text
        if plain == text:
            break
        text = plain
    return text
