"""`recmodels similar`: what resembles an item."""

from typing import Annotated

import typer

from pipelines.cli.options import Dataset
from pipelines.cli.rows import AsJson, say, show_rows
from pipelines.cli.trained import Length, Model, Seed, opened


def similar(
    item: Annotated[list[str], typer.Option(metavar="ASIN", help="An item; may be repeated.")],
    dataset: Dataset = "demo",
    model: Model = "",
    seed: Seed = 0,
    number: Length = 10,
    as_json: AsJson = False,
) -> None:
    """Show the items that a model finds most similar to an item, with their titles."""
    name, recommender = opened(dataset, model, seed)
    if not as_json:
        say(f"{dataset}, {name}, seed {seed}")
    show_rows(recommender.similar_to(item, number).to_dicts(), as_json=as_json)
