"""
Profiles without a language model: the most telling sentences of the same inputs, chosen by frequency and position.

A sentence scores the mean, over its distinct content words, of ln(1 + occurrences of the word in all the inputs),
times 1 / (1 + 0.1 p) for the p-th sentence of its text (after Luhn, 1958, and Edmundson, 1969). Chosen sentences keep
their order. Deterministic, and a function of the inputs alone.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from math import log1p

from recmodels.profiles.config import MAX_PROFILE_WORDS
from recmodels.profiles.inputs import ItemInputs, UserInputs

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|[\r\n]+")
_WORD = re.compile(r"[a-z][a-z'-]{2,}")
_STOP_WORDS = frozenset(
    _WORD.findall(
        """
        about above after again all also amazon and any are because been before being below between both brand but
        can category com could did does doing don't down during each even ever few five for four from further get
        gets got had has have having her here him his how i'm i've into it's its just like made make makes many may
        more most much must not now off once one only other our out over own product really same she should some
        star stars such than that that's the their them then there these they this those three through too two under
        until use used very was were what when where which while who will with would you your
        """
    )
)
_REVIEW_WORDS = 90
_TITLE_WORDS = 80
_RECURRING_WORDS = 15


def _content_words(text: str) -> list[str]:
    return [word for word in _WORD.findall(text.lower()) if word not in _STOP_WORDS]


def _first_words(text: str, n: int) -> str:
    return " ".join(text.split()[:n])


def _salient(texts: Iterable[str], max_words: int) -> list[str]:
    """Return the highest scoring sentences of the texts, in order, with at most `max_words` words together."""
    sentences: dict[str, int] = {}
    for text in texts:
        for position, sentence in enumerate(_SENTENCE_END.split(text)):
            stripped = " ".join(sentence.split())
            if stripped:
                sentences.setdefault(stripped, position)
    words = [_content_words(sentence) for sentence in sentences]
    counts = Counter(word for sentence in words for word in sentence)
    scored: list[tuple[float, int]] = []
    for order, (content, position) in enumerate(zip(words, sentences.values(), strict=True)):
        distinct = dict.fromkeys(content)
        if distinct:
            mean = sum(log1p(counts[word]) for word in distinct) / len(distinct)
            scored.append((-mean / (1.0 + 0.1 * position), order))
    texts_in_order = list(sentences)
    chosen: list[int] = []
    left = max_words
    for _, order in sorted(scored):
        length = len(texts_in_order[order].split())
        if length <= left:
            chosen.append(order)
            left -= length
    return [texts_in_order[order] for order in sorted(chosen)]


def _within_limit(parts: Sequence[str]) -> str:
    sentences = [part if part.endswith((".", "!", "?")) else f"{part}." for part in parts if part]
    return _first_words(" ".join(sentences), MAX_PROFILE_WORDS)


def _words_left(parts: Sequence[str]) -> int:
    return MAX_PROFILE_WORDS - sum(len(part.split()) for part in parts)


def extract_item_profile(inputs: ItemInputs) -> str:
    """
    Return a profile of at most 200 words: title, brand, categories, then sentences of the description and the reviews.

    Empty inputs give an empty profile.
    """
    parts = [_first_words(inputs.title, _TITLE_WORDS)]
    if inputs.brand and inputs.brand.lower() not in inputs.title.lower():
        parts.append(f"Brand: {inputs.brand}")
    if inputs.categories:
        parts.append(f"Category: {_first_words(', '.join(dict.fromkeys(inputs.categories)), 30)}")
    parts += _salient([inputs.description] if inputs.description else [], _words_left(parts))
    parts += _salient(inputs.reviews, min(_words_left(parts), _REVIEW_WORDS))
    return _within_limit(parts)


def extract_user_profile(inputs: UserInputs) -> str:
    """
    Return a profile of at most 200 words: the words that recur over the history, its titles, then own review sentences.

    Recurring words are content words in the title or profile of at least two items, by the number of items. An empty
    history gives an empty profile.
    """
    if inputs.empty:
        return ""
    items = [_content_words(f"{entry.title} {entry.profile}") for entry in inputs.history]
    spread = Counter(word for words in items for word in dict.fromkeys(words))
    recurring = [word for word, count in spread.most_common() if count > 1][:_RECURRING_WORDS]
    parts = [f"Interests: {', '.join(recurring)}"] if recurring else []
    titles = list(dict.fromkeys(entry.title for entry in inputs.history if entry.title))
    if titles:
        parts.append(_first_words(f"Has chosen: {'; '.join(titles)}", _TITLE_WORDS))
    parts += _salient((entry.review for entry in inputs.history), min(_words_left(parts), _REVIEW_WORDS))
    if len(titles) <= 1:
        parts += _salient((entry.profile for entry in inputs.history), _words_left(parts))
    return _within_limit(parts)
