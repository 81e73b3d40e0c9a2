"""From a stored checkpoint to a calibrated one, in one call."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from recmodels.calibration.calibrate import Calibration, calibrate
from recmodels.calibration.config import CalibrationConfig
from recmodels.checkpoints.store import load_checkpoint, write_checkpoint
from recmodels.compute.base import Compute
from recmodels.compute.local import LOCAL
from recmodels.models.inputs import training_data
from recmodels.ranking.calibrated import CalibratedRanker


def calibrate_checkpoint(
    directory: Path,
    source: Path,
    config: CalibrationConfig,
    *,
    provenance: dict[str, Any],
    item_text_knn: pl.DataFrame | None = None,
    item_image_knn: pl.DataFrame | None = None,
    compute: Compute = LOCAL,
) -> Calibration:
    """
    Calibrate the ranking of a checkpoint and write the result as a checkpoint of its own.

    Pairs are those that the checkpoint holds. If it is calibrated already, its base ranking is calibrated anew. The new
    directory must not exist yet, and appears when it is complete. The provenance, JSON-ready facts, is added to that of
    the checkpoint; neighbour tables (schema `KNN`) are for evidence from item graphs.

    Raises
    ------
    MissingObject
        If the checkpoint is absent or damaged.
    InputError
        As `calibrate`.
    """
    stored = load_checkpoint(source)
    base = stored.ranker.base if isinstance(stored.ranker, CalibratedRanker) else stored.ranker
    data = training_data(
        stored.seen,
        n_users=base.n_users,
        n_items=base.n_items,
        item_text_knn=item_text_knn,
        item_image_knn=item_image_knn,
    )
    calibration = calibrate(base, data, config, compute)
    record = {"config": config.model_dump(mode="json"), "chosen": calibration.chosen}
    write_checkpoint(
        directory,
        replace(
            stored,
            ranker=calibration.ranker,
            provenance=stored.provenance | provenance | {"calibration": record},
            calibration=calibration.search,
        ),
    )
    return calibration
