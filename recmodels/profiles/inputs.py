"""
What a profile is made from: the one place where tables become prompt inputs.

Leakage ends here. `training_rows` drops every row that is not in the training split before anything is built, and
nothing behind it sees the full tables.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

from recmodels.llm.base import estimate_tokens
from recmodels.profiles.config import ProfileConfig

_TITLE_TOKENS = 48
_REVIEW_TOKENS = 160
_PROFILE_TOKENS = 120


@dataclass(frozen=True)
class ItemInputs:
    """
    What an item profile is made from: texts of the metadata, empty where absent, and training reviews.

    Categories are from broad to narrow, reviews from the most recent.
    """

    item_id: int
    title: str
    description: str
    brand: str
    categories: tuple[str, ...]
    reviews: tuple[str, ...]

    @property
    def empty(self) -> bool:
        """Whether there is nothing to write a profile from."""
        return not (self.title or self.description or self.brand or self.categories or self.reviews)


@dataclass(frozen=True)
class HistoryEntry:
    """One training interaction: title and profile of the item, and the user's own review of it (may be empty)."""

    title: str
    profile: str
    review: str


@dataclass(frozen=True)
class UserInputs:
    """What a user profile is made from: the training history, the most recent entry first."""

    user_id: int
    history: tuple[HistoryEntry, ...]

    @property
    def empty(self) -> bool:
        """Whether there is nothing to write a profile from."""
        return not self.history


def trim(text: str, tokens: int) -> str:
    """Return the longest beginning of a text within so many estimated tokens, cut at a space where there is one."""
    if estimate_tokens(text) <= tokens:
        return text
    cut = text.encode()[: 4 * tokens].decode(errors="ignore")
    return cut.rsplit(" ", 1)[0] if " " in cut else cut


def training_rows(
    reviews: pl.DataFrame, interactions: pl.DataFrame, *, include_held_out: bool = False
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """
    Return the rows that prompts may read: (reviews, interactions), both of the training split only.

    A review counts as training if its (user, item) pair does. `include_held_out` lets every row through, to study the
    published habit.
    """
    if include_held_out:
        return reviews, interactions
    kept = interactions.filter(pl.col("split") == "train")
    return reviews.join(kept.select("user_id", "item_id"), on=["user_id", "item_id"], how="semi"), kept


def _review_text() -> pl.Expr:
    parts = pl.concat_list(pl.col("summary").str.strip_chars(), pl.col("text").str.strip_chars())
    return parts.list.eval(pl.element().filter(pl.element() != "")).list.join(". ").fill_null("")


class ItemSource:
    """
    The inputs of every item profile, by item id, from the tables ITEMS, REVIEWS and INTERACTIONS with all splits.

    Held-out rows are dropped before anything is built. `config` has the token budget and which items show reviews.
    """

    def __init__(
        self, items: pl.DataFrame, reviews: pl.DataFrame, interactions: pl.DataFrame, config: ProfileConfig
    ) -> None:
        rows, _ = training_rows(reviews, interactions, include_held_out=config.include_held_out)
        rows = (
            rows.select("item_id", "user_id", "timestamp", review=_review_text())
            .filter(pl.col("review") != "")
            .sort("item_id", "timestamp", "user_id", descending=[False, True, False], nulls_last=True)
            .group_by("item_id", maintain_order=True)
            .agg("review")
        )
        self._config = config
        self._titles = items["title"].to_list()
        self._descriptions = items["description"].to_list()
        self._brands = items["brand"].to_list()
        self._categories = items["categories"].to_list()
        self._reviews: dict[int, list[str]] = dict(rows.iter_rows())

    def __len__(self) -> int:
        return len(self._titles)

    def __iter__(self) -> Iterator[ItemInputs]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, item_id: int) -> ItemInputs:
        """Return the inputs of one item within the token budget: title and categories, description, then reviews."""
        title = trim(self._titles[item_id], _TITLE_TOKENS)
        brand = trim(self._brands[item_id], _TITLE_TOKENS)
        categories = tuple(trim(name, _TITLE_TOKENS) for name in (self._categories[item_id] or ())[:8])
        left = self._config.prompt_tokens - estimate_tokens(title + brand + "".join(categories))
        description = trim(self._descriptions[item_id], max(left, 0))
        left -= estimate_tokens(description)
        mode = self._config.item_reviews
        reviews: list[str] = []
        if mode == "always" or (mode == "without_description" and not description):
            for text in self._reviews.get(item_id, ()):
                review = trim(text, _REVIEW_TOKENS)
                left -= estimate_tokens(review)
                if left < 0:
                    break
                reviews.append(review)
        return ItemInputs(item_id, title, description, brand, categories, tuple(reviews))


class UserSource:
    """
    The inputs of every user profile, by user id, from the same tables and ITEM_PROFILES, within the token budget.

    Held-out rows are dropped before anything is built.
    """

    def __init__(
        self,
        items: pl.DataFrame,
        item_profiles: pl.DataFrame,
        reviews: pl.DataFrame,
        interactions: pl.DataFrame,
        *,
        n_users: int,
        config: ProfileConfig,
    ) -> None:
        kept_reviews, history = training_rows(reviews, interactions, include_held_out=config.include_held_out)
        pair = ["user_id", "item_id"]
        history = (
            history.select("user_id", "item_id", "timestamp")
            .join(kept_reviews.select(*pair, review=_review_text()), on=pair, how="left")
            .sort("user_id", "timestamp", "item_id", descending=[False, True, False], nulls_last=True)
            .group_by("user_id", maintain_order=True)
            .agg("item_id", pl.col("review").fill_null(""))
        )
        self._config = config
        self._n_users = n_users
        self._titles = [trim(title, _TITLE_TOKENS) for title in items["title"].to_list()]
        self._profiles = [trim(profile, _PROFILE_TOKENS) for profile in item_profiles["profile"].to_list()]
        self._history = {user: list(zip(chosen, own, strict=True)) for user, chosen, own in history.iter_rows()}

    def __len__(self) -> int:
        return self._n_users

    def __iter__(self) -> Iterator[UserInputs]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, user_id: int) -> UserInputs:
        """Return the inputs of one user within the token budget; entries without any text are left out."""
        left = self._config.prompt_tokens
        history: list[HistoryEntry] = []
        for item, review in self._history.get(user_id, ()):
            entry = HistoryEntry(self._titles[item], self._profiles[item], trim(review, _REVIEW_TOKENS))
            size = estimate_tokens(entry.title) + estimate_tokens(entry.profile) + estimate_tokens(entry.review)
            if not size:
                continue
            left -= size
            if left < 0 and history:
                break
            history.append(entry)
        return UserInputs(user_id, tuple(history))
