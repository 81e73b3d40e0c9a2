"""Division of interactions into train, valid and test."""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recmodels.catalogue.entries import SplitStrategy
from recmodels.errors import InputError
from recmodels.io.digest import frame_digest
from recmodels.schemas.data import SPLITS, Split
from recmodels.schemas.tables import INTERACTIONS

TRAIN, VALID, TEST = range(3)
FEWEST_TO_SPLIT = 3


def split_interactions(interactions: pl.DataFrame, strategy: SplitStrategy, *, seed: int = 0) -> pl.DataFrame:
    """
    Return the interactions with their `split`, by user and item (schema `INTERACTIONS`).

    ``random``
        By the rule of the published multimodal benchmarks: of a user's n shuffled rows, one goes to valid and one to
        test if n < 10; else h = floor(0.2 n) are held out, floor(h / 2) for valid and the rest for test.
    ``temporal``
        As many rows as that rule holds out in all, but the latest of the whole table: test, before them valid.
    ``leave_last_out``
        The latest row of each user is test, the one before valid.
    ``published``
        The split that the table brings.

    A user with fewer than 3 rows stays in train under ``random`` and ``leave_last_out``. The result depends on the
    rows and the seed, not on their order; equal times are ordered by the seed.

    Parameters
    ----------
    interactions
        At most one row a (user_id, item_id) pair; `split` is read by ``published`` only and may be null or absent
        otherwise.

    Raises
    ------
    InputError
        If the strategy needs a split or a time that the table lacks.

    Examples
    --------
    >>> rows = pl.DataFrame({"user_id": [0, 0, 0], "item_id": [0, 1, 2], "rating": None, "timestamp": [30, 10, 20]})
    >>> split_interactions(rows, "leave_last_out")["split"].to_list()
    ['test', 'train', 'valid']
    """
    if strategy == "published":
        if "split" not in interactions.columns or interactions["split"].null_count():
            raise InputError(
                "interactions",
                expected="a published split in the column `split`",
                found="none",
                action="Choose the split `random`, `temporal` or `leave_last_out`.",
            )
        return _by_pair(interactions).select(INTERACTIONS.names())
    table = _by_pair(interactions)
    n = table.height
    priority = np.random.default_rng(seed).permutation(n)
    if strategy != "random":
        if table["timestamp"].null_count():
            raise InputError(
                "interactions",
                expected=f"a timestamp in every row for the split `{strategy}`",
                found=f"{table['timestamp'].null_count():,} rows without",
                action="Choose the split `random` or `published`.",
            )
        priority = _ranks(table["timestamp"].to_numpy(), priority)
    users = table["user_id"].to_numpy()
    if strategy == "temporal":
        labels = _latest_overall(users, priority)
    else:
        labels = _last_of_each_user(users, priority, published_rule=strategy == "random")
    split = pl.Series("split", labels, dtype=pl.UInt8).cat.to(Split)
    return table.with_columns(split).select(INTERACTIONS.names())


def split_digest(interactions: pl.DataFrame) -> str:
    """Return the digest of a split: which (user, item) pair is where, whatever the order of the rows."""
    return frame_digest(_by_pair(interactions).select("user_id", "item_id", "split"))


def without_training(interactions: pl.DataFrame, n_users: int, n_items: int) -> tuple[pl.Series, pl.Series]:
    """Return the users and the items (Int32) of 0..n-1 that have no training row, ascending."""
    train = interactions.filter(pl.col("split") == SPLITS[TRAIN])
    counts = {name: np.bincount(train[name], minlength=n) for name, n in (("user_id", n_users), ("item_id", n_items))}
    users, items = (pl.Series(name, np.flatnonzero(count == 0), dtype=pl.Int32) for name, count in counts.items())
    return users, items


def _published_sizes(n: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    held_out = np.where(n < FEWEST_TO_SPLIT, 0, np.maximum(n // 5, 2))
    valid = held_out // 2
    return valid, held_out - valid


def _by_pair(interactions: pl.DataFrame) -> pl.DataFrame:
    # One key a row sorts several times faster than two columns.
    keys = (interactions["user_id"].to_numpy().astype(np.int64) << 32) | interactions["item_id"].to_numpy()
    if np.all(keys[1:] >= keys[:-1]):
        return interactions
    return interactions[np.argsort(keys, kind="stable")]


def _ranks(values: NDArray[np.int64], ties: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the rank of each value, equal ones in the order of `ties`, a permutation."""
    ranks = np.empty(len(values), dtype=np.int64)
    order = np.argsort(ties)
    ranks[order[np.argsort(values[order], kind="stable")]] = np.arange(len(values))
    return ranks


def _last_of_each_user(
    users: NDArray[np.int32], priority: NDArray[np.int64], *, published_rule: bool
) -> NDArray[np.uint8]:
    """Label the rows of each user with the highest priorities (a permutation); `users` is sorted."""
    n = np.bincount(users)
    if published_rule:
        valid, test = _published_sizes(n)
    else:
        valid = test = (n >= FEWEST_TO_SPLIT).astype(np.int64)
    by_priority = np.argsort(users * np.int64(len(users)) + priority)
    from_end = np.cumsum(n)[users] - 1 - np.arange(len(users))
    labels = np.full(len(users), TRAIN, dtype=np.uint8)
    labels[by_priority[from_end < (valid + test)[users]]] = VALID
    labels[by_priority[from_end < test[users]]] = TEST
    return labels


def _latest_overall(users: NDArray[np.int32], priority: NDArray[np.int64]) -> NDArray[np.uint8]:
    valid, test = (int(sizes.sum()) for sizes in _published_sizes(np.bincount(users)))
    n = len(users)
    labels = np.full(n, TRAIN, dtype=np.uint8)
    labels[priority >= n - test - valid] = VALID
    labels[priority >= n - test] = TEST
    return labels
