"""
A small seeded dump in the exact 2014 formats, in which every modality shows a part of the same hidden tastes.

An item has a category, a brand and a price level, each with words and an image direction of its own; a reviewer has
tastes in each, and says so. What is bought is drawn by how well the two meet, so that a model that reads contents can
know more than one that reads clicks. The dump has the defects of the real ones: missing keys, HTML entities, repeated
rows, items without image, products that nobody reviewed, users and items below the 5-core.
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

from recmodels.io.files import atomic_file
from recmodels.raw.formats.image_features import WIDTH

REVIEWS_NAME = "reviews_Demo_5.json.gz"
METADATA_NAME = "meta_Demo.json.gz"
IMAGE_FEATURES_NAME = "image_features_Demo.b"

_KINDS = ("category", "brand", "price")
_LIKED = {"category": 2, "brand": 2, "price": 1}
_WEIGHT = {"category": 3.2, "brand": 2.4, "price": 1.2}
_POPULARITY = 0.3
_CIRCLE = 8  # reviewers with the same tastes
_CORE = 5
_MISSING = {
    "related": 0.2, "title": 0.01, "price": 0.1, "salesRank": 0.2, "imUrl": 0.02, "brand": 0.25, "categories": 0.02,
    "description": 0.1,
}  # fmt: skip
_FIRST_DAY = 1_199_145_600  # 2008-01-01
_DAYS = 2_350
_SECONDS_A_DAY = 86_400
_LETTERS = list("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ")


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

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> folder = Path(mkdtemp())
    >>> write_demo_dump(folder, n_users=60, n_items=40)
    >>> sorted(path.name for path in folder.iterdir())
    ['image_features_Demo.b', 'meta_Demo.json.gz', 'reviews_Demo_5.json.gz']
    """
    demo = _Demo(seed, n_users, n_items)
    _write_lines(directory / REVIEWS_NAME, [json.dumps(review) for review in demo.reviews()])
    _write_lines(directory / METADATA_NAME, [repr(record) for record in demo.metadata()])
    with atomic_file(directory / IMAGE_FEATURES_NAME) as temporary, temporary.open("wb") as handle:
        for asin, features in demo.image_features():
            handle.write(asin.encode("ascii") + features.astype("<f4").tobytes())


@dataclass(frozen=True)
class _Product:
    asin: str
    traits: dict[str, str]
    noun: str
    look: str
    features: list[str]
    uses: list[str]


@dataclass(frozen=True)
class _Reviewer:
    code: str
    name: str
    tastes: dict[str, list[str]]


