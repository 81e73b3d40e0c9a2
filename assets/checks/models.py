"""Checks of checkpoints, metrics and recommendations, for every model."""

from pathlib import Path

import dagster as dg
import polars as pl

from assets.checks.declare import Verdict, table_check
from assets.evaluation import metrics_key, user_metrics_key
from assets.failures import clear_failures
from assets.io_managers import recorded_path
from assets.partitions import DATASET_SEEDS
from assets.recommendations import TOP_N, recommendations_key
from assets.resources import DataRoot
from assets.training import checkpoint_key
from recmodels.models.registry import FLOORS, MODELS


def _checkpoint(model: str) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=checkpoint_key(model),
        description="Every file of the checkpoint is there and has the digest that was recorded with it.",
        blocking=True,
        partitions_def=DATASET_SEEDS,
    )
    def intact(context: dg.AssetCheckExecutionContext, data_root: DataRoot) -> dg.AssetCheckResult:
        from recmodels.training.checkpoint import load_checkpoint

        with clear_failures():
            path: Path = recorded_path(context.instance, data_root, checkpoint_key(model), context.partition_key)
            checkpoint = load_checkpoint(path)
        return dg.AssetCheckResult(passed=True, metadata={"parameters": len(checkpoint.parameters)})

    return intact


def _metrics(model: str) -> dg.AssetChecksDefinition:
    @table_check(metrics_key(model), "Every share lies between 0 and 1.", partitions_def=DATASET_SEEDS)
    def shares_in_range(metrics: pl.DataFrame) -> Verdict:
        shares = metrics.filter(pl.col("metric") != "novelty")
        outside = shares.filter(~pl.col("value").is_between(0, 1)).height
        return outside == 0, {"values": metrics.height, "outside": outside}

    return shares_in_range


def _user_metrics(model: str) -> dg.AssetChecksDefinition:
    @table_check(
        user_metrics_key(model),
        "Exactly the users with test rows are evaluated, each once.",
        also=["interactions"],
        partitions_def=DATASET_SEEDS,
    )
    def users_with_test_rows(metrics: pl.DataFrame, interactions: pl.DataFrame) -> Verdict:
        expected = interactions.filter(pl.col("split") == "test")["user_id"].unique().sort()
        return metrics["user_id"].sort().equals(expected), {"users": metrics.height}

    return users_with_test_rows


def _recommendations(model: str) -> dg.AssetChecksDefinition:
    @table_check(
        recommendations_key(model),
        f"Every user has at most {TOP_N} distinct items, none of them seen in training or validation.",
        also=["interactions", "users"],
        partitions_def=DATASET_SEEDS,
    )
    def new_items_for_everybody(table: pl.DataFrame, interactions: pl.DataFrame, users: pl.DataFrame) -> Verdict:
        seen = interactions.filter(pl.col("split") != "test")
        known = table.join(seen, on=["user_id", "item_id"], how="semi").height
        repeated = table.height - table.select("user_id", "item_id").n_unique()
        answered = table["user_id"].n_unique()
        passed = known == 0 and repeated == 0 and answered == users.height and table.height <= TOP_N * users.height
        return passed, {"seen_items": known, "repeated_items": repeated, "users_answered": answered}

    return new_items_for_everybody


CHECKS = [
    *(make(model) for model in MODELS for make in (_checkpoint, _recommendations)),
    *(make(name) for name in [*MODELS, *FLOORS] for make in (_metrics, _user_metrics)),
]
