"""Division of interactions into train, valid and test."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recmodels.data.catalogue import SplitStrategy
from recmodels.data.digest import frame_digest
from recmodels.data.schemas import INTERACTIONS, SPLITS, Split
from recmodels.errors import InputError

TRAIN, VALID, TEST = range(3)
FEWEST_TO_SPLIT = 3


@dataclass(frozen=True)
class WithoutTraining:
    """
    Users and items that a split leaves without training rows.

    Attributes
    ----------
    users, items
        Their ids, ascending (schema user_id or item_id: Int32).
    """

    users: pl.Series
    items: pl.Series


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
    """
    if strategy == "published":
        if "split" not in interactions.columns or interactions["split"].null_count():
            raise InputError(
                "interactions",
                expected="a published split in the column `split`",
                found="none",
                action="Choose the split `random`, `temporal` or `leave_last_out`.",
            )
        return interactions.select(INTERACTIONS.names()).sort("user_id", "item_id")
    table = interactions.sort("user_id", "item_id")
    order = np.random.default_rng(seed).permutation(table.height)
    if strategy != "random":
        if table["timestamp"].null_count():
            raise InputError(
                "interactions",
                expected=f"a timestamp in every row for the split `{strategy}`",
                found=f"{table['timestamp'].null_count():,} rows without",
                action="Choose the split `random` or `published`.",
            )
        order = order[np.argsort(table["timestamp"].to_numpy()[order], kind="stable")]
    users = table["user_id"].to_numpy()
    if strategy == "temporal":
        labels = _latest_overall(users, order)
    else:
        labels = _last_of_each_user(users, order, published_rule=strategy == "random")
    split = pl.Series("split", labels, dtype=pl.UInt8).cat.to(Split)
    return table.with_columns(split).select(INTERACTIONS.names())


def split_digest(interactions: pl.DataFrame) -> str:
    """Return the digest of a split: which (user, item) pair is where, whatever the order of the rows."""
    return frame_digest(interactions.select("user_id", "item_id", "split").sort("user_id", "item_id"))


def without_training(interactions: pl.DataFrame, n_users: int, n_items: int) -> WithoutTraining:
    """Return the users and items of 0..n-1 that have no training row."""
    train = interactions.filter(pl.col("split") == SPLITS[TRAIN])
    return WithoutTraining(
        users=_absent(train["user_id"], n_users),
        items=_absent(train["item_id"], n_items),
    )


def _absent(ids: pl.Series, n: int) -> pl.Series:
    counts = np.bincount(ids.to_numpy(), minlength=n)
    return pl.Series(ids.name, np.flatnonzero(counts == 0), dtype=pl.Int32)


def _published_sizes(n: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    held_out = np.where(n < FEWEST_TO_SPLIT, 0, np.maximum(n // 5, 2))
    valid = held_out // 2
    return valid, held_out - valid


def _last_of_each_user(
    users: NDArray[np.int32], order: NDArray[np.int64], *, published_rule: bool
) -> NDArray[np.uint8]:
    by_user = order[np.argsort(users[order], kind="stable")]
    n = np.bincount(users)
    if published_rule:
        valid, test = _published_sizes(n)
    else:
        valid = test = (n >= FEWEST_TO_SPLIT).astype(np.int64)
    sorted_users = users[by_user]
    from_end = np.cumsum(n)[sorted_users] - 1 - np.arange(users.shape[0])
    labels = np.full(users.shape[0], TRAIN, dtype=np.uint8)
    labels[by_user[from_end < (valid + test)[sorted_users]]] = VALID
    labels[by_user[from_end < test[sorted_users]]] = TEST
    return labels


def _latest_overall(users: NDArray[np.int32], order: NDArray[np.int64]) -> NDArray[np.uint8]:
    valid, test = (int(sizes.sum()) for sizes in _published_sizes(np.bincount(users)))
    labels = np.full(users.shape[0], TRAIN, dtype=np.uint8)
    labels[order[len(order) - test - valid :]] = VALID
    labels[order[len(order) - test :]] = TEST
    return labels
