"""Checks of ids, pairs and splits."""

import dagster as dg
import polars as pl

from assets.checks.declare import Verdict, table_check


def _contiguous(name: str, id_column: str) -> dg.AssetChecksDefinition:
    @table_check(name, f"The {id_column}s run from 0 without a gap, in order.")
    def contiguous_ids(table: pl.DataFrame) -> Verdict:
        expected = pl.Series(id_column, range(table.height), dtype=pl.Int32)
        return table[id_column].equals(expected), {"rows": table.height}

    return contiguous_ids


def _pairs(name: str) -> dg.AssetChecksDefinition:
    @table_check(name, "Every user and item id is known, and no pair occurs twice.", also=["users", "item_ids"])
    def known_distinct_pairs(table: pl.DataFrame, users: pl.DataFrame, item_ids: pl.DataFrame) -> Verdict:
        repeated = table.height - table.select("user_id", "item_id").n_unique()
        unknown = table.filter(
            ~pl.col("user_id").is_between(0, users.height - 1) | ~pl.col("item_id").is_between(0, item_ids.height - 1)
        ).height
        return repeated == 0 and unknown == 0, {"repeated_pairs": repeated, "unknown_ids": unknown}

    return known_distinct_pairs


@table_check("interactions", "Each row is in one of train, valid and test, and training rows exist.")
def complete_split(interactions: pl.DataFrame) -> Verdict:
    """Count the rows of each split."""
    sizes = {str(name): count for name, count in interactions.group_by("split").len().iter_rows()}
    return "None" not in sizes and sizes.get("train", 0) > 0, {"sizes": dg.MetadataValue.json(sizes)}


CHECKS = [
    _contiguous("items", "item_id"),
    _contiguous("item_ids", "item_id"),
    _contiguous("users", "user_id"),
    _pairs("reviews"),
    _pairs("interactions"),
    complete_split,
]
