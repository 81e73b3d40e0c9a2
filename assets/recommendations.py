"""Recommendations: the best items for every user, from each model's checkpoint."""

from pathlib import Path

import dagster as dg
import polars as pl

from assets.evaluation import TITLES
from assets.support.lineage import inline_table, materialized
from assets.support.links import explorer_link
from assets.support.partitions import DATASET_SEEDS, dataset_of, seed_of
from assets.support.resources import ComputeResource, DataRoot, compute_metadata
from assets.support.stage import stage_asset
from assets.support.titles import item_titles
from assets.training import checkpoint_key, group_of
from recmodels.reporting.examples import example_users, named_users
from recmodels.reporting.tables import new_and_had
from recmodels.schemas.results import TOP_N


def recommendations_key(model: str) -> dg.AssetKey:
    """Return the key of a model's recommendations."""
    return dg.AssetKey(["recommendations", *model.split("/")])


def recommendations_asset(model: str) -> dg.AssetsDefinition:
    """Return the asset with one model's recommendations."""

    @stage_asset(
        key=recommendations_key(model),
        group_name=group_of(model, "serving"),
        kinds={"polars", "parquet"},
        code_version="1",
        partitions_def=DATASET_SEEDS,
        ins={"checkpoint": dg.AssetIn(checkpoint_key(model))},
        description=(
            f"The {TOP_N} best items of {TITLES[model]} for every user, or as many as there are, items of training and "
            "validation left out; users without training rows get the most popular items, and `source` says so."
        ),
    )
    def recommendations(
        context: dg.AssetExecutionContext, data_root: DataRoot, compute: ComputeResource, checkpoint: Path
    ) -> dg.MaterializeResult[object]:
        from recmodels.serving.recommender import Recommender

        recommender = Recommender.load(checkpoint)
        place = compute.open()
        table = recommender.recommend(recommender.checkpoint.users["user_id"].to_numpy(), TOP_N, compute=place)
        checkpointed = recommender.checkpoint
        shown = named_users(checkpointed.users, example_users(checkpointed.seen))
        titles = item_titles(context, data_root, checkpointed.items)
        best = table.sort("rank")
        return materialized(
            context,
            table,
            metadata={
                "examples": inline_table(new_and_had(best, "gets", checkpointed.seen, shown, titles)),
                "explorer": explorer_link(
                    dataset=dataset_of(context.partition_key), model=model, seed=seed_of(context.partition_key)
                ),
                "users_by_popularity": table.filter(pl.col("source") == "popularity")["user_id"].n_unique(),
                **compute_metadata(place),
            },
        )

    return recommendations


recommendations = [recommendations_asset(model) for model in TITLES]
