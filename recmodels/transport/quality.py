"""How added pairs change the training set, as histograms."""

import numpy as np
import polars as pl

from recmodels.graphs.quality import side_by_side_histograms


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