class _Demo:
    def __init__(self, seed: int, n_users: int, n_items: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.words = tomllib.loads(resources.files("recmodels.raw").joinpath("demo_words.toml").read_text("utf-8"))
        n_rare, n_unreviewed = max(2, n_items // 30), n_items // 5
        self.n_users, self.n_items, self.n_reviewed = n_users, n_items, n_items + n_rare
        self.products = [self._product(code) for code in self._codes(n_items + n_rare + n_unreviewed, 7)]
        self.circles = [
            {kind: self._some(list(self.words[kind]), liked) for kind, liked in _LIKED.items()}
            for _ in range(max(1, n_users // _CIRCLE))
        ]
        self.reviewers = [self._reviewer(code) for code in self._codes(n_users + max(2, n_users // 40), 13)]

    def _codes(self, n: int, length: int) -> list[str]:
        codes: dict[str, None] = {}
        while len(codes) < n:
            codes["".join(_LETTERS[i] for i in self.rng.integers(len(_LETTERS), size=length))] = None
        return list(codes)

    def _pick(self, values: list[str]) -> str:
        return values[int(self.rng.integers(len(values)))]

    def _some(self, values: list[str], n: int) -> list[str]:
        return [values[i] for i in self.rng.permutation(len(values))[:n]]

    def _product(self, code: str) -> _Product:
        traits = {kind: self._pick(list(self.words[kind])) for kind in _KINDS}
        theme = self.words["category"][traits["category"]]
        return _Product(
            asin=f"B00{code}",
            traits=traits,
            noun=self._pick(theme["nouns"]),
            look=self._pick(self.words["brand"][traits["brand"]]["looks"]),
            features=self._some(theme["features"], 3),
            uses=self._some(theme["uses"], 2),
        )

    def _reviewer(self, code: str) -> _Reviewer:
        tastes = self.circles[int(self.rng.integers(len(self.circles)))]
        initial = chr(ord("A") + int(self.rng.integers(26)))
        return _Reviewer(f"A{code}", f"{self._pick(self.words['text']['first_names'])} {initial}.", tastes)

    def _purchases(self) -> list[tuple[_Reviewer, _Product]]:
        """Draw what each reviewer buys: the products that fit best, with popularity and noise."""
        appeal = self.rng.gumbel(size=(len(self.reviewers), self.n_items))
        appeal += _POPULARITY * self.rng.standard_normal(self.n_items)
        for row, reviewer in zip(appeal, self.reviewers, strict=True):
            for column, product in enumerate(self.products[: self.n_items]):
                row[column] += sum(_WEIGHT[kind] for kind in _KINDS if product.traits[kind] in reviewer.tastes[kind])
        sizes = np.minimum(_CORE - 1 + self.rng.geometric(0.4, size=len(self.reviewers)), 30)
        sizes[self.n_users :] = self.rng.integers(1, _CORE, size=len(self.reviewers) - self.n_users)
        by_appeal = np.argsort(-appeal, axis=1, kind="stable")
        bought = np.zeros(appeal.shape, dtype=np.bool_)
        for row, items, size in zip(bought, by_appeal, sizes, strict=True):
            row[items[:size]] = True
        core = bought[: self.n_users]
        for item in np.flatnonzero(core.sum(axis=0) < _CORE):
            core[np.argsort(-appeal[: self.n_users, item], kind="stable")[:_CORE], item] = True
        purchases = [(self.reviewers[row], self.products[column]) for row, column in np.argwhere(bought)]
        for product in self.products[self.n_items : self.n_reviewed]:
            buyers = self.rng.permutation(self.n_users)[: int(self.rng.integers(1, _CORE))]
            purchases += [(self.reviewers[buyer], product) for buyer in buyers]
        return purchases

    def reviews(self) -> list[dict[str, Any]]:
        """Return the records of the review file, shuffled, some twice, some again at another time."""
        records: list[dict[str, Any]] = []
        for reviewer, product in self._purchases():
            record = self._review(reviewer, product)
            records.append(record)
            if self.rng.random() < 0.01:
                records.append(record)
            if self.rng.random() < 0.01:
                records.append(record | self._day())
        return [records[i] for i in self.rng.permutation(len(records))]

    def _day(self) -> dict[str, Any]:
        seconds = _FIRST_DAY + int(self.rng.integers(_DAYS)) * _SECONDS_A_DAY
        date = datetime.fromtimestamp(seconds, UTC)
        return {"unixReviewTime": seconds, "reviewTime": f"{date.month:02d} {date.day}, {date.year}"}

    def _review(self, reviewer: _Reviewer, product: _Product) -> dict[str, Any]:
        text, level = self.words["text"], self.words["price"][product.traits["price"]]
        rating = float(self.rng.choice([5.0, 4.0, 3.0, 2.0, 1.0], p=[0.58, 0.22, 0.1, 0.05, 0.05]))
        slots = self._slots(product, {kind: self._pick(reviewer.tastes[kind]) for kind in _KINDS})
        lines = [
            self._pick(text["openers"]),
            self._pick(text["feature_lines"]),
            self._pick(text["brand_lines"]),
            self._pick(level["review"] if rating >= 3 else level["complaint"]),
        ]
        lines = self._some(lines, int(self.rng.integers(1, 4)))
        if self.rng.random() < 0.6:
            lines.insert(0, self._pick(text["persona_lines"]))
        if rating < 4:
            lines.append(self._pick(text["bad_lines"]))
        if self.rng.random() < 0.4:
            lines.append(self._pick(text["fillers"]))
        body = " ".join(lines).format(**slots)
        if self.rng.random() < 0.05:
            body = body.replace(product.noun.lower(), f"&#34;{product.noun.lower()}&#34;").replace(". ", ".<br />", 1)
        if self.rng.random() < 0.1:
            body = body.replace(" and ", " &amp; ")
        votes = int(self.rng.integers(0, 4))
        record: dict[str, Any] = {
            "reviewerID": reviewer.code,
            "asin": product.asin,
            "reviewerName": reviewer.name,
            "helpful": [votes, votes + int(self.rng.integers(0, 3))],
            "reviewText": body,
            "overall": rating,
            "summary": self._pick(text["good_summaries" if rating >= 4 else "bad_summaries"]).format(**slots),
        }
        if self.rng.random() < 0.01:
            del record["reviewerName"]
        return record | self._day()

    def _slots(self, product: _Product, tastes: dict[str, str]) -> dict[str, str]:
        """Return what the placeholders of a sentence stand for; persona and fan lines are about the tastes given."""
        feature, feature2 = self._some(product.features, 2)
        return {
            "use": self._pick(product.uses),
            "feature": feature,
            "feature2": feature2,
            "brand": product.traits["brand"],
            "look": product.look,
            "noun": product.noun.lower(),
            "people": self._pick(self.words["category"][tastes["category"]]["people"]),
            "fans_like": self._pick(self.words["brand"][tastes["brand"]]["fans_like"]),
            "habit": self._pick(self.words["price"][tastes["price"]]["habits"]),
        }

    def metadata(self) -> list[dict[str, Any]]:
        """Return the records of the metadata file, shuffled, some twice, with keys missing."""
        records: list[dict[str, Any]] = []
        for index in self.rng.permutation(len(self.products)):
            record = self._record(self.products[index])
            records.append(record)
            if self.rng.random() < 0.01:
                records.append(record)
        return records

    def _record(self, product: _Product) -> dict[str, Any]:
        level = self.words["price"][product.traits["price"]]
        path = self.words["category"][product.traits["category"]]["path"]
        brand = product.traits["brand"]
        title = f"{brand} {self._pick(level['title'])} {product.look.title()} {product.noun}"
        if self.rng.random() < 0.5:
            title += f" for {self._pick(product.uses)}"
        if self.rng.random() < 0.3:
            title += f", {self._pick(self.words['text']['finishes'])}"
        lines = self._some(self.words["text"]["description_lines"], 3)
        sentences = [line.format(**self._slots(product, product.traits)) for line in lines]
        sentences.append(self._pick(level["description"]))
        description = " ".join(sentence[0].upper() + sentence[1:] for sentence in sentences)
        if self.rng.random() < 0.2:
            title = title.replace(brand, f"{brand}&reg;")
            description = f"<p>{description.replace(' and ', ' &amp; ')}</p>"
        related = [self.products[i].asin for i in self.rng.integers(len(self.products), size=3)]
        record: dict[str, Any] = {
            "asin": product.asin,
            "related": {"also_bought": related},
            "title": title.replace(" & ", " &amp; "),
            "price": round(float(self.rng.uniform(*level["range"])), 2),
            "salesRank": {path[0]: int(self.rng.integers(1, 500_000))},
            "imUrl": f"http://images.example.com/images/I/{product.asin}._SX300_.jpg",
            "brand": brand,
            "categories": [[*path, product.noun]],
            "description": description,
        }
        return {key: value for key, value in record.items() if self.rng.random() >= _MISSING.get(key, 0.0)}

    def image_features(self) -> list[tuple[str, NDArray[np.float32]]]:
        """Return sparse non-negative vectors, like those of a network's last hidden layer; some products have none."""
        directions = {
            (kind, name): _WEIGHT[kind] / 3 * self.rng.standard_normal(WIDTH)
            for kind in _KINDS
            for name in self.words[kind]
        }
        vectors: list[tuple[str, NDArray[np.float32]]] = []
        for index in self.rng.permutation(len(self.products)):
            product = self.products[index]
            mixture = np.sum([directions[kind, product.traits[kind]] for kind in _KINDS], axis=0)
            features = np.maximum(mixture + 0.8 * self.rng.standard_normal(WIDTH) - 0.8, 0)
            if self.rng.random() >= 0.04:
                vectors.append((product.asin, features.astype(np.float32)))
        return vectors


def _write_lines(path: Path, lines: list[str]) -> None:
    content = "".join(f"{line}\n" for line in lines).encode("ascii")
    with (
        atomic_file(path) as temporary,
        temporary.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0, compresslevel=6) as packed,
    ):
        packed.write(content)
