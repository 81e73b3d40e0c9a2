"""Why an item may have been recommended: which items of the user speak for it."""

import numpy as np
import polars as pl
import torch

from recmodels.ranking.calibrated import CalibratedRanker
from recmodels.ranking.ranker import LinearScorer
from recmodels.serving.data_set import DataSet
from recmodels.serving.recommender import Recommender

REASONS = pl.Schema(
    {"asin": pl.String, "kind": pl.String, "because_asin": pl.String, "weight": pl.Float32, "users": pl.UInt32}
)
"""Columns of reasons; `recmodels.serving.shown.Reason` says what each kind means."""

MODEL, CALIBRATION, GRAPH, CO_BUYERS = "model", "calibration: ", "graph: ", "co-buyers"


def reasons_for(
    recommender: Recommender, data_set: DataSet, user: str, asins: list[str], *, most: int = 3
) -> pl.DataFrame:
    """
    Return which of a user's training items speak for items.

    Parameters
    ----------
    recommender
        The model that recommends them. If its scores are sums over the items of the user, as those of EASE and ItemKNN
        are, or if it is calibrated, the reasons tell what moved the score.
    data_set
        Has the item graphs.
    user
        Whom they are recommended to; somebody without training rows gets no reasons.
    asins
        The items; unknown ones get none.
    most
        Reasons of each kind for an item, the strongest.

    Returns
    -------
    pl.DataFrame
        Schema `REASONS`, items in the order asked.
    """
    items = recommender.items
    train = recommender.checkpoint.seen.filter(pl.col("split") == "train").select("user_id", "item_id")
    user_id = int(recommender.user_ids([user])[0])
    own = train.filter(pl.col("user_id") == user_id)["item_id"]
    asked = items.filter(pl.col("asin").is_in(asins))["item_id"]
    if own.is_empty() or asked.is_empty():
        return REASONS.to_frame()
    by_id = [
        _of_model(recommender, user_id, own, asked),
        _of_calibration(recommender, user_id, asked),
        _co_buyers(train, user_id, own, asked),
    ]
    found = pl.concat(by_id)
    named = found.select(
        "kind",
        "weight",
        "users",
        asin=items["asin"][found["item_id"]],
        because_asin=items["asin"][found["because_item_id"]],
    ).select(REASONS.names())
    edges = data_set.edges(items["asin"][own].to_list(), asins)
    of_graphs = edges.select(
        "asin",
        "because_asin",
        kind=GRAPH + pl.col("graph"),
        weight="similarity",
        users=pl.lit(None, pl.UInt32),
    ).select(REASONS.names())
    place = pl.DataFrame({"asin": asins}, schema={"asin": pl.String}).with_row_index("place")
    strength = pl.coalesce("weight", "users").fill_null(0).abs()
    table = pl.concat([named, of_graphs]).join(place, on="asin").with_columns(strength=strength)
    order = table.sort("place", "strength", "because_asin", descending=[False, True, False])
    return (
        order.group_by("place", "kind", maintain_order=True)
        .head(most)
        .sort("place", maintain_order=True)
        .select(REASONS.names())
    )


_BY_ID = pl.Schema(
    {"item_id": pl.Int32, "kind": pl.String, "because_item_id": pl.Int32, "weight": pl.Float32, "users": pl.UInt32}
)


def _of_model(recommender: Recommender, user_id: int, own: pl.Series, asked: pl.Series) -> pl.DataFrame:
    """Return the summands of the scores where these are sums over the items of the user."""
    ranker = recommender.checkpoint.ranker
    rows, columns = own.sort().to_numpy(), asked.to_numpy()
    if not isinstance(ranker, LinearScorer):
        return _BY_ID.to_frame()
    history, matrix = ranker.left[[user_id]], ranker.right
    if not np.array_equal(np.sort(history.indices), rows) or not (history.data == 1).all():
        return _BY_ID.to_frame()
    weights = (
        matrix[torch.tensor(rows, dtype=torch.int64)].numpy()[:, columns]
        if isinstance(matrix, torch.Tensor)
        else matrix[rows][:, columns].toarray()
    )
    because, item = weights.nonzero()
    return pl.DataFrame(
        {
            "item_id": columns[item],
            "kind": [MODEL] * item.size,
            "because_item_id": rows[because],
            "weight": weights[because, item],
            "users": [None] * item.size,
        },
        schema=_BY_ID,
    )


def _of_calibration(recommender: Recommender, user_id: int, asked: pl.Series) -> pl.DataFrame:
    ranker = recommender.checkpoint.ranker
    if not isinstance(ranker, CalibratedRanker):
        return _BY_ID.to_frame()
    why = ranker.reasons(user_id, asked.to_list())
    kind = CALIBRATION + pl.col("evidence")
    named = why.select("item_id", "because_item_id", kind=kind, weight="support", users=pl.lit(None, pl.UInt32))
    return named.select(_BY_ID.names())


def _co_buyers(train: pl.DataFrame, user_id: int, own: pl.Series, asked: pl.Series) -> pl.DataFrame:
    """Return how many other users had both in training."""
    others = train.filter(pl.col("user_id") != user_id)
    mine = others.filter(pl.col("item_id").is_in(own.implode())).rename({"item_id": "because_item_id"})
    theirs = others.filter(pl.col("item_id").is_in(asked.implode()))
    both = theirs.join(mine, on="user_id").filter(pl.col("item_id") != pl.col("because_item_id"))
    counted = both.group_by("item_id", "because_item_id", maintain_order=True).agg(users=pl.len().cast(pl.UInt32))
    return counted.with_columns(kind=pl.lit(CO_BUYERS), weight=pl.lit(None, pl.Float32)).select(_BY_ID.names())
