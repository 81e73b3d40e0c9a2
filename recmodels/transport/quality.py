"""What added pairs must satisfy, and how the training set changes: violations and histograms."""

import numpy as np
import polars as pl

from recmodels.graphs.quality import side_by_side_histograms


def augmentation_violations(
    added: pl.DataFrame, interactions: pl.DataFrame, n_users: int, n_items: int
) -> dict[str, int]:
    """
    Count what is wrong with a table of added pairs.

    Parameters
    ----------
    added
        Table of schema `recmodels.data.schemas.AUGMENTED`.
    interactions
        Training pairs, columns user_id and item_id.
    n_users, n_items
        Numbers of users and items.

    Returns
    -------
    dict
        Violation to how often it occurs; all 0 for a sound table: ``ids_out_of_range``, ``repeated_pairs``,
        ``training_pairs`` (pairs that were positives already), ``wrong_masses`` (not finite or not above 0).
    """
    known = pl.col("user_id").is_between(0, n_users - 1) & pl.col("item_id").is_between(0, n_items - 1)
    train = interactions.select(pl.col("user_id", "item_id").cast(pl.Int32))
    return {
        "ids_out_of_range": added.filter(~known).height,
        "repeated_pairs": added.height - added.select("user_id", "item_id").n_unique(),
        "training_pairs": added.join(train, on=["user_id", "item_id"], how="semi").height,
        "wrong_masses": added.filter(~(pl.col("mass").is_finite() & (pl.col("mass") > 0))).height,
    }


def activity_histograms(interactions: pl.DataFrame, added: pl.DataFrame, n_users: int, n_items: int) -> bytes:
    """
    Draw the activity of users and the popularity of items before and after the augmentation.

    Parameters
    ----------
    interactions
        Training pairs, columns user_id and item_id.
    added
        Added pairs, the same columns.
    n_users, n_items
        Numbers of users and items.

    Returns
    -------
    bytes
        A PNG image of two panels, users and items, with logarithmic counts.
    """
    panels: dict[str, dict[str, np.ndarray]] = {}
    for label, column, n in (("items of a user", "user_id", n_users), ("users of an item", "item_id", n_items)):
        before = np.bincount(interactions[column].to_numpy(), minlength=n)
        after = before + np.bincount(added[column].to_numpy(), minlength=n)
        panels[label] = {"before": before.astype(np.float64), "after": after.astype(np.float64)}
    return side_by_side_histograms(panels)
