"""
The schema of every table the asset graph stores, in one place.

Ids are contiguous from 0 and stable: the same rows give the same ids whatever their order. Embedding tables are the
exception to a fixed schema: their width depends on the encoder, see `embedding_schema`.
"""

import polars as pl

from recmodels.errors import InputError

SPLITS = ("train", "valid", "test")
Split = pl.Enum(SPLITS)

ITEMS = pl.Schema(
    {
        "item_id": pl.Int32,
        "asin": pl.String,
        "title": pl.String,
        "description": pl.String,
        "brand": pl.String,
        "categories": pl.List(pl.String),
        "price": pl.Float32,
        "image_url": pl.String,
    }
)
"""One row an item, in id order. Texts are unescaped and stripped; an absent text is an empty string, a price null."""

USERS = pl.Schema({"user_id": pl.Int32, "reviewer_id": pl.String})
"""One row a user, in id order: where the id of the dump is kept."""

REVIEWS = pl.Schema(
    {
        "user_id": pl.Int32,
        "item_id": pl.Int32,
        "rating": pl.Float32,
        "timestamp": pl.Int64,
        "summary": pl.String,
        "text": pl.String,
    }
)
"""One row a kept (user, item) pair, by user and item; seconds since the epoch. Empty for imports without reviews."""

INTERACTIONS = pl.Schema(
    {"user_id": pl.Int32, "item_id": pl.Int32, "rating": pl.Float32, "timestamp": pl.Int64, "split": Split}
)
"""One row a (user, item) pair, by user and item. `rating` and `timestamp` are null where an import has none."""

REJECTS = pl.Schema({"file": pl.String, "line": pl.Int64, "reason": pl.String, "text": pl.String})
"""One row a rejected raw line: 1-based line number and its first 200 characters."""

ITEM_PROFILES = pl.Schema({"item_id": pl.Int32, "profile": pl.String, "source": pl.String})
USER_PROFILES = pl.Schema({"user_id": pl.Int32, "profile": pl.String, "source": pl.String})
"""One row an item or a user, in id order; `source` names the back-end that wrote it, or ``fallback``."""

KNN = pl.Schema({"src": pl.Int32, "dst": pl.Int32, "rank": pl.Int16, "similarity": pl.Float32})
"""Cosine neighbours, by src and rank; rank 0 is the best and normally src itself. No rows: the modality is absent."""

AUGMENTED = pl.Schema({"user_id": pl.Int32, "item_id": pl.Int32, "mass": pl.Float64})
"""The added positives H without R, by user and item; `mass` is the plan's entry."""

STATES = ("up_to_date", "running", "stale", "failed", "missing")
PIPELINE_STATUS = pl.Schema(
    {
        "dataset": pl.String,
        "seed": pl.Int32,
        "asset": pl.String,
        "stage": pl.String,
        "state": pl.Enum(STATES),
        "why": pl.String,
        "materialized_at": pl.Datetime("ms", "UTC"),
    }
)
"""One row a partition of an asset, in the order data flows; `seed` is null where there is none."""


def embedding_schema(id_column: str, width: int) -> pl.Schema:
    """Return the schema (id, embedding: `Array(Float32, width)`, present: Boolean) of a table in id order."""
    return pl.Schema({id_column: pl.Int32, "embedding": pl.Array(pl.Float32, width), "present": pl.Boolean})


def conform(frame: pl.DataFrame, schema: pl.Schema, table: str) -> pl.DataFrame:
    """
    Return the frame with exactly the columns of the schema, in its order.

    Raises
    ------
    InputError
        If a column is missing, has another type, or is not in the schema. Nothing is cast.
    """
    if frame.schema.keys() != schema.keys() or any(frame.schema[name] != dtype for name, dtype in schema.items()):
        raise InputError(f"table {table}", expected=str(dict(schema)), found=str(dict(frame.schema)))
    return frame.select(schema.names())
