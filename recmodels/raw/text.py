"""
Texts of the dumps made plain: entities unescaped, markup and invisible characters dropped, whitespace folded.

Every pattern runs on an engine without backtracking, and none can look far without matching: a tag ends at the next
`<`, and a comment, script or style that nobody closes ends with the text, as in a browser. Hence the time grows with
the length of a text alone.
"""

import html
import re

import polars as pl

_ROUNDS = 8
_NO_CHARACTER = re.compile(r"(&#[0-9]{40,};?)")

_INVISIBLE = r"[\p{Default_Ignorable_Code_Point}\p{Noncharacter_Code_Point}--[\x{FE00}-\x{FE0F}]]"
"""Bidirectional controls, zero-width characters, byte order marks; not what picks a glyph of the character before."""

_HIDDEN = (
    r"(?is)<!--(?:-?>|.*?(?:--!?>|\z))"
    r"|<script\b.*?(?:</script\b[^>]*(?:>|\z)|\z)"
    r"|<style\b.*?(?:</style\b[^>]*(?:>|\z)|\z)"
)
_ELEMENTS = (
    "abbr|article|aside|big|blockquote|body|br|button|caption|center|code|col|colgroup|dd|del|div|dl|dt|em|embed"
    "|fieldset|figcaption|figure|font|footer|form|h[1-6]|head|header|hr|html|iframe|img|input|ins|label|layer|legend"
    "|li|link|main|meta|nav|nobr|noscript|object|ol|optgroup|option|param|picture|pre|section|select|small|source"
    "|span|strike|strong|sub|sup|svg|table|tbody|td|textarea|tfoot|th|thead|title|tr|tt|ul|var|video"
)
_ATTRIBUTE = r"""[\s/"']+[a-z_:@][\w:.@-]*\s*=\s*(?:"[^"<]*"?|'[^'<]*'?|[^\s"'<>=]+)"""
_TAG = (
    r"""(?i)</?[a-z](?:[^<>=]|=\s*"[^"<]*"|=\s*'[^'<]*'|=)*>"""
    r"|<[!?][a-z\[][^<>]*>"
    rf"|<[a-z][\w:-]*(?:{_ATTRIBUTE})+[\s/]*"
    rf"|</?(?:{_ELEMENTS})\b\s*/?|</[abipqsu]\b"
)
"""Tags, and what is left of one that was cut off: its name and attributes, not the words behind it."""

_LIKE_A_TAG = r"<(/?[A-Za-z])"

_SELECTOR = rf"(?:\b(?:{_ELEMENTS})\b|(?:\b[abipqsu])?[.#][A-Za-z_-][\w-]*)(?:[.#:][A-Za-z_-][\w-]*)*"
_STYLE_RULE = (
    rf"{_SELECTOR}(?:[\s,>]+{_SELECTOR}){{0,4}}"
    r"\s*\{\s*[a-z*_-]+\s*:[^{};]*(?:;\s*[a-z*_-]+\s*:[^{};]*)*;?\s*\}"
)
_SCRIPT = (
    r"""(?s)(?:\b[\w$]+\s*=\s*[\w"'.]+\s*;\s*){0,8}"""
    r"(?:\bvar\s+[\w$]+\s*=[^;]*;|[(!]*\bfunction\s*[\w$]*\s*\([\w\s,$]*\)\s*\{"
    r"|\b(?:window|document)\.[a-z][\w.]*(?:\(|\s?=)|\bP\.when\(|\$\(document\)).*"
)


def clean_texts(texts: pl.Series, *, without_code: bool = False) -> pl.Series:
    """
    Return the texts in plain characters: no entities, no markup, nothing invisible, single spaces.

    Null becomes the empty string. Comments, scripts, styles and tags go, and so does what is left of a tag that was
    cut off; a `<` that opens none stays, with a space behind it where a browser would take it for one. Characters are
    composed (NFC), control characters count as whitespace. Clean texts stay as they are. What still changes after eight
    rounds, such as a text escaped nine times, was written to mislead, and loses all characters of markup.

    Parameters
    ----------
    texts
        Strings or nulls.
    without_code
        Also drop style rules, and scripts to the end of the text, that lost the tag around them. For texts of the shop;
        customers may write of code.

    Examples
    --------
    >>> dirty = pl.Series(["<p>Tracker&reg; &amp;amp; Log</p>", '<span class="a-size-medium"', "5 < 6", None])
    >>> clean_texts(dirty).to_list()
    ['Tracker® & Log', '', '5 < 6', '']
    >>> clean_texts(pl.Series(["Soft..caption { color: red; }The box has:"]), without_code=True).to_list()
    ['Soft. The box has:']
    """
    texts = texts.fill_null("")
    rows = pl.Series(range(len(texts)), dtype=pl.Int64)
    pending = texts.clone()
    for _ in range(_ROUNDS):
        cleaned = _cleaned(pending, without_code)
        texts = texts.scatter(rows, cleaned)
        again = (cleaned != pending) & cleaned.str.contains(r"[&<{]")
        rows, pending = rows.filter(again), cleaned.filter(again)
        if not again.any():
            return texts
    return texts.scatter(rows, _folded(pending.str.replace_all(r"[&<>{}()=]", " ")))


def _cleaned(texts: pl.Series, without_code: bool) -> pl.Series:
    """Return the texts after one round."""
    texts = texts.clone()  # `scatter` writes in place
    escaped = texts.str.contains("&", literal=True)
    if escaped.any():
        plain = [_unescaped(text) for text in texts.filter(escaped)]
        texts = texts.scatter(escaped.arg_true(), pl.Series(plain, dtype=pl.String))
    beyond_ascii = texts.str.len_bytes() != texts.str.len_chars()
    if beyond_ascii.any():
        visible = texts.filter(beyond_ascii).str.replace_all(_INVISIBLE, "").str.normalize("NFC")
        texts = texts.scatter(beyond_ascii.arg_true(), visible)
    texts = _folded(texts)
    tagged = texts.str.contains("<", literal=True)
    if tagged.any():
        stripped = texts.filter(tagged).str.replace_all(_HIDDEN, " ").str.replace_all(_TAG, " ")
        texts = texts.scatter(tagged.arg_true(), _folded(stripped.str.replace_all(_LIKE_A_TAG, "< $1")))
    if without_code:
        coded = texts.str.contains(r"[{(=]")
        if coded.any():
            prose = texts.filter(coded).str.replace_all(_STYLE_RULE, " ").str.replace(_SCRIPT, "")
            texts = texts.scatter(coded.arg_true(), _folded(prose))
    return texts


def _folded(texts: pl.Series) -> pl.Series:
    return texts.str.replace_all(r"[\s\p{Cc}]+", " ").str.strip_chars()


def _unescaped(text: str) -> str:
    try:
        return html.unescape(text)
    except ValueError:  # the number of a character has thousands of digits
        parts = _NO_CHARACTER.split(text)
        parts[::2] = map(html.unescape, parts[::2])
        return "".join(parts)
