"""
Calibrated forms: the frozen ranking of each model's checkpoint with its best items in a new order.

Validation chooses the order. How that is done is `recmodels.calibration`; what is stored is a checkpoint like any.
"""

from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from assets.support.io_managers import staging_directory
from assets.support.lineage import SPLIT_DIGEST, inline_table, materialized, records_read, versions_read
from assets.support.partitions import DATASET_SEEDS, entry_of
from assets.support.resources import ComputeResource, DataRoot, compute_metadata
from assets.support.stage import stage_asset
from assets.training import PROVENANCE, TESTED, checkpoint_key, group_of, intact_check
from recmodels.calibration.config import calibrated
from recmodels.io.digest import digest_of
from recmodels.models.spec import ModelSpec
from recmodels.settings import calibration_config, calibration_settings

CODE_VERSION = "1"
GRAPHS = frozenset({"item_text_knn", "item_image_knn"})
"""Tables that evidence may be made from; a form has those that its model reads, so that it waits for no others."""

CALIBRATED_TITLES = {calibrated(spec.name): f"{spec.title}, calibrated" for spec in TESTED.values()}
"""Title of each calibrated form by its name."""


class CalibrationRunConfig(dg.Config):
    """What one run may change about how a model is calibrated."""

    overrides: dict[str, Any] = {}
    """Settings of the calibration by name, over the catalogue's. Unknown keys fail."""


def calibrated_asset(spec: ModelSpec) -> dg.AssetsDefinition:
    """Return the asset that calibrates one model."""
    name, graphs = calibrated(spec.name), GRAPHS & spec.inputs

    @stage_asset(
        key=checkpoint_key(name),
        group_name=group_of(name, "training"),
        settings=calibration_settings,
        on_request=True,
        kinds={"scipy", "safetensors"},
        code_version=CODE_VERSION,
        partitions_def=DATASET_SEEDS,
        io_manager_key="directory_io",
        ins={
            "checkpoint": dg.AssetIn(checkpoint_key(spec.name)),
            **{graph: dg.AssetIn(spec.source(graph)) for graph in graphs},
        },
        description=(
            f"{CALIBRATED_TITLES[name]}: the frozen ranking, its best items put into a new order by what the training "
            "rows of other users say about them. Which evidence counts how much is chosen by validation Recall@20; no "
            "evidence at all is among the choices."
        ),
    )
    def calibrated_checkpoint(
        context: dg.AssetExecutionContext,
        config: CalibrationRunConfig,
        data_root: DataRoot,
        compute: ComputeResource,
        checkpoint: Path,
        **tables: pl.DataFrame,
    ) -> dg.MaterializeResult[Path]:
        from recmodels.calibration.run import calibrate_checkpoint
        from recmodels.checkpoints.store import load_checkpoint

        entry = entry_of(context.partition_key)
        used = calibration_settings(entry, config.overrides)
        inputs = records_read(context)
        read = versions_read(context, inputs)
        base = load_checkpoint(checkpoint).provenance
        tables_read = [read[spec.source(graph)] for graph in sorted(graphs)]
        version = digest_of(CODE_VERSION, used.digest, base["data_version"], *tables_read)
        directory = staging_directory(data_root, context.run.run_id)
        place = compute.open()
        result = calibrate_checkpoint(
            directory,
            checkpoint,
            calibration_config(entry, config.overrides),
            provenance={
                "data_version": version,
                "code_version": CODE_VERSION,
                PROVENANCE: digest_of(CODE_VERSION, used.digest, base[PROVENANCE], *tables_read),
                "calibrated_with": dict(used.values),
                "read": read,
            },
            compute=place,
            **tables,
        )
        tries = result.search.sort("valid_recall", descending=True, maintain_order=True)
        unchanged = result.search.filter(pl.all_horizontal(pl.col("^strength_.*$") == 0))["valid_recall"].max()
        return materialized(
            context,
            directory,
            data_version=version,
            inputs=inputs,
            split=base[SPLIT_DIGEST],
            entry=entry,
            used=used,
            metadata={
                "tries": inline_table(tries.head(20)),
                **{key: value for key, value in result.chosen.items() if key.startswith(("strength_", "shortlist"))},
                "valid_recall@20": result.chosen["valid_recall"],
                "valid_recall@20_without": unchanged,
                **compute_metadata(place),
            },
        )

    return calibrated_checkpoint


calibrated_forms = [calibrated_asset(spec) for spec in TESTED.values()]
calibrated_checks = [intact_check(name) for name in CALIBRATED_TITLES]
