"""
Added positives by strategy: optimal transport, or false negatives drawn at random, which transport is compared with.

The transport itself is `recmodels.transport.augment`.
"""

from collections.abc import Mapping

import numpy as np
import polars as pl

from recmodels.compute.base import Compute
from recmodels.compute.local import LOCAL
from recmodels.graphs.matrices import interaction_matrix
from recmodels.schemas.tables import AUGMENTED
from recmodels.transport.augment import augment
from recmodels.transport.config import PositivesConfig
from recmodels.transport.false_negatives import false_negatives


def added_positives(
    interactions: pl.DataFrame,
    item_graphs: Mapping[str, pl.DataFrame],
    *,
    n_users: int,
    n_items: int,
    config: PositivesConfig | None = None,
    compute: Compute = LOCAL,
) -> pl.DataFrame:
    """
    Return the pairs that a training adds to its positives (schema `AUGMENTED`); those drawn at random have mass 1.

    Random draws are uniform over the false negatives, and all of them where there are fewer than are asked for
    (BLAST, table 1).

    Parameters
    ----------
    interactions
        Columns user_id and item_id of the training rows.
    item_graphs
        Modality to neighbour table, schema `recmodels.schemas.tables.KNN`.
    n_users, n_items
        Numbers of users and items.
    config
        Settings; None takes the paper's transport.
    compute
        Where transport keeps its parts; false negatives are drawn here.

    Raises
    ------
    InputError
        As `recmodels.transport.augment.augment`.

    Examples
    --------
    >>> train = pl.DataFrame({"user_id": [0, 1], "item_id": [0, 1]})
    >>> knn = pl.DataFrame({"src": [0, 1], "dst": [1, 0], "rank": [0, 0], "similarity": [0.9, 0.9]})
    >>> drawn = PositivesConfig(strategy="random", ratio=1.0, neighbours=None)
    >>> added_positives(train, {"text": knn}, n_users=2, n_items=2, config=drawn).rows()
    [(0, 1, 1.0), (1, 0, 1.0)]
    """
    config = config or PositivesConfig()
    if config.strategy == "transport":
        sizes = {"n_users": n_users, "n_items": n_items}
        return augment(interactions, item_graphs, config, **sizes, compute=compute, keep_false_negatives=False).added
    users, items = interactions["user_id"].to_numpy(), interactions["item_id"].to_numpy()
    candidates = false_negatives(users, items, n_users, n_items, item_graphs, k=config.neighbours)
    positives = interaction_matrix(users, items, n_users, n_items)
    order = np.random.default_rng(config.seed).permutation(candidates.nnz)
    of_user = np.repeat(np.arange(n_users), np.diff(candidates.indptr))
    if config.items_per_user is None:
        chosen = order[: int(np.floor(config.ratio * positives.nnz + 0.5))]
    else:
        chosen = _first_of_each_user(order, of_user, config.items_per_user - np.diff(positives.indptr))
    chosen = np.sort(chosen)
    columns = {"user_id": of_user[chosen], "item_id": candidates.indices[chosen], "mass": np.ones(chosen.size)}
    return pl.DataFrame(columns).cast(AUGMENTED)


def _first_of_each_user(order: np.ndarray, of_user: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return of each user's entries, in a random order, as many of the first as the user wants."""
    by_user = order[np.argsort(of_user[order], kind="stable")]
    users = of_user[by_user]
    place = np.arange(users.size) - np.searchsorted(users, users)
    return by_user[place < wanted[users]]
