"""A small shop with reviews in every split, and settings for a language model server on a loopback port."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest
from loopback_llm import MODEL, LoopbackLLM

from recmodels.profiles.config import ProfileConfig
from recmodels.profiles.write import ProfileResult, ProfileTask, item_task, user_task, write
from recmodels.schemas.tables import INTERACTIONS, ITEMS, REVIEWS

DOMAIN = "garden tools"


@dataclass(frozen=True, eq=False)
class Shop:
    """Items with even ids have a description. User u has items u, u+1, ..; the last two are valid and test."""

    items: pl.DataFrame
    reviews: pl.DataFrame
    interactions: pl.DataFrame
    n_users: int

    def item_task(self, config: ProfileConfig) -> ProfileTask:
        return item_task(self.items, self.reviews, self.interactions, domain=DOMAIN, config=config)

    def user_task(self, item_profiles: pl.DataFrame | None, config: ProfileConfig) -> ProfileTask:
        tables = self.items, item_profiles, self.reviews, self.interactions
        return user_task(*tables, n_users=self.n_users, domain=DOMAIN, config=config)

    def write_items(self, config: ProfileConfig, cache: Path) -> ProfileResult:
        return write(self.item_task(config), cache)

    def write_users(self, item_profiles: pl.DataFrame, config: ProfileConfig, cache: Path) -> ProfileResult:
        return write(self.user_task(item_profiles, config), cache)


def make_shop(n_items: int = 24, n_users: int = 12, history: int = 6) -> Shop:
    items = [
        {
            "item_id": item,
            "asin": f"B{item:09}",
            "title": f"Spade number {item}",
            "description": f"Forged spade {item} with an ash handle. It digs heavy soil. Made in Sheffield."
            if item % 2 == 0
            else "",
            "brand": "Digwell",
            "categories": ["Garden", "Spades"],
            "price": None,
            "image_url": "",
        }
        for item in range(n_items)
    ]
    reviews, interactions = [], []
    for user in range(n_users):
        for place in range(history):
            item = (user * 5 + place * 7) % n_items
            split = {history - 2: "valid", history - 1: "test"}.get(place, "train")
            key = {"user_id": user, "item_id": item, "rating": 5.0, "timestamp": 1_000_000 + 100 * place + user}
            text = f"User {user} says of spade {item} that the {split} handle fits."
            reviews.append({**key, "summary": f"Verdict {user}-{item}", "text": text})
            interactions.append({**key, "split": split})
    return Shop(
        pl.DataFrame(items, schema=ITEMS),
        pl.DataFrame(reviews, schema=REVIEWS).sort("user_id", "item_id"),
        pl.DataFrame(interactions, schema=INTERACTIONS).sort("user_id", "item_id"),
        n_users,
    )


def ollama_config(llm: LoopbackLLM, **settings: object) -> ProfileConfig:
    """Settings for a loopback server: as in earnest, but with pauses of milliseconds."""
    brief = {"backend": "ollama", "server": llm.ollama, "backoff": 0.01, "timeout": 5.0, "patience": 10.0}
    return ProfileConfig.model_validate(brief | settings)


def openai_config(llm: LoopbackLLM, **settings: object) -> ProfileConfig:
    """The same for the other endpoint."""
    return ollama_config(llm, **({"backend": "openai", "server": llm.openai, "model": MODEL} | settings))


@pytest.fixture
def shop() -> Shop:
    return make_shop()


@pytest.fixture
def llm() -> Iterator[LoopbackLLM]:
    with LoopbackLLM() as server:
        yield server


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "profiles.sqlite"
