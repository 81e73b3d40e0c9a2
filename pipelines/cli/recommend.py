"""`recmodels recommend`: the best items for users, or for what somebody had."""

from typing import Annotated, Any

import typer

from pipelines.cli.options import Dataset
from pipelines.cli.rows import AsJson, say, show_rows
from pipelines.cli.trained import Length, Model, Seed, opened
from recmodels.errors import InputError


def recommend(
    dataset: Dataset = "demo",
    model: Model = "",
    seed: Seed = 0,
    user: Annotated[list[str] | None, typer.Option(help="A reviewer's id in the raw data; may be repeated.")] = None,
    history: Annotated[
        str, typer.Option(metavar="ASIN,ASIN", help="What somebody had whom the model never saw, in place of --user.")
    ] = "",
    only: Annotated[
        str | None, typer.Option(metavar="ASIN,ASIN", help="Recommend among these items alone.", show_default="all")
    ] = None,
    without: Annotated[str, typer.Option(metavar="ASIN,ASIN", help="Items not to recommend.")] = "",
    number: Length = 10,
    as_json: AsJson = False,
) -> None:
    """
    Recommend items by name, with their titles.

    The column source says what an answer is made from. A user who is not in the data set is answered by popularity.
    """
    if bool(user) == bool(history):
        raise InputError(
            "--user, --history",
            expected="one of them",
            found="both" if user else "neither",
            action="Give --user ID, or --history ASIN,ASIN.",
        )
    if any(not name.strip() for name in user or ()):
        raise InputError("--user", expected="a reviewer's id", found="an empty one")
    name, recommender = opened(dataset, model, seed)
    filters: dict[str, Any] = {"only": None if only is None else _asins(only), "without": _asins(without)}
    if user:
        rows = recommender.recommend_for(user, number, **filters).to_dicts()
    else:
        found = recommender.recommend_for_history(_asins(history), number, **filters)
        rows = [{"reviewer_id": None, **row} for row in found.iter_rows(named=True)]
    if not as_json:
        say(f"{dataset}, {name}, seed {seed}")
    show_rows(rows, as_json=as_json)


def _asins(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
