"""Answers from a trained model: what to show a user, and what resembles an item."""

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import polars as pl
import torch
from numpy.typing import ArrayLike, NDArray
from torch.nn import functional

from recmodels.checkpoints.runs import run_folder
from recmodels.checkpoints.store import Checkpoint, load_checkpoint
from recmodels.compute.base import Compute
from recmodels.compute.local import LOCAL
from recmodels.evaluation.non_personalised import popularity_embeddings
from recmodels.graphs.matrices import interaction_matrix
from recmodels.ranking.ranker import EmbeddingScorer, LinearScorer, Ranker
from recmodels.serving.answers import (
    MODEL,
    NAMED_SIMILAR,
    POPULARITY,
    SIMILAR_ITEMS,
    UNKNOWN,
    named,
    recommendations,
    top_items,
)
from recmodels.serving.fold_in import fold_in
from recmodels.serving.names import ItemNames, names, whole_numbers

UNKNOWN_USER = -1
"""The id of a user who is not in the checkpoint."""
_NAMES_FOR_USERS = "Names of the raw data are for recommend_for."


class Recommender:
    """
    Recommendations from a checkpoint, by id and by name.

    Parameters
    ----------
    checkpoint
        The trained model.
    items
        Columns asin and title, such as the table `items`, to tell titles.

    Raises
    ------
    InputError
        By every method: if an id is not a whole number or is out of range, an asin that is asked about is unknown, or n
        is below 1.

    Attributes
    ----------
    checkpoint
        The trained model; its `users` and `items` map ids to the names of the raw data.
    items
        Columns item_id, asin and title (null where it is not known), in id order.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from recmodels.models.example import example_data, example_tables
    >>> from recmodels.models.registry import resolve_config
    >>> from recmodels.training.run import train_checkpoint
    >>> tables = example_tables()
    >>> facts = {"users": tables["users"], "items": tables["item_ids"], "provenance": {"note": "made up"}}
    >>> titles = pl.DataFrame({"asin": ["B2", "B4"], "title": ["A drum", "A flute"]})
    >>> with TemporaryDirectory() as folder:
    ...     directory = Path(folder) / "ease"
    ...     _ = train_checkpoint(directory, "ease", resolve_config("ease"), example_data(), seed=0, **facts)
    ...     recommender = Recommender.load(directory, items=titles)
    >>> recommender
    <Recommender ease, seed 0: 12 users, 16 items>

    Names in, names and titles out, also for somebody whom the model never saw:

    >>> recommender.recommend_for(["R0", "a stranger"], 1)["source"].to_list()
    ['model', 'popularity, unknown user']
    >>> recommender.recommend_for("R0", 2, only=["B2", "B3"]).select("rank", "asin", "title").rows()
    [(1, 'B2', 'A drum'), (2, 'B3', None)]
    >>> recommender.recommend_for_history(["B0", "B6"], 1, without=["B8"])["source"].to_list()
    ['model']
    >>> recommender.similar_to("B4", 3)["rank"].to_list()
    [1, 2, 3]

    The same by id:

    >>> best = recommender.recommend(recommender.user_ids(["R0", "a stranger"]), 1)
    >>> best["item_id"][0], best["source"].to_list()
    (2, ['model', 'popularity'])
    """

    def __init__(self, checkpoint: Checkpoint, items: pl.DataFrame | None = None) -> None:
        self.checkpoint = checkpoint
        self._names = ItemNames(checkpoint.items, items)
        self.items = self._names.table
        self._n_users = checkpoint.ranker.n_users
        self._n_items = checkpoint.ranker.n_items
        seen = checkpoint.seen
        self._seen = interaction_matrix(seen["user_id"], seen["item_id"], self._n_users, self._n_items)
        train = seen.filter(pl.col("split") == "train")
        self._train = interaction_matrix(train["user_id"], train["item_id"], self._n_users, self._n_items)
        self._warm = np.diff(self._train.indptr) > 0
        self._popular = EmbeddingScorer(*popularity_embeddings(self._train.indices, self._n_users, self._n_items))

    def __repr__(self) -> str:
        stored = self.checkpoint
        form = "" if stored.calibration is None else "calibrated/"
        return f"<Recommender {form}{stored.model}, seed {stored.seed}: {self._n_users} users, {self._n_items} items>"

    @classmethod
    def load(cls, directory: Path | str, *, items: pl.DataFrame | None = None) -> Self:
        """
        Read a checkpoint.

        Parameters
        ----------
        directory
            Its folder, which one run wrote; or the folder of such folders, where there is a single one.
        items
            See `Recommender`.

        Raises
        ------
        MissingObject
            If it is absent or damaged.
        InputError
            If the folder holds the checkpoints of several runs.
        """
        return cls(load_checkpoint(run_folder(Path(directory))), items)

    def user_ids(self, reviewer_ids: Iterable[str]) -> NDArray[np.int64]:
        """Return the ids of users named as in the raw data; `UNKNOWN_USER` for names the checkpoint does not hold."""
        asked = names("reviewer_ids", reviewer_ids)
        return np.array([self._user_ids.get(name, UNKNOWN_USER) for name in asked], dtype=np.int64)

    def recommend(
        self, user_ids: ArrayLike, n: int = 20, *, exclude_seen: bool = True, compute: Compute = LOCAL
    ) -> pl.DataFrame:
        """
        Return the best items for each of the users.

        Users without training interactions, and `UNKNOWN_USER`, are answered by popularity in training.

        Parameters
        ----------
        user_ids
            (m,) ids, in any order.
        n
            Items per user, at most as many as there are. A user who has seen so many that fewer are left gets fewer.
        exclude_seen
            Leave out the user's training and validation items.
        compute
            Where blocks of users are ranked.

        Returns
        -------
        pl.DataFrame
            Schema `recmodels.schemas.tables.RECOMMENDATIONS`, users in the order asked, best item first.
        """
        users = whole_numbers(
            f"user_ids ({UNKNOWN_USER} for a stranger)", user_ids, UNKNOWN_USER, self._n_users - 1, _NAMES_FOR_USERS
        )
        n = self._length(n)
        items, scores = self._best(users, n, exclude_seen=exclude_seen, compute=compute)
        return recommendations(users, self._known(users), items, scores)

    def recommend_for(
        self,
        reviewer_ids: Iterable[str],
        n: int = 20,
        *,
        only: Iterable[str] | None = None,
        without: Iterable[str] = (),
        exclude_seen: bool = True,
    ) -> pl.DataFrame:
        """
        Return the best items for users by name.

        Users without training interactions, and names that the checkpoint does not hold, are answered by popularity in
        training, and `source` tells which.

        Parameters
        ----------
        reviewer_ids
            Names as in the raw data, in any order.
        n
            Items per user; fewer where fewer are left.
        only
            Recommend among these asins alone.
        without
            Asins never to recommend.
        exclude_seen
            Leave out the user's training and validation items.

        Returns
        -------
        pl.DataFrame
            Schema `NAMED`, users in the order asked, best item first.

        Raises
        ------
        InputError
            Also if none of `only` is known.
        """
        asked = names("reviewer_ids", reviewer_ids)
        users, n = self.user_ids(asked), self._length(n)
        best = self._best(users, n, exclude_seen=exclude_seen, barred=self._names.barred(only, without))
        source = np.where(self._known(users), MODEL, np.where(users == UNKNOWN_USER, UNKNOWN, POPULARITY))
        return named(self.items, asked, source.tolist(), *best)

    def recommend_for_history(
        self,
        asins: Iterable[str],
        n: int = 20,
        *,
        only: Iterable[str] | None = None,
        without: Iterable[str] = (),
        exclude_seen: bool = True,
    ) -> pl.DataFrame:
        """
        Return the best items for somebody the model never saw, by the items this user had.

        `recmodels.serving.fold_in.fold_in` says how. Without any item the answer is by popularity in training.

        Parameters
        ----------
        asins
            What the user had; repeated ones count once.
        n, only, without
            See `recommend_for`.
        exclude_seen
            Leave out what the user had.

        Returns
        -------
        pl.DataFrame
            Schema `NAMED` without `reviewer_id`, best item first.

        Raises
        ------
        InputError
            As `recommend_for`; also if the model needs the user among its own.
        """
        had, n = self._names.ids("asins of the history", asins), self._length(n)
        history = interaction_matrix(np.zeros_like(had), had, 1, self._n_items)
        ranker = fold_in(self.checkpoint.ranker, self._train, history) if had.size else self._popular
        barred = self._names.barred(only, without)
        best = top_items(ranker, torch.tensor([0]), n, history if exclude_seen else None, barred)
        return named(self.items, [""], [MODEL if had.size else POPULARITY], *best).drop("reviewer_id")

    def similar_items(self, item_ids: ArrayLike, n: int = 20) -> pl.DataFrame:
        """
        Return the items whose embeddings point the same way as those of the given ones, by cosine.

        Where the model has no embeddings, they are the items with most training users in common, by cosine too.

        Returns
        -------
        pl.DataFrame
            Schema `SIMILAR_ITEMS`, items in the order asked, the most similar first, the item itself left out.
        """
        asked = whole_numbers("item_ids", item_ids, 0, self._n_items - 1, "Names of the raw data are for similar_to.")
        n = min(self._length(n), self._n_items - 1)
        known, asked_at = np.unique(asked, return_inverse=True)
        itself = interaction_matrix(known, known, self._n_items, self._n_items)
        similar, scores = self._directions.top_items(torch.from_numpy(known), n, excluded=itself)
        return pl.DataFrame(
            {
                "item_id": np.repeat(asked, n),
                "rank": np.tile(np.arange(1, n + 1), len(asked)),
                "similar_item_id": similar.numpy()[asked_at].ravel(),
                "similarity": scores.numpy()[asked_at].ravel(),
            },
            schema_overrides=SIMILAR_ITEMS,
        )

    def similar_to(self, asins: Iterable[str], n: int = 20) -> pl.DataFrame:
        """
        Return what `similar_items` does, by name; fewer than n where there are fewer.

        Returns
        -------
        pl.DataFrame
            Schema `NAMED_SIMILAR`, items in the order asked, the most similar first.
        """
        found = self.similar_items(self._names.ids("asins", asins), n)
        similar = self.items[found["similar_item_id"]].select(similar_asin="asin", title="title")
        asked = self.items[found["item_id"]].select("asin")
        return pl.concat([found, asked, similar], how="horizontal").select(NAMED_SIMILAR.names())

    def _known(self, users: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which users the model has training rows of."""
        return (users >= 0) & self._warm[users]

    def _length(self, n: int) -> int:
        return min(int(whole_numbers("n", n, 1)[0]), self._n_items)

    def _best(
        self,
        users: NDArray[np.int64],
        n: int,
        *,
        exclude_seen: bool,
        barred: NDArray[np.bool_] | None = None,
        compute: Compute = LOCAL,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return items and scores (m, n) for users in the order asked, minus infinity where there are no more."""
        known, asked_at = np.unique(users, return_inverse=True)
        warm = self._known(known)
        items = np.zeros((len(known), n), dtype=np.int64)
        scores = np.full((len(known), n), -np.inf, dtype=np.float32)
        for chosen, ranker, excluded in (
            (warm, self.checkpoint.ranker, exclude_seen),
            (~warm & (known >= 0), self._popular, exclude_seen),
            (known < 0, self._popular, False),
        ):
            if not (rows := np.flatnonzero(chosen)).size:
                continue
            asked = torch.from_numpy(np.maximum(known[rows], 0))
            items[rows], scores[rows] = top_items(ranker, asked, n, self._seen if excluded else None, barred, compute)
        return items[asked_at], scores[asked_at]

    @cached_property
    def _user_ids(self) -> dict[str, int]:
        return dict(self.checkpoint.users.select("reviewer_id", "user_id").iter_rows())

    @cached_property
    def _directions(self) -> Ranker:
        """A ranking of items for items."""
        vectors = self.checkpoint.ranker.item_vectors
        if vectors is not None:
            directions = functional.normalize(vectors)
            return EmbeddingScorer(directions, directions)
        users = self._train.copy()
        users.data = 1 / np.sqrt(np.bincount(users.indices, minlength=self._n_items)[users.indices]).astype(np.float32)
        return LinearScorer(users.T.tocsr(), users)
