"""Checks of the augmentation."""

import dagster as dg
import polars as pl

from assets.checks.declare import Verdict, recorded_check, table_check
from recmodels.transport.quality import augmentation_violations


@table_check(
    "augmented_interactions",
    "No added pair is a training pair, none is added twice, and every mass is positive.",
    also=["interactions", "users", "item_ids"],
)
def sound_additions(
    added: pl.DataFrame, interactions: pl.DataFrame, users: pl.DataFrame, item_ids: pl.DataFrame
) -> Verdict:
    """Compare the added pairs with the training pairs."""
    train = interactions.filter(pl.col("split") == "train")
    violations = augmentation_violations(added, train, users.height, item_ids.height)
    return not any(violations.values()), {
        **violations,
        "share_of_users_reached": added["user_id"].n_unique() / users.height,
        "share_of_items_reached": added["item_id"].n_unique() / item_ids.height,
    }


@recorded_check("augmented_interactions", "The plan's marginals were met within the tolerance.", blocking=False)
def converged_plan(records: list[dg.AssetMaterialization]) -> Verdict:
    """Look at how the solver ended."""
    metadata = records[0].metadata
    status = metadata.get("status")
    error = metadata.get("marginal_error")
    passed = status is None or status.value != "not converged"
    return passed, {"status": str(status.value) if status else "", "marginal_error": error.value if error else 0.0}


CHECKS = [sound_additions, converged_plan]
