"""The inputs of a small report: two models, six users, and titles that are markup."""

import numpy as np
import polars as pl

from recmodels.profiles.config import ProfileConfig
from recmodels.profiles.write import item_task, user_task
from recmodels.reporting.build import ReportInputs
from recmodels.reporting.models import Training
from recmodels.reporting.report import LineageRow
from recmodels.schemas.results import Metrics
from recmodels.schemas.tables import INTERACTIONS, ITEM_PROFILES, ITEMS, LEADERBOARD, REVIEWS, USER_PROFILES, USERS

METRICS = pl.Schema({name: column.dtype for name, column in Metrics.columns().items()})


def example_report() -> ReportInputs:
    """Return what is shown of a small data set that is made up."""
    n_users, n_items = 6, 8
    interactions = pl.DataFrame(
        [
            (user, item, 5.0, 10 * user + item, "test" if item == user else "train")
            for user in range(n_users)
            for item in range(user, n_items)
        ],
        schema=INTERACTIONS,
        orient="row",
    )
    items = pl.DataFrame(
        [(item, f"A{item}", f"<script>alert({item})</script>", "", "", [], None, "") for item in range(n_items)],
        schema=ITEMS,
        orient="row",
    )
    users = pl.DataFrame([(user, f"R{user}") for user in range(n_users)], schema=USERS, orient="row")
    item_profiles = pl.DataFrame(
        [(i, f"profile {i}", "extractive") for i in range(n_items)], schema=ITEM_PROFILES, orient="row"
    )
    user_profiles = pl.DataFrame(
        [(u, f"likes {u}", "extractive") for u in range(n_users)], schema=USER_PROFILES, orient="row"
    )
    board = pl.DataFrame(
        [
            (model, "p" * 32, metric, k, seeds, value, spread)
            for model, seeds, value, spread in (("blast", 3, 0.25, 0.01), ("popularity", 1, 0.125, None))
            for metric in ("recall", "ndcg")
            for k in (10, 20)
        ],
        schema=LEADERBOARD,
        orient="row",
    )
    runs = [("blast", seed, value) for seed, value in enumerate((0.24, 0.25, 0.26))] + [("popularity", 0, 0.125)]
    metrics = pl.DataFrame(
        [
            (model, seed, "abc", "p" * 32, grouping, group, 3, "recall", 20, value)
            for model, seed, value in runs
            for grouping, group in (("all", "all"), ("user_activity", "0-4"), ("item_popularity", "tail"))
        ],
        schema=METRICS,
        orient="row",
    )
    rng = np.random.default_rng(0)
    user_metrics = {
        model: [
            pl.LazyFrame(
                {"user_id": range(n_users), "recall@20": rng.random(n_users) * value},
                schema_overrides={"user_id": pl.Int32},
            ).with_columns(provenance=pl.lit("p" * 32), split_digest=pl.lit("abc"))
            for name, _, value in runs
            if name == model
        ]
        for model in ("blast", "popularity")
    }
    recommended = pl.DataFrame(
        {"user_id": [0, 0], "rank": [1, 2], "item_id": [7, 5]},
        schema_overrides={"user_id": pl.Int32, "item_id": pl.Int32},
    )
    reviews = pl.DataFrame(schema=REVIEWS)
    settings = ProfileConfig()
    return ReportInputs(
        dataset="demo",
        title="Demo <script>alert(0)</script>",
        split_digest="abc",
        split_rule="random, seed 0",
        newest_input=1_400_000_000.0,
        notes=["written by no language model"],
        leaderboard=board,
        metrics=metrics,
        user_metrics=user_metrics,
        trainings=[
            Training("blast", seed, {"training.batch_size": 64}, epochs=30, kept_epoch=seed + 5, seconds=2.5)
            for seed in (0, 1, 2)
        ],
        interactions=interactions,
        items=items,
        users=users,
        item_profiles=item_profiles,
        user_profiles=user_profiles,
        histories={"blast": [pl.DataFrame({"epoch": [0, 1, 2], "valid_recall": [0.1, 0.2, 0.15]})]},
        recommendations={"blast": recommended},
        item_evidence=[item_task(items, reviews, interactions, domain="things", config=settings).explain(0)],
        user_evidence=[
            user_task(
                items, item_profiles, reviews, interactions, n_users=n_users, domain="things", config=settings
            ).explain(0)
        ],
        funnel=[("read", 200), ("split", 33)],
        lineage=[LineageRow("items", "demo", "0123abcd", "1", "8")],
    )
