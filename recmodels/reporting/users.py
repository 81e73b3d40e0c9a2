"""A user of the report: what they had, what was held out, and the lists of all models side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from recmodels.reporting.tables import TITLE_CHARACTERS, shortened

SHOWN_RANKS = 10
SHOWN_HISTORY = 12
SHOWN_HELD_OUT = 12


@dataclass(frozen=True)
class HeldOut:
    """A test item of a user: its title, and the models whose lists have it, each with the rank."""

    title: str
    found: Sequence[tuple[str, int]]


@dataclass(frozen=True)
class Recommended:
    """One cell of a table of lists: an item's title, and whether it is a test item of the user."""

    title: str
    hit: bool


@dataclass(frozen=True)
class UserExample:
    """
    A user's rows and lists, under the reviewer id.

    `n_train` and `n_held_out` count training and test rows, of which only the first are shown: `history`, the latest
    first, and `held_out`. `ranks` has, rank by rank, the items of all models; None where a list has ended.
    """

    name: str
    n_train: int
    n_held_out: int
    history: Sequence[str]
    held_out: Sequence[HeldOut]
    models: Sequence[str]
    ranks: Sequence[Sequence[Recommended | None]]


def user_example(
    user_id: int,
    name: str,
    interactions: pl.DataFrame,
    recommendations: Mapping[str, pl.DataFrame],
    titles: Sequence[str],
) -> UserExample:
    """
    Return what is shown of a user of a table `INTERACTIONS`, whom the raw files call by `name`; titles are by item id.

    Per model, in the order in which they are to stand, `recommendations` has a table with columns user_id, rank and
    item_id.
    """
    own = interactions.filter(pl.col("user_id") == user_id)
    train = own.filter(pl.col("split") == "train").sort("timestamp", descending=True, nulls_last=True)
    test: list[int] = own.filter(pl.col("split") == "test")["item_id"].to_list()
    lists = {
        model: table.filter(pl.col("user_id") == user_id).sort("rank")["item_id"].to_list()
        for model, table in recommendations.items()
    }

    def title(item: int) -> str:
        return shortened(titles[item], TITLE_CHARACTERS)

    longest = min(SHOWN_RANKS, max(map(len, lists.values()), default=0))
    return UserExample(
        name=name,
        n_train=train.height,
        n_held_out=len(test),
        history=[title(item) for item in train["item_id"].head(SHOWN_HISTORY)],
        held_out=[
            HeldOut(title(item), [(model, items.index(item) + 1) for model, items in lists.items() if item in items])
            for item in test[:SHOWN_HELD_OUT]
        ],
        models=list(lists),
        ranks=[
            [
                Recommended(title(items[rank]), items[rank] in test) if rank < len(items) else None
                for items in lists.values()
            ]
            for rank in range(longest)
        ],
    )
