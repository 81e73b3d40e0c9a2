"""Recommendations: the best items for every user, from each model's checkpoint."""

from pathlib import Path

import dagster as dg

from assets.lineage import materialized
from assets.partitions import DATASET_SEEDS
from assets.stage import stage_asset
from assets.training import checkpoint_key
from recmodels.models.registry import MODELS, ModelSpec

TOP_N = 20


def recommendations_key(model: str) -> dg.AssetKey:
    """Return the key of a model's recommendations."""
    return dg.AssetKey(["recommendations", model])


def recommendations_asset(spec: ModelSpec) -> dg.AssetsDefinition:
    """Return the asset with one model's recommendations."""

    @stage_asset(
        key=recommendations_key(spec.name),
        group_name="serving",
        kinds={"polars", "parquet"},
        code_version="1",
        partitions_def=DATASET_SEEDS,
        ins={"checkpoint": dg.AssetIn(checkpoint_key(spec.name))},
        description=(
            f"The {TOP_N} best items of {spec.title} for every user, items of training and validation left out; users "
            "without training rows get the most popular items, and `source` says so."
        ),
    )
    def recommendations(context: dg.AssetExecutionContext, checkpoint: Path) -> dg.MaterializeResult[object]:
        from recmodels.serving.recommender import Recommender

        recommender = Recommender.load(checkpoint)
        table = recommender.recommend(recommender.checkpoint.users["user_id"].to_numpy(), TOP_N)
        return materialized(context, table)

    return recommendations


recommendations = [recommendations_asset(spec) for spec in MODELS.values()]
