"""What has to hold of the tables of a data set, as figures that a check compares with its bounds."""

from collections.abc import Mapping

import polars as pl

from recmodels.catalogue.entries import PublishedCounts
from recmodels.schemas.data import SPLITS

_REJECTS = "_rejects"


def fewest_interactions(interactions: pl.DataFrame) -> dict[str, int]:
    """Return, by ``user`` and ``item``, the fewest rows of any that occurs: at least k where the k-core holds."""
    counts = {kind: interactions.group_by(f"{kind}_id").len()["len"].to_numpy() for kind in ("user", "item")}
    return {kind: int(found.min()) if found.size else 0 for kind, found in counts.items()}


def rejected_shares(counts: dict[str, int]) -> dict[str, float]:
    """Return the share of rejected lines of each raw file, from the counts of a `Dump`."""
    return {kind: counts[kind + _REJECTS] / max(1, counts[f"{kind}_lines"]) for kind in kinds_of_files(counts)}


def first_rejects(rejects: pl.DataFrame, counts: dict[str, int]) -> dict[str, str]:
    """Return the first rejected line of each raw file of a `Dump` that has any, as text: file, line and reason."""
    first: dict[str, str] = {}
    start = 0
    for kind in kinds_of_files(counts):
        if n := counts[kind + _REJECTS]:
            file, line, reason, _ = rejects.row(start)
            first[kind] = f"{file}, line {line:,} ({reason})"
            start += n
    return first


def kinds_of_files(counts: Mapping[str, int]) -> list[str]:
    """Return the kinds of raw files that counts tell of, the one with the interactions first."""
    return [name.removesuffix(_REJECTS) for name in counts if name.endswith(_REJECTS)]


def sizes(interactions: pl.DataFrame, n_users: int, n_items: int) -> PublishedCounts:
    """Return the numbers that papers report of a data set and its split."""
    rows = dict(interactions.group_by("split").len().iter_rows())
    return PublishedCounts(users=n_users, items=n_items, **{split: rows.get(split, 0) for split in SPLITS})


def most_shared_title(items: pl.DataFrame) -> tuple[str, int]:
    """Return the title that most items (schema `ITEMS`) share, and how many do; ``("", 0)`` where no item has one."""
    titles = items.filter(pl.col("title") != "").group_by("title").len().sort("len", "title", descending=[True, False])
    return titles.row(0) if titles.height else ("", 0)


def untitled(items: pl.DataFrame) -> tuple[int, int]:
    """Return how many items (schema `ITEMS`) have something told of them but no title, and of how many something is."""
    told = [pl.col(name) != "" for name in ("title", "description", "brand", "image_url")]
    described = items.filter(pl.any_horizontal(*told, pl.col("categories").list.len() > 0))
    return described.filter(pl.col("title") == "").height, described.height


def differences(found: PublishedCounts, published: PublishedCounts) -> dict[str, tuple[int, int]]:
    """Return the numbers that differ, as (found, published); empty if the data set is the published one."""
    pairs = {name: (getattr(found, name), getattr(published, name)) for name in PublishedCounts.model_fields}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
