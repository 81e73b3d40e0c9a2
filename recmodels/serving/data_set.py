"""
What is known of the users and items of a data set beside any model, by the names of the raw data.

Histories, held-out items, profiles beside what they were made from, edges of the item graphs. What a model makes of
them is `recmodels.serving.recommender`; why it may have is `recmodels.serving.reasons`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recmodels.data.titles import shown_titles
from recmodels.errors import InputError
from recmodels.evaluation.evaluator import ACTIVITY_BORDERS, ACTIVITY_GROUPS
from recmodels.profiles.config import ProfileConfig
from recmodels.profiles.write import item_task, user_task
from recmodels.reporting.examples import evidence
from recmodels.serving.names import names
from recmodels.serving.pictures import loadable_picture
from recmodels.serving.shown import Item, ItemDetails, Profile, User, UserDetails
from recmodels.validation import did_you_mean

EDGES = pl.Schema({"asin": pl.String, "graph": pl.String, "because_asin": pl.String, "similarity": pl.Float32})
"""Which items of a user are neighbours of items; `similarity` is null where an import has none."""


@dataclass(frozen=True, eq=False)
class Written:
    """A table of profiles, and the settings it was written with."""

    table: pl.DataFrame
    """Schema `recmodels.schemas.tables.ITEM_PROFILES` or `USER_PROFILES`."""
    config: ProfileConfig
    """Decides what of the reviews was read."""


@dataclass(frozen=True, eq=False)
class DataSet:
    """
    The tables of a data set, asked by name.

    Examples
    --------
    >>> from recmodels.models.example import example_tables
    >>> from recmodels.schemas.tables import REVIEWS
    >>> tables = example_tables()
    >>> items = tables["item_ids"].with_columns(title=pl.lit("A <b>"), description=pl.lit(""), image_url=pl.lit(""))
    >>> known = DataSet(tables["interactions"], tables["users"], items, pl.DataFrame(schema=REVIEWS))
    >>> [user["user"] for user in known.find_users("r1", 3)]
    ['R1', 'R10', 'R11']
    >>> len(known.user("R1")["history"]), [item["asin"] for item in known.user("R1")["held_out"]]
    (7, ['B3'])
    """

    interactions: pl.DataFrame
    users: pl.DataFrame
    items: pl.DataFrame
    reviews: pl.DataFrame
    """The tables of these names (`recmodels.schemas.tables`)."""
    item_profiles: Written | None = None
    user_profiles: Written | None = None
    """The profiles, None where there are none yet."""
    graphs: Mapping[str, pl.DataFrame] = field(default_factory=dict[str, pl.DataFrame])
    """Neighbour tables of the items by name, as in ``text``; they may be without rows."""

    def groups(self) -> dict[str, int]:
        """Return how many users each activity group has; those of `recmodels.evaluation.evaluator`."""
        counts = np.bincount(self._group, minlength=len(ACTIVITY_GROUPS)).tolist()
        return dict(zip(ACTIVITY_GROUPS, counts, strict=True))

    def find_users(self, text: str = "", limit: int = 20, *, group: str | None = None) -> list[User]:
        """
        Return users whose id has a text in it, whatever the case; those whose id begins with it first.

        Raises InputError if there is no such group.
        """
        wanted = text.strip().lower()
        members = self._members(group)
        lower = self._lower[members]
        first = lower.str.starts_with(wanted)
        order = [*members[first.to_numpy()], *members[(lower.str.contains(wanted, literal=True) & ~first).to_numpy()]]
        return [self._told(int(user)) for user in order[:limit]]

    def any_user(self, rng: np.random.Generator, *, group: str | None = None) -> User | None:
        """Return a user at random; None if a group has nobody. Raises InputError if there is no such group."""
        members = self._members(group)
        return self._told(int(rng.choice(members))) if members.size else None

    def user(self, name: str) -> UserDetails:
        """Return what is known of a user; raises InputError, which tells the nearest name, if nobody is called so."""
        user = self._user_id(name)
        own = self._rows(user)
        seen = own.filter(pl.col("split") != "test")
        if "timestamp" in seen.columns:
            seen = seen.sort("timestamp", descending=True, nulls_last=True)
        return {
            **self._told(user),
            "history": [
                {
                    **self._item(row["item_id"]),
                    "split": str(row["split"]),
                    "rating": row.get("rating"),
                    "timestamp": row.get("timestamp"),
                }
                for row in seen.iter_rows(named=True)
            ],
            "held_out": [self._item(item) for item in own.filter(pl.col("split") == "test")["item_id"]],
            "profile": self._user_profile(user, own),
        }

    def item(self, asin: str) -> ItemDetails:
        """Return what is known of an item; raises InputError, which tells the nearest asin, if there is none."""
        (asked,) = names("item", asin)
        if (item := self._item_ids.get(asked)) is None:
            raise InputError(
                "item",
                expected="an asin of the data set",
                found=repr(asked),
                action=did_you_mean(asked, self._item_ids),
            )
        return {
            **self._item(item),
            "n_train": int(self._popularity[item]),
            "description": self.items["description"][item],
            "profile": self._item_profile(item),
        }

    def shown(self, asins: Sequence[str]) -> list[Item]:
        """Return items as they are shown; one that the data set does not have is called by its asin."""
        ids = [self._item_ids.get(asin) for asin in asins]
        return [
            {"asin": asin, "title": asin, "picture": None} if item is None else self._item(item)
            for asin, item in zip(asins, ids, strict=True)
        ]

    def held_out(self, name: str) -> frozenset[str]:
        """Return the asins of a user's test items; none of a user who is not in the data set."""
        user = self._user_ids.get(name)
        if user is None:
            return frozenset()
        rows = slice(*self._borders[user : user + 2])
        return frozenset(self.items["asin"][int(item)] for item in self._test_items[rows] if item >= 0)

    def edges(self, because: Sequence[str], asins: Sequence[str]) -> pl.DataFrame:
        """
        Return which items of a user (`because`) are neighbours of items (`asins`) in the item graphs.

        Either may be among the other's neighbours; an edge in both directions counts once, with its best similarity.

        Returns
        -------
        pl.DataFrame
            Schema `EDGES`, by graph.
        """
        own, asked = (
            [item for asin in of if (item := self._item_ids.get(asin)) is not None] for of in (because, asins)
        )
        named = self.items["asin"]
        found = [EDGES.to_frame()]
        for graph, table in self.graphs.items():
            directions = (table.select("similarity", item=a, because=b) for a, b in (("src", "dst"), ("dst", "src")))
            both = pl.concat(directions).filter(
                pl.col("item").is_in(asked) & pl.col("because").is_in(own) & (pl.col("item") != pl.col("because"))
            )
            best = both.group_by("item", "because", maintain_order=True).agg(pl.col("similarity").max())
            found.append(
                pl.DataFrame(
                    {
                        "asin": named[best["item"]],
                        "graph": [graph] * best.height,
                        "because_asin": named[best["because"]],
                        "similarity": best["similarity"],
                    },
                    schema=EDGES,
                )
            )
        return pl.concat(found)

    def _user_profile(self, user: int, own: pl.DataFrame) -> Profile | None:
        if self.user_profiles is None or self.item_profiles is None:
            return None
        # The task reads whole tables: it gets those of this user alone, its items numbered anew.
        own, kept = _renumbered(own.with_columns(user_id=pl.lit(0, pl.Int32)))
        reviews, _ = _renumbered(
            self.reviews.filter(pl.col("user_id") == user).with_columns(user_id=pl.lit(0, pl.Int32)), kept
        )
        profiles, config = self.item_profiles.table[kept], self.user_profiles.config
        task = user_task(self.items[kept], profiles, reviews, own, n_users=1, domain="", config=config)
        return _profile(self.user_profiles, user, evidence(task.inputs(0)))

    def _item_profile(self, item: int) -> Profile | None:
        if self.item_profiles is None:
            return None
        of_item = pl.col("item_id") == item
        rows, reviews = (
            table.filter(of_item).with_columns(item_id=pl.lit(0, pl.Int32))
            for table in (self.interactions, self.reviews)
        )
        task = item_task(self.items[[item]], reviews, rows, domain="", config=self.item_profiles.config)
        return _profile(self.item_profiles, item, evidence(task.inputs(0)))

    def _user_id(self, name: str) -> int:
        (asked,) = names("user", name)
        if (user := self._user_ids.get(asked)) is None:
            near = did_you_mean(
                asked, (other["user"] for other in self.find_users(asked[: (len(asked) + 1) // 2], 200))
            )
            raise InputError("user", expected="a user of the data set", found=repr(asked), action=near)
        return user

    def _told(self, user: int) -> User:
        group = ACTIVITY_GROUPS[int(self._group[user])]
        return {"user": self.users["reviewer_id"][user], "n_train": int(self._n_train[user]), "group": group}

    def _item(self, item: int) -> Item:
        return {
            "asin": self.items["asin"][item],
            "title": self._titles[item],
            "picture": loadable_picture(self.items["image_url"][item]),
        }

    def _members(self, group: str | None) -> NDArray[np.int64]:
        if group is None:
            return np.arange(self.users.height)
        if group not in ACTIVITY_GROUPS:
            raise InputError("group", expected=f"one of {', '.join(ACTIVITY_GROUPS)}", found=repr(group))
        return np.flatnonzero(self._group == ACTIVITY_GROUPS.index(group))

    def _rows(self, user: int) -> pl.DataFrame:
        first, last = self._borders[user : user + 2]
        return self.interactions[int(first) : int(last)]

    @cached_property
    def _borders(self) -> NDArray[np.int64]:
        """Where the rows of each user begin, and the last ones end: the table is in the order of its users."""
        return np.searchsorted(self.interactions["user_id"].to_numpy(), np.arange(self.users.height + 1))

    @cached_property
    def _test_items(self) -> NDArray[np.int64]:
        """The item of each row of the split test, -1 for the others."""
        test = (self.interactions["split"] == "test").to_numpy()
        return np.where(test, self.interactions["item_id"].to_numpy(), -1)

    @cached_property
    def _n_train(self) -> NDArray[np.int64]:
        train = self.interactions.filter(pl.col("split") == "train")["user_id"].to_numpy()
        return np.bincount(train, minlength=self.users.height)

    @cached_property
    def _popularity(self) -> NDArray[np.int64]:
        train = self.interactions.filter(pl.col("split") == "train")["item_id"].to_numpy()
        return np.bincount(train, minlength=self.items.height)

    @cached_property
    def _group(self) -> NDArray[np.int64]:
        return np.digitize(self._n_train, ACTIVITY_BORDERS)

    @cached_property
    def _lower(self) -> pl.Series:
        return self.users["reviewer_id"].str.to_lowercase()

    @cached_property
    def _titles(self) -> pl.Series:
        return shown_titles(self.items)

    @cached_property
    def _user_ids(self) -> dict[str, int]:
        return dict(self.users.select("reviewer_id", "user_id").iter_rows())

    @cached_property
    def _item_ids(self) -> dict[str, int]:
        return dict(self.items.select("asin", "item_id").iter_rows())


def _renumbered(rows: pl.DataFrame, kept: pl.Series | None = None) -> tuple[pl.DataFrame, pl.Series]:
    """Return rows with their items numbered from 0, and the item of each number."""
    kept = rows["item_id"].unique(maintain_order=True) if kept is None else kept
    ids = pl.DataFrame({"item_id": kept, "number": np.arange(kept.len(), dtype=np.int32)})
    numbered = rows.join(ids, on="item_id", maintain_order="left").with_columns(item_id="number").drop("number")
    return numbered, kept


def _profile(written: Written, row: int, made_from: list[str]) -> Profile:
    return {
        "text": written.table["profile"][row],
        "written_by": written.table["source"][row],
        "made_from": made_from,
    }
