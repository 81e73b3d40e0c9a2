"""
A small seeded dump in the exact 2014 formats, in which every modality shows a part of the same hidden tastes.

An item has a category, a brand and a price level, each with words and an image direction of its own; a user has a taste
in each. Reviews are drawn by how well they meet, so that a model that reads contents knows more than one that reads
clicks. It has the defects of the real dumps: missing keys, HTML entities, repeated rows, items without image, products
that nobody reviewed, users and items below the 5-core.
"""

import gzip
import json
import tomllib
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recmodels.data.read_image_features import WIDTH
from recmodels.storage import atomic_file

REVIEWS_NAME = "reviews_Demo_5.json.gz"
METADATA_NAME = "meta_Demo.json.gz"
IMAGE_FEATURES_NAME = "image_features_Demo.b"

_FIRST_DAY = 1_199_145_600  # 2008-01-01
_DAYS = 2_350
_SECONDS_A_DAY = 86_400
_LETTERS = np.array(list("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"))


@dataclass(frozen=True)
class _Product:
    asin: str
    category: str
    brand: str
    level: str
    noun: str
    look: str
    features: list[str]
    uses: list[str]


def write_demo_dump(directory: Path, *, seed: int = 0, n_users: int = 600, n_items: int = 300) -> None:
    """
    Write the three raw files of the demo; equal arguments give equal bytes.

    Parameters
    ----------
    directory
        Folder of the files; made if missing.
    seed
        Seed of everything drawn.
    n_users, n_items
        Users and items meant to survive the 5-core; a few more are written that do not.
    """
    rng = np.random.default_rng(seed)
    words = tomllib.loads(resources.files("recmodels.data").joinpath("demo_words.toml").read_text("utf-8"))
    n_rare = max(2, n_items // 30)
    n_unreviewed = n_items // 5
    products = _products(rng, words, n_items + n_rare + n_unreviewed)
    reviewers = [f"A{code}" for code in _codes(rng, n_users + max(2, n_users // 40), 13)]
    pairs = _pairs(rng, words, products[: n_items + n_rare], n_items, len(reviewers), n_users)
    reviews = _reviews(rng, words, products, reviewers, pairs)
    _write_lines(directory / REVIEWS_NAME, [json.dumps(review) for review in reviews])
    _write_lines(directory / METADATA_NAME, _metadata_lines(rng, words, products))
    _write_images(directory / IMAGE_FEATURES_NAME, rng, words, products)


def _codes(rng: np.random.Generator, n: int, length: int) -> list[str]:
    codes: dict[str, None] = {}
    while len(codes) < n:
        codes["".join(_LETTERS[rng.integers(len(_LETTERS), size=length)])] = None
    return list(codes)


def _pick(rng: np.random.Generator, values: list[str]) -> str:
    return values[int(rng.integers(len(values)))]


def _some(rng: np.random.Generator, values: list[str], n: int) -> list[str]:
    return [values[i] for i in rng.permutation(len(values))[:n]]


def _products(rng: np.random.Generator, words: dict[str, Any], n: int) -> list[_Product]:
    categories, brands, levels = (list(words[kind]) for kind in ("category", "brand", "price"))
    products: list[_Product] = []
    for code in _codes(rng, n, 7):
        category, brand = _pick(rng, categories), _pick(rng, brands)
        theme = words["category"][category]
        products.append(
            _Product(
                asin=f"B00{code}",
                category=category,
                brand=brand,
                level=_pick(rng, levels),
                noun=_pick(rng, theme["nouns"]),
                look=_pick(rng, words["brand"][brand]["looks"]),
                features=_some(rng, theme["features"], 3),
                uses=_some(rng, theme["uses"], 2),
            )
        )
    return products


def _pairs(
    rng: np.random.Generator,
    words: dict[str, Any],
    products: list[_Product],
    n_items: int,
    n_reviewers: int,
    n_users: int,
) -> list[tuple[int, int]]:
    """Draw what each reviewer buys: the best of fit + popularity + noise."""
    fit = np.zeros((n_reviewers, len(products)))
    for kind, weight, liked in (("category", 3.2, 2), ("brand", 2.2, 2), ("price", 1.4, 1)):
        names = list(words[kind])
        attribute = {"category": "category", "brand": "brand", "price": "level"}[kind]
        of_item = np.array([names.index(getattr(product, attribute)) for product in products])
        taste = np.zeros((n_reviewers, len(names)))
        for row in taste:
            row[rng.permutation(len(names))[:liked]] = 1.0
        fit += weight * taste[:, of_item]
    fit += rng.gumbel(size=fit.shape)
    fit += 0.5 * rng.standard_normal(len(products))
    fit[:, n_items:] = -np.inf
    sizes = 5 + rng.geometric(0.28, size=n_reviewers)
    sizes = np.minimum(sizes, 30)
    sizes[n_users:] = rng.integers(1, 5, size=n_reviewers - n_users)
    best = np.argsort(-fit, axis=1)
    pairs = [(user, int(item)) for user in range(n_reviewers) for item in best[user, : sizes[user]]]
    for rare in range(n_items, len(products)):
        pairs += [(int(user), rare) for user in rng.permutation(n_users)[: int(rng.integers(1, 5))]]
    return pairs


def _reviews(
    rng: np.random.Generator,
    words: dict[str, Any],
    products: list[_Product],
    reviewers: list[str],
    pairs: list[tuple[int, int]],
) -> list[dict[str, Any]]:
    names = [f"{_pick(rng, words['text']['first_names'])} {chr(65 + int(rng.integers(26)))}." for _ in reviewers]
    reviews: list[dict[str, Any]] = []
    for user, item in pairs:
        review = _review(rng, words, products[item], reviewers[user], names[user])
        reviews.append(review)
        if rng.random() < 0.01:
            reviews.append(review)
        if rng.random() < 0.01:
            reviews.append(_at_day(review, int(rng.integers(_DAYS))))
    return [reviews[i] for i in rng.permutation(len(reviews))]


def _at_day(review: dict[str, Any], day: int) -> dict[str, Any]:
    seconds = _FIRST_DAY + day * _SECONDS_A_DAY
    date = datetime.fromtimestamp(seconds, UTC)
    return review | {"unixReviewTime": seconds, "reviewTime": f"{date.month:02d} {date.day}, {date.year}"}


def _review(
    rng: np.random.Generator, words: dict[str, Any], product: _Product, reviewer: str, name: str
) -> dict[str, Any]:
    text, level = words["text"], words["price"][product.level]
    rating = float(rng.choice([5.0, 4.0, 3.0, 2.0, 1.0], p=[0.58, 0.22, 0.1, 0.05, 0.05]))
    slots = _slots(rng, product)
    lines = [
        _pick(rng, text["openers"]),
        _pick(rng, text["feature_lines"]),
        _pick(rng, text["brand_lines"]),
        _pick(rng, level["review"] if rating >= 3 else level["complaint"]),
    ]
    lines = _some(rng, lines, int(rng.integers(2, 5)))
    if rating < 4:
        lines.append(_pick(rng, text["bad_lines"]))
    if rng.random() < 0.5:
        lines.append(_pick(rng, text["fillers"]))
    body = " ".join(lines).format(**slots)
    if rng.random() < 0.05:
        body = body.replace(product.noun, f"&#34;{product.noun}&#34;").replace(".", ".<br />", 1)
    if rng.random() < 0.05:
        body = body.replace(" and ", " &amp; ")
    review: dict[str, Any] = {
        "reviewerID": reviewer,
        "asin": product.asin,
        "reviewerName": name,
        "helpful": [int(votes := rng.integers(0, 4)), int(votes + rng.integers(0, 3))],
        "reviewText": body,
        "overall": rating,
        "summary": _pick(rng, text["good_summaries" if rating >= 4 else "bad_summaries"]).format(**slots),
    }
    if rng.random() < 0.01:
        del review["reviewerName"]
    return _at_day(review, int(rng.integers(_DAYS)))


def _slots(rng: np.random.Generator, product: _Product) -> dict[str, str]:
    feature, feature2 = _some(rng, product.features, 2)
    return {
        "use": _pick(rng, product.uses),
        "feature": feature,
        "feature2": feature2,
        "brand": product.brand,
        "look": product.look,
        "noun": product.noun.lower(),
    }


def _metadata_lines(rng: np.random.Generator, words: dict[str, Any], products: list[_Product]) -> list[str]:
    lines: list[str] = []
    for index in rng.permutation(len(products)):
        product = products[index]
        line = repr(_metadata(rng, words, product, products))
        lines.append(line)
        if rng.random() < 0.01:
            lines.append(line)
    return lines


def _metadata(
    rng: np.random.Generator, words: dict[str, Any], product: _Product, products: list[_Product]
) -> dict[str, Any]:
    level = words["price"][product.level]
    path = words["category"][product.category]["path"]
    title = f"{product.brand} {_pick(rng, level['title'])} {product.look.title()} {product.noun}"
    if rng.random() < 0.6:
        title += f", {_pick(rng, words['text']['finishes'])}"
    description = " ".join(
        line.format(**_slots(rng, product)) for line in _some(rng, words["text"]["description_lines"], 3)
    )
    description += " " + _pick(rng, level["description"])
    if rng.random() < 0.2:
        title = title.replace(product.brand, f"{product.brand}&reg;")
        description = f"<p>{description.replace(' and ', ' &amp; ')}</p>"
    record: dict[str, Any] = {
        "asin": product.asin,
        "related": {"also_bought": [products[i].asin for i in rng.integers(len(products), size=3)]},
        "title": title.replace(" & ", " &amp; "),
        "price": round(float(rng.uniform(*level["range"])), 2),
        "salesRank": {path[0]: int(rng.integers(1, 500_000))},
        "imUrl": f"http://images.example.com/images/I/{product.asin}._SX300_.jpg",
        "brand": product.brand,
        "categories": [[*path, product.noun]],
        "description": description,
    }
    for key, share in (
        ("related", 0.2), ("title", 0.01), ("price", 0.1), ("salesRank", 0.2), ("imUrl", 0.02), ("brand", 0.25),
        ("categories", 0.02), ("description", 0.1),
    ):  # fmt: skip
        if rng.random() < share:
            del record[key]
    return record


def _write_images(path: Path, rng: np.random.Generator, words: dict[str, Any], products: list[_Product]) -> None:
    """Write features that are sparse and non-negative like those of a network's last hidden layer."""
    directions: dict[str, NDArray[np.float32]] = {
        name: rng.standard_normal(WIDTH, dtype=np.float32)
        for kind in ("category", "brand", "price")
        for name in words[kind]
    }
    with atomic_file(path) as temporary, temporary.open("wb") as handle:
        for index in rng.permutation(len(products)):
            product = products[index]
            if rng.random() < 0.04:
                continue
            mixture = (
                1.0 * directions[product.category] + 0.8 * directions[product.brand] + 0.5 * directions[product.level]
            )
            noise = rng.standard_normal(WIDTH, dtype=np.float32)
            features = np.maximum(mixture + noise - 0.8, 0).astype("<f4")
            handle.write(product.asin.encode("ascii") + features.tobytes())


def _write_lines(path: Path, lines: list[str]) -> None:
    content = "".join(f"{line}\n" for line in lines).encode("ascii")
    with (
        atomic_file(path) as temporary,
        temporary.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0, compresslevel=6) as packed,
    ):
        packed.write(content)
