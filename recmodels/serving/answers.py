"""What answers look like, and how they are ranked where items are left out."""

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from recmodels.compute.base import Compute
from recmodels.compute.local import LOCAL
from recmodels.graphs.matrices import interaction_matrix
from recmodels.ranking.lists import best_lists
from recmodels.ranking.ranker import Ranker
from recmodels.schemas.tables import RECOMMENDATIONS

SIMILAR_ITEMS = pl.Schema(
    {"item_id": pl.Int32, "rank": pl.Int32, "similar_item_id": pl.Int32, "similarity": pl.Float32}
)

NAMED = pl.Schema(
    {
        "reviewer_id": pl.String,
        "rank": pl.Int32,
        "asin": pl.String,
        "title": pl.String,
        "score": pl.Float32,
        "source": pl.String,
    }
)
"""Recommendations by name; `title` is null where it is not known."""
NAMED_SIMILAR = pl.Schema(
    {"asin": pl.String, "rank": pl.Int32, "similar_asin": pl.String, "title": pl.String, "similarity": pl.Float32}
)
"""Similar items by name; `title` is that of the similar item."""

MODEL, POPULARITY, UNKNOWN = "model", "popularity", "popularity, unknown user"
"""What an answer is made from: the model, or popularity in training, for want of training rows or of the user."""

_MASK_BYTES = 4 * 2**20


def top_items(
    ranker: Ranker,
    users: Tensor,
    n: int,
    seen: sparse.csr_array | None,
    barred: NDArray[np.bool_] | None,
    compute: Compute = LOCAL,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the best items and their scores, (m, n), of distinct users, neither seen nor barred (n_items,)."""
    if barred is None:
        return best_lists(ranker, users.numpy(), n, seen, compute)
    found: list[tuple[Tensor, Tensor]] = []
    for some in users.split(max(1, _MASK_BYTES // barred.size)):
        mask = np.tile(barred, (len(some), 1))
        if seen is not None:
            mask |= seen[some.numpy()].toarray() > 0
        rows, columns = mask.nonzero()
        excluded = interaction_matrix(some.numpy()[rows], columns, ranker.n_users, ranker.n_items)
        found.append(ranker.top_items(some, n, excluded=excluded))
    return torch.cat([items for items, _ in found]).numpy(), torch.cat([scores for _, scores in found]).numpy()


def recommendations(
    users: NDArray[np.int64], known: NDArray[np.bool_], items: NDArray[np.int64], scores: NDArray[np.float32]
) -> pl.DataFrame:
    """Return the table (schema `RECOMMENDATIONS`) of the lists (m, n) of users, which the model knows or not."""
    n = items.shape[1]
    frame = pl.DataFrame(
        {
            "user_id": np.repeat(users, n),
            "rank": np.tile(np.arange(1, n + 1), users.size),
            "item_id": items.ravel(),
            "score": scores.ravel(),
            "source": pl.Series([POPULARITY, MODEL]).gather(np.repeat(known, n).astype(np.uint32)),
        },
        schema_overrides=RECOMMENDATIONS,
    )
    return frame.filter(pl.col("score").is_finite())


def named(
    table: pl.DataFrame,
    users: list[str],
    sources: list[str],
    items: NDArray[np.int64],
    scores: NDArray[np.float32],
) -> pl.DataFrame:
    """Return the lists (m, n) of users by name (schema `NAMED`); `table` has asin and title of each item."""
    n, rows = items.shape[1], np.flatnonzero(np.isfinite(scores.ravel()))
    ids = items.ravel()[rows]
    return pl.DataFrame(
        {
            "reviewer_id": [users[row] for row in (rows // n).tolist()],
            "rank": rows % n + 1,
            "asin": table["asin"].gather(ids),
            "title": table["title"].gather(ids),
            "score": scores.ravel()[rows],
            "source": [sources[row] for row in (rows // n).tolist()],
        },
        schema_overrides=NAMED,
    )
