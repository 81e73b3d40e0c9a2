"""Answers from a trained model: what to show a user, and what resembles an item."""

from pathlib import Path
from typing import Self

import numpy as np
import polars as pl
import torch
from numpy.typing import ArrayLike, NDArray
from torch.nn import functional

from recmodels.checkpoints.store import Checkpoint, load_checkpoint
from recmodels.errors import InputError
from recmodels.evaluation.non_personalised import popularity_embeddings
from recmodels.graphs.matrices import interaction_matrix
from recmodels.ranking.ranker import EmbeddingScorer, LinearScorer, Ranker
from recmodels.schemas.tables import RECOMMENDATIONS

SIMILAR_ITEMS = pl.Schema(
    {"item_id": pl.Int32, "rank": pl.Int32, "similar_item_id": pl.Int32, "similarity": pl.Float32}
)

UNKNOWN_USER = -1
"""The id of a user who is not in the checkpoint."""


class Recommender:
    """
    Recommendations from a checkpoint.

    Attributes
    ----------
    checkpoint
        The trained model; its `users` and `items` map ids to the names of the raw data.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from recmodels.models.example import example_data, example_tables
    >>> from recmodels.models.registry import resolve_config
    >>> from recmodels.training.run import train_checkpoint
    >>> tables = example_tables()
    >>> facts = {"users": tables["users"], "items": tables["item_ids"], "provenance": {"note": "made up"}}
    >>> with TemporaryDirectory() as folder:
    ...     directory = Path(folder) / "ease"
    ...     _ = train_checkpoint(directory, "ease", resolve_config("ease"), example_data(), seed=0, **facts)
    ...     recommender = Recommender.load(directory)
    >>> best = recommender.recommend(recommender.user_ids(["R0", "a stranger"]), 1)
    >>> best["item_id"][0], best["source"].to_list()
    (2, ['model', 'popularity'])
    >>> recommender.similar_items([4], 3)["rank"].to_list()
    [1, 2, 3]
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self._n_users = checkpoint.ranker.n_users
        self._n_items = checkpoint.ranker.n_items
        seen = checkpoint.seen
        self._seen = interaction_matrix(seen["user_id"], seen["item_id"], self._n_users, self._n_items)
        train = seen.filter(pl.col("split") == "train")
        self._train = interaction_matrix(train["user_id"], train["item_id"], self._n_users, self._n_items)
        self._warm = np.diff(self._train.indptr) > 0

    @classmethod
    def load(cls, directory: Path) -> Self:
        """
        Read a checkpoint directory.

        Raises
        ------
        MissingObject
            If it is absent or damaged.
        """
        return cls(load_checkpoint(directory))

    def user_ids(self, reviewer_ids: list[str]) -> NDArray[np.int64]:
        """Return the ids of users named as in the raw data; `UNKNOWN_USER` for names the checkpoint does not hold."""
        asked = pl.DataFrame({"reviewer_id": reviewer_ids}, schema={"reviewer_id": pl.String})
        found = asked.join(self.checkpoint.users, on="reviewer_id", how="left", maintain_order="left")
        return found["user_id"].fill_null(UNKNOWN_USER).cast(pl.Int64).to_numpy()

    def recommend(self, user_ids: ArrayLike, n: int = 20, *, exclude_seen: bool = True) -> pl.DataFrame:
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

        Returns
        -------
        pl.DataFrame
            Schema `recmodels.schemas.tables.RECOMMENDATIONS`, users in the order asked, best item first.

        Raises
        ------
        InputError
            If an id is out of range, or n below 1.
        """
        users = np.atleast_1d(np.asarray(user_ids, dtype=np.int64))
        _check_range(f"user_ids ({UNKNOWN_USER} for a stranger)", users, UNKNOWN_USER, self._n_users - 1)
        n = _list_length(n, self._n_items)
        known, asked_at = np.unique(users, return_inverse=True)
        warm = (known >= 0) & self._warm[known]
        items = np.zeros((len(known), n), dtype=np.int64)
        scores = np.full((len(known), n), -np.inf, dtype=np.float32)
        popularity = EmbeddingScorer(*popularity_embeddings(self._train.indices, self._n_users, self._n_items))
        for chosen, ranker, excluded in (
            (warm, self.checkpoint.ranker, exclude_seen),
            (~warm & (known >= 0), popularity, exclude_seen),
            (known < 0, popularity, False),
        ):
            rows = np.flatnonzero(chosen)
            asked = torch.from_numpy(np.maximum(known[rows], 0))
            best, values = ranker.top_items(asked, n, excluded=self._seen if excluded else None)
            items[rows], scores[rows] = best.numpy(), values.numpy()
        frame = pl.DataFrame(
            {
                "user_id": np.repeat(users, n),
                "rank": np.tile(np.arange(1, n + 1), len(users)),
                "item_id": items[asked_at].ravel(),
                "score": scores[asked_at].ravel(),
                "source": np.where(np.repeat(warm[asked_at], n), "model", "popularity").tolist(),
            },
            schema_overrides=RECOMMENDATIONS,
        )
        return frame.filter(pl.col("score").is_finite())

    def similar_items(self, item_ids: ArrayLike, n: int = 20) -> pl.DataFrame:
        """
        Return the items whose embeddings point the same way as those of the given ones, by cosine.

        Where the model has no embeddings, they are the items with most training users in common, by cosine too.

        Returns
        -------
        pl.DataFrame
            Schema `SIMILAR_ITEMS`, items in the order asked, the most similar first, the item itself left out.

        Raises
        ------
        InputError
            If an id is out of range, or n below 1.
        """
        asked = np.atleast_1d(np.asarray(item_ids, dtype=np.int64))
        _check_range("item_ids", asked, 0, self._n_items - 1)
        n = _list_length(n, self._n_items - 1)
        known, asked_at = np.unique(asked, return_inverse=True)
        itself = interaction_matrix(known, known, self._n_items, self._n_items)
        similar, scores = self._directions().top_items(torch.from_numpy(known), n, excluded=itself)
        return pl.DataFrame(
            {
                "item_id": np.repeat(asked, n),
                "rank": np.tile(np.arange(1, n + 1), len(asked)),
                "similar_item_id": similar.numpy()[asked_at].ravel(),
                "similarity": scores.numpy()[asked_at].ravel(),
            },
            schema_overrides=SIMILAR_ITEMS,
        )

    def _directions(self) -> Ranker:
        """Return a ranking of items for items."""
        vectors = self.checkpoint.ranker.item_vectors
        if vectors is not None:
            directions = functional.normalize(vectors)
            return EmbeddingScorer(directions, directions)
        users = self._train.copy()
        users.data = 1 / np.sqrt(np.bincount(users.indices, minlength=self._n_items)[users.indices]).astype(np.float32)
        return LinearScorer(users.T.tocsr(), users)


def _list_length(n: int, most: int) -> int:
    """Return how long a list is that is asked to have n items: it ends with them."""
    if n < 1:
        raise InputError("n", expected="1 or more", found=str(n))
    return min(n, most)


def _check_range(where: str, values: ArrayLike, least: int, most: int) -> None:
    found = np.asarray(values)
    if found.size and (found.min() < least or found.max() > most):
        raise InputError(where, expected=f"{least} to {most}", found=str(found.tolist()))
