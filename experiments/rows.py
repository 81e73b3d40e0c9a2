"""What is compared: the rows of the tables with their models and settings, their seeds, and the papers' figures."""

import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from recmodels.validation import validated

HERE = Path(__file__).resolve().parent
DOCS = HERE.parent / "docs"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Row(_Strict):
    title: str
    """What the tables call it."""
    model: str = ""
    """Its name in the registry; empty for popularity."""
    settings: dict[str, Any] = {}
    """What differs from the model's defaults."""
    item_text: Literal["published", "profiles"] = "published"
    """Where the item text graph comes from: the published neighbour table or our profiles."""


class RowsOfDataset(_Strict):
    rows: list[str]
    seeds: list[int]


class Rows(_Strict):
    rows: dict[str, Row]
    data_sets: dict[str, RowsOfDataset]
    comparisons: list[tuple[str, str]]
    """Pairs of rows that are tested against each other, user by user."""


ROWS = validated(Rows, tomllib.loads((HERE / "rows.toml").read_text()), "rows.toml")
PUBLISHED: dict[str, dict[str, dict[str, float]]] = tomllib.loads((HERE / "published.toml").read_text())
"""The papers' figures by data set, row and name, as in ``PUBLISHED["baby"]["bpr"]["recall@20"]``."""
