"""What is read from the tries of a search afterwards, without what it takes to make some."""

import json
from typing import Any

import polars as pl

from recmodels.errors import InputError


def tuned_settings(table: pl.DataFrame) -> dict[str, Any]:
    """
    Return the best settings of a search, by its tries (schema `TRIES`), as overrides of the model's configuration.

    Raises InputError if none is chosen.
    """
    chosen = table.filter(pl.col("chosen"))
    if chosen.height != 1:
        raise InputError("tries", expected="one that is chosen", found=str(chosen.height))
    return json.loads(chosen["settings"].item())
