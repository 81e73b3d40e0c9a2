"""Checks of ids, pairs and splits."""

import dagster as dg
import polars as pl

from assets.checks.declare import Verdict, recorded_check, recorded_json, table_check
from recmodels.data.checks import ids_out_of_range, misplaced_ids, repeated_pairs

MAX_DRIFT = 0.1
"""Largest relative change of the number of interactions since the last materialisation that is not worth a warning."""


def _contiguous(name: str, id_column: str) -> dg.AssetChecksDefinition:
    @table_check(name, f"The {id_column}s run from 0 without a gap, in order.")
    def contiguous_ids(table: pl.DataFrame) -> Verdict:
        misplaced = misplaced_ids(table[id_column])
        return misplaced == 0, {"misplaced_ids": misplaced}

    return contiguous_ids


def _pairs(name: str) -> dg.AssetChecksDefinition:
    @table_check(
        name, "Every id is known, and no pair occurs twice, so none is in two splits.", also=["users", "item_ids"]
    )
    def known_distinct_pairs(table: pl.DataFrame, users: pl.DataFrame, item_ids: pl.DataFrame) -> Verdict:
        found = {
            "unknown_users": ids_out_of_range(table["user_id"], users.height),
            "unknown_items": ids_out_of_range(table["item_id"], item_ids.height),
            "repeated_pairs": repeated_pairs(table),
        }
        return not any(found.values()), found

    return known_distinct_pairs


@table_check("interactions", "Each row is in one of train, valid and test, and training rows exist.")
def complete_split(interactions: pl.DataFrame) -> Verdict:
    """Count the rows of each split."""
    missing = interactions["split"].null_count()
    n_train = int((interactions["split"] == "train").sum())
    return missing == 0 and n_train > 0, {"rows_without_split": missing, "training_rows": n_train}


@recorded_check("interactions", "Every user and item has as many interactions as the k-core asks for.", blocking=True)
def k_core_holds(records: list[dg.AssetMaterialization]) -> Verdict:
    """Compare the fewest interactions with k, as recorded while the table was made."""
    k, fewest = int(str(records[0].metadata["k_core"].value)), recorded_json(records[0], "fewest_interactions")
    return min(fewest.values()) >= k, {"k": k, **{f"fewest_of_a_{kind}": count for kind, count in fewest.items()}}


@recorded_check("interactions", "A published split has exactly the published numbers.", blocking=True)
def published_sizes(records: list[dg.AssetMaterialization]) -> Verdict:
    """Compare users, items and rows of each split with those that papers report."""
    differing = recorded_json(records[0], "differences_from_published")
    return not differing, {"differing": dg.MetadataValue.json(differing)}


@recorded_check(
    "interactions",
    f"The number of rows changed by at most {MAX_DRIFT:.0%} since the last materialisation.",
    blocking=False,
    n_records=2,
)
def little_drift(records: list[dg.AssetMaterialization]) -> Verdict:
    """Compare the row counts of the last two materialisations."""
    counts = [int(str(record.metadata["dagster/row_count"].value)) for record in records]
    drift = abs(counts[0] - counts[-1]) / max(1, counts[-1])
    return drift <= MAX_DRIFT, {"rows": counts[0], "rows_before": counts[-1], "drift": drift}


CHECKS = [
    _contiguous("items", "item_id"),
    _contiguous("item_ids", "item_id"),
    _contiguous("users", "user_id"),
    _pairs("reviews"),
    _pairs("interactions"),
    complete_split,
    k_core_holds,
    published_sizes,
    little_drift,
]
