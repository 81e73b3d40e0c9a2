"""Checks of the augmentation."""

import polars as pl

from assets.checks.declare import Verdict, table_check


@table_check(
    "augmented_interactions", "No added pair is a training pair, and none is added twice.", also=["interactions"]
)
def added_pairs_are_new(added: pl.DataFrame, interactions: pl.DataFrame) -> Verdict:
    """Compare the added pairs with the training pairs."""
    train = interactions.filter(pl.col("split") == "train")
    known = added.join(train, on=["user_id", "item_id"], how="semi").height
    repeated = added.height - added.select("user_id", "item_id").n_unique()
    return known == 0 and repeated == 0, {
        "training_pairs_added": known,
        "repeated_pairs": repeated,
        "share_of_users_reached": added["user_id"].n_unique() / max(1, interactions["user_id"].n_unique()),
        "share_of_items_reached": added["item_id"].n_unique() / max(1, interactions["item_id"].n_unique()),
    }


CHECKS = [added_pairs_are_new]
