"""Checks of checkpoints, for every model."""

import dagster as dg

from assets.checks.declare import Verdict
from assets.failures import clear_failures
from assets.io_managers import recorded_path
from assets.partitions import DATASET_SEEDS
from assets.resources import DataRoot
from assets.training import checkpoint_key
from recmodels.errors import MissingObject
from recmodels.models.registry import MODELS


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
            try:
                path = recorded_path(context.instance, data_root, checkpoint_key(model), context.partition_key)
                verdict = Verdict({"parameters": len(load_checkpoint(path).parameters)})
            except MissingObject as error:
                verdict = Verdict({}, f"1 checkpoint is not what was recorded, expected none: {error}")
        return verdict.result(blocking=True)

    return intact


CHECKS = [_checkpoint(model) for model in MODELS]
