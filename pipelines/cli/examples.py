"""What a finished run ends with: a few recommendations of its best model, by title."""

import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pipelines.cli.rows import printable, say

if TYPE_CHECKING:
    import polars as pl

_CHARACTERS = 60


def print_examples(dataset: str, board: "pl.DataFrame") -> None:
    """Print what the best model of a leaderboard recommends to three users, beside what they had."""
    import polars as pl

    from assets.serving import best_model, open_recommender, trained_seeds
    from pipelines.instance import open_instance
    from recmodels.reporting.examples import example_users

    model = best_model(board)
    if model is None:
        return
    with open_instance() as instance:
        seed = trained_seeds(instance, dataset, model)[0]
        recommender = open_recommender(dataset, model, seed, instance=instance)
    stored = recommender.checkpoint
    say(f"For example, {model} (seed {seed}) recommends:")
    user = ""
    for user_id in example_users(stored.seen):
        user = str(stored.users["reviewer_id"][user_id])
        had = stored.seen.filter(pl.col("user_id") == user_id).join(recommender.items, on="item_id")
        best = recommender.recommend_for(user, 1)
        for (title, asin), (had_title, had_asin) in zip(_names(best), _names(had), strict=False):
            say(f"  {printable(title or asin, _CHARACTERS)}")
            say(f"    to {printable(user, _CHARACTERS)}, who had {printable(had_title or had_asin, _CHARACTERS)}")
    if printable(user) == user:  # else the command is none to copy
        say(f"More: `recmodels recommend --dataset {dataset} --model {model} --user {shlex.quote(user)}`")


def _names(items: "pl.DataFrame") -> "Iterator[tuple[str | None, str]]":
    return items.select("title", "asin").iter_rows()
