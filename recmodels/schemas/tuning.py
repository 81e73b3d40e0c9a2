"""What came of the search for a model's settings."""

import dataframely as dy
import polars as pl

from recmodels.schemas.columns import one_of

ORIGINS = ("current", "published", "sampled")
OUTCOMES = ("complete", "pruned", "failed", "unfinished")


class Tries(dy.Schema):
    """
    One row a try, in the order they were made; `chosen` is the complete one of the best validation Recall@20.

    `settings` is a JSON object of what the try set, for the training loop under `training`. A pruned or unfinished try
    has the best Recall that it came to. `reason` says why a failed try failed.
    """

    number = dy.Int32(min=0, description="Place of the try, from 0")
    origin = one_of(*ORIGINS, description="Where its settings come from")
    state = one_of(*OUTCOMES, description="How it ended")
    settings = dy.String(min_length=2, description="What it set, as JSON")
    seed = dy.Int64(min=0, description="Of its training")
    valid_recall = dy.Float64(nullable=True, min=0, max=1 + 1e-9, description="Best validation Recall@20")
    best_epoch = dy.Int32(nullable=True, min=0, description="The epoch of that, from 0")
    epochs = dy.Int32(min=0, description="Epochs trained")
    seconds = dy.Float64(min=0, description="Wall time")
    chosen = dy.Bool(description="Whether it is the best complete one")
    reason = dy.String(description="Why it failed, where it did")

    @dy.rule()
    def numbered_from_0(cls) -> pl.Expr:
        """Numbers that run from 0 without a gap, in order."""
        return pl.col("number") == pl.int_range(pl.len())

    @dy.rule()
    def one_chosen(cls) -> pl.Expr:
        """One chosen try: a complete one that has the best Recall of those."""
        best = pl.col("valid_recall").filter(pl.col("state") == "complete").max()
        sound = (pl.col("state") == "complete") & (pl.col("valid_recall") == best)
        return (pl.col("chosen").sum() == 1) & (~pl.col("chosen") | sound)
