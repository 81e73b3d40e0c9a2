"""What was measured of trained models, what they recommend, the leaderboard, and how every asset stands."""

import dataframely as dy
import polars as pl

from recmodels.schemas.columns import numbered_within, one_of

STATES = ("up_to_date", "running", "stale", "failed", "missing")
USER_METRICS = ("recall", "ndcg", "mrr", "hit", "precision", "map")
"""What is measured for each user at each list length; `recmodels.evaluation.metrics` defines them."""
SYSTEM_METRICS = ("coverage", "novelty")
"""What is measured over all users at once."""
LIST_LENGTHS = (10, 20)
TOP_N = 20
"""Length of a stored list of recommendations."""

_LARGEST_SHARE = 1 + 1e-9


class OfRun(dy.Schema):
    """What every row that was measured says of the model's run; another split or provenance makes it incomparable."""

    model = dy.String(min_length=1)
    seed = dy.Int32(min=0)
    split_digest = dy.String(min_length=1)
    provenance = dy.String(min_length=1)


class Metrics(OfRun):
    """One row a group, metric and list length of one run: means over the users of the group."""

    grouping = dy.String(primary_key=True, min_length=1)
    group = dy.String(primary_key=True, min_length=1)
    n_users = dy.Int32(min=1)
    metric = one_of(*USER_METRICS, *SYSTEM_METRICS, primary_key=True)
    k = dy.Int32(primary_key=True, min=1)
    value = dy.Float64(min=0)

    @dy.rule()
    def shares_at_most_1(cls) -> pl.Expr:
        """Values of at most 1 of everything but novelty."""
        return (pl.col("metric") == "novelty") | (pl.col("value") <= _LARGEST_SHARE)


class MeasuredUsers(OfRun):
    """One row a user with test rows of one run, by user."""

    user_id = dy.Int32(min=0)
    n_train = dy.Int32(min=0)
    n_held_out = dy.Int32(min=1)

    @dy.rule()
    def users_in_order(cls) -> pl.Expr:
        """Each user once, by user_id."""
        return pl.col("user_id") > pl.col("user_id").shift()


UserMetrics: type[dy.Schema] = type(
    "UserMetrics",
    (MeasuredUsers,),
    {f"{metric}@{k}": dy.Float64(min=0, max=_LARGEST_SHARE) for k in LIST_LENGTHS for metric in USER_METRICS}
    | {"__doc__": "One row a user with test rows of one run, by user, with a column a metric and list length."},
)


class Recommendations(dy.Schema):
    """
    The best items of each user, by user and rank, which counts from 1.

    `source` is ``model``, or ``popularity`` for users whom the model knows nothing about.
    """

    user_id = dy.Int32(primary_key=True, min=0)
    rank = dy.Int32(min=1, max=TOP_N)
    item_id = dy.Int32(primary_key=True, min=0)
    score = dy.Float32()
    source = one_of("model", "popularity")

    @dy.rule()
    def ranks_without_a_gap(cls) -> pl.Expr:
        """Rows by user whose rank runs from 1 without a gap."""
        return numbered_within("user_id", "rank", first=1)

    @dy.rule()
    def best_first(cls) -> pl.Expr:
        """Items of a user whose score falls with the rank."""
        user, score = pl.col("user_id"), pl.col("score")
        return ~((user == user.shift()) & (score > score.shift()))


class Leaderboard(dy.Schema):
    """
    One row a model, metric and list length, best model first; the deviation is null with one seed.

    `provenance` is the digest of the code, the settings and the data of its seeds. A model that has several is there
    several times, with the first digits beside its name.
    """

    model = dy.String(primary_key=True, min_length=1)
    provenance = dy.String(min_length=1)
    metric = one_of(*USER_METRICS, *SYSTEM_METRICS, primary_key=True)
    k = dy.Int32(primary_key=True, min=1)
    n_seeds = dy.Int32(min=1)
    mean = dy.Float64(min=0)
    std = dy.Float64(nullable=True, min=0)

    @dy.rule()
    def shares_at_most_1(cls) -> pl.Expr:
        """Means of at most 1 of everything but novelty."""
        return (pl.col("metric") == "novelty") | (pl.col("mean") <= _LARGEST_SHARE)


class StudyFigures(dy.Schema):
    """
    One row a row of a study and figure, in the study's order: mean and deviation over the seeds, and what is published.

    `std` is null with one seed, `published` and its `difference` where the paper reports nothing, `seconds` (of a
    training, the mean) where nothing was trained or it was not recorded.
    """

    variant = dy.String(primary_key=True, min_length=1)
    title = dy.String(min_length=1)
    figure = dy.String(primary_key=True, min_length=1)
    source = one_of("graph", "device", "older")
    n_seeds = dy.Int32(min=1)
    mean = dy.Float64(min=0, max=_LARGEST_SHARE)
    std = dy.Float64(nullable=True, min=0)
    published = dy.Float64(nullable=True, min=0, max=1)
    difference = dy.Float64(nullable=True)
    seconds = dy.Float64(nullable=True, min=0)


class PipelineStatus(dy.Schema):
    """One row a partition of an asset, in the order data flows; `seed` is null where there is none."""

    dataset = dy.String(min_length=1)
    seed = dy.Int32(nullable=True, min=0)
    asset = dy.String(min_length=1)
    stage = dy.String()
    state = dy.Enum(STATES)
    why = dy.String()
    materialized_at = dy.Datetime(nullable=True, time_unit="ms", time_zone="UTC")

    @dy.rule()
    def partitions_once(cls) -> pl.Expr:
        """Each data set, seed and asset once."""
        return pl.struct("dataset", "seed", "asset").is_unique()
