"""What has to hold of the tables of a data set, as figures that a check compares with its bounds."""

import polars as pl

from recmodels.data.catalogue import PublishedCounts
from recmodels.data.schemas import SPLITS


def fewest_interactions(interactions: pl.DataFrame) -> dict[str, int]:
    """
    Return the fewest rows of any user and of any item that occurs: at least k where the k-core holds.

    The keys are ``user`` and ``item``; 0 for an empty table.
    """
    return {
        kind: 0 if interactions.is_empty() else int(interactions.group_by(f"{kind}_id").len()["len"].to_numpy().min())
        for kind in ("user", "item")
    }


def misplaced_ids(ids: pl.Series) -> int:
    """Return how many ids are not at their own position: 0 if they run from 0 without a gap, in order."""
    return int((ids.cast(pl.Int64) != pl.int_range(len(ids), eager=True)).fill_null(True).sum())


def ids_out_of_range(ids: pl.Series, n: int) -> int:
    """Return how many ids are null or not within 0..n-1."""
    return int((~ids.is_between(0, n - 1)).fill_null(True).sum())


def repeated_pairs(interactions: pl.DataFrame) -> int:
    """Return how many rows repeat a (user, item) pair, in one split or across two."""
    return interactions.height - interactions.select("user_id", "item_id").unique().height


def rejected_shares(counts: dict[str, int]) -> dict[str, float]:
    """Return the share of rejected lines of each raw file, from the counts of a `Dump`."""
    ending = "_rejects"
    kinds = [name.removesuffix(ending) for name in counts if name.endswith(ending)]
    return {kind: counts[kind + ending] / max(1, counts[f"{kind}_lines"]) for kind in kinds}


def sizes(interactions: pl.DataFrame, n_users: int, n_items: int) -> PublishedCounts:
    """Return the numbers that papers report of a data set and its split."""
    rows = dict(interactions.group_by("split").len().iter_rows())
    return PublishedCounts(users=n_users, items=n_items, **{split: rows.get(split, 0) for split in SPLITS})


def differences(found: PublishedCounts, published: PublishedCounts) -> dict[str, tuple[int, int]]:
    """Return the numbers that differ, as (found, published); empty if the data set is the published one."""
    pairs = {name: (getattr(found, name), getattr(published, name)) for name in PublishedCounts.model_fields}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
