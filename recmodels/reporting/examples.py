"""Which users and items stand for the rest, and what their profiles were made from."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from recmodels.data.titles import shown_titles
from recmodels.profiles.inputs import ItemInputs, UserInputs
from recmodels.profiles.write import Explanation
from recmodels.reporting.tables import shortened

EVIDENCE_CHARACTERS = 240
SHOWN_EVIDENCE = 12


def example_users(interactions: pl.DataFrame, n: int = 3) -> list[int]:
    """Return the ids of n users spread evenly from the least to the most active in training, ties by id."""
    counts = interactions.filter(pl.col("split") == "train").group_by("user_id").len().sort("len", "user_id")
    places = np.linspace(0, counts.height - 1, min(n, counts.height)).round().astype(int)
    return [int(counts["user_id"][int(place)]) for place in places]


def example_items(interactions: pl.DataFrame, n: int = 2) -> list[int]:
    """Return the ids of the n items with most training rows, ties by id."""
    counts = interactions.filter(pl.col("split") == "train").group_by("item_id").len()
    return counts.sort("len", "item_id", descending=[True, False])["item_id"].head(n).to_list()


def named_items(item_ids: pl.DataFrame, items: pl.DataFrame) -> list[str]:
    """Return what to call each item_id in its order, and the asin where the table of items lacks it."""
    titles = items.select("asin", shown_titles(items))
    found = item_ids.select("asin").join(titles, on="asin", how="left", maintain_order="left")
    return found.select(pl.coalesce("title", "asin")).to_series().to_list()


def evidence(inputs: ItemInputs | UserInputs) -> list[str]:
    """Return the texts that a profile was made from, cut where they are long."""
    if isinstance(inputs, UserInputs):
        chosen = [(entry.title or entry.profile, entry.review) for entry in inputs.history]
        lines = [": ".join(text for text in texts if text) for texts in chosen]
    else:
        lines = [inputs.title, inputs.description, inputs.brand, " > ".join(inputs.categories), *inputs.reviews]
    return [shortened(line, EVIDENCE_CHARACTERS) for line in lines if line][:SHOWN_EVIDENCE]


def profiles_and_evidence(profiles: pl.DataFrame, explanations: Sequence[Explanation]) -> pl.DataFrame:
    """Return some profiles, of a table in id order whose first column is the id, beside what they were made from."""
    id_column = profiles.columns[0]
    rows = [
        {
            id_column: explanation.id,
            "profile": profiles["profile"][explanation.id],
            "made from": " | ".join(evidence(explanation.inputs)),
            "written by": profiles["source"][explanation.id],
        }
        for explanation in explanations
    ]
    return pl.DataFrame(
        rows, schema={id_column: pl.Int64, "profile": pl.String, "made from": pl.String, "written by": pl.String}
    )
