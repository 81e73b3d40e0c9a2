"""Checkpoints: one asset a model, made from the registry, each with exactly the inputs that the model reads."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import polars as pl

from assets.support.checks import Verdict, recorded_check, stored_check
from assets.support.io_managers import recorded_path, staging_directory
from assets.support.lineage import (
    SPLIT_DIGEST,
    inline_image,
    inline_table,
    materialized,
    records_read,
    versions_read,
)
from assets.support.partitions import DATASET_SEEDS, dataset_of, entry_of, seed_of
from assets.support.resources import ComputeResource, DataRoot, compute_metadata
from assets.support.stage import stage_asset
from recmodels.calibration.config import CALIBRATED
from recmodels.data.split import split_digest
from recmodels.errors import MissingObject
from recmodels.io.commit import current_commit
from recmodels.io.digest import digest_of, frame_digest
from recmodels.io.files import safe_join
from recmodels.models.registry import MODELS, ModelSpec
from recmodels.models.variants import load_variants
from recmodels.reporting.tables import training_progress
from recmodels.settings import training_config, training_settings
from recmodels.tuning.result import tuned_settings

if TYPE_CHECKING:
    from recmodels.training.trainer import EpochRecord

VARIANTS = load_variants()
"""The variants that there are, by name; what changes in their files is seen when the code is loaded again."""
TRAINED = {**MODELS, **VARIANTS}
"""Everything that is trained, by name: models and variants."""
TESTED = {name: spec for name, spec in TRAINED.items() if not spec.validation_only}
"""Those of which test rows may be looked at."""
TRAINER_VERSION = "2"
"""Code version of what all models share: the loop, the samplers, the selection of the epoch."""
COMMIT = "commit"
DEVICE = "device"
"""Entries of a checkpoint's metadata: the code's commit, where it is a checkout, and what it was trained on."""
PROVENANCE = "provenance"
"""Entry of a checkpoint's provenance: the digest of code version, settings and data, without the seed."""
LOG_INTERVAL_SECONDS = 1.0
BASE_INPUTS = frozenset({"interactions", "users", "item_ids"})


class TrainingRunConfig(dg.Config):
    """What one run may change about how a model is trained."""

    overrides: dict[str, Any] = {}
    """Settings of the model by name, over the catalogue's; those of the loop under `training`. Unknown keys fail."""


class Clock:
    """Strikes at most every `LOG_INTERVAL_SECONDS`."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def struck(self) -> bool:
        """Tell whether it is time again, and count from now if it is."""
        if time.monotonic() - self._last < LOG_INTERVAL_SECONDS:
            return False
        self._last = time.monotonic()
        return True


def checkpoint_key(model: str) -> dg.AssetKey:
    """Return the key of a model's checkpoint, or of that of its calibrated form."""
    return dg.AssetKey(model.split("/") if model.startswith(CALIBRATED) else ["checkpoint", model])


def group_of(model: str, group: str) -> str:
    """Return the group of an asset of a model or a calibrated form; those of variants have one of their own."""
    return "variants" if model.removeprefix(CALIBRATED) in VARIANTS else group


def training_version(spec: ModelSpec) -> str:
    """Return the code version of a trained model: that of the loop and its own."""
    return f"{TRAINER_VERSION}.{spec.version}"


def tuning_key(model: str) -> dg.AssetKey:
    """Return the key of the table of tries whose chosen settings a variant with ``settings = "tuned"`` takes."""
    return dg.AssetKey(["tuning", model])


def checkpoint_asset(spec: ModelSpec) -> dg.AssetsDefinition:
    """Return the asset that trains one model or variant."""
    sources = {name: dg.AssetKey(spec.source(name).split("/")) for name in sorted(BASE_INPUTS | spec.inputs)}
    if spec.tuned:
        sources["tuning"] = tuning_key(spec.model)

    @stage_asset(
        key=checkpoint_key(spec.name),
        group_name=group_of(spec.name, "training"),
        settings=lambda entry: training_settings(entry, spec),
        on_request=bool(spec.variant_of),
        kinds={"pytorch", "safetensors"},
        code_version=training_version(spec),
        partitions_def=DATASET_SEEDS,
        io_manager_key="directory_io",
        pool="gpu",
        ins={name: dg.AssetIn(key) for name, key in sources.items()},
        description=(
            f"{spec.title} ({spec.reference}), trained on the training rows of one data set with one seed; the epoch "
            "is chosen by validation Recall@20. Holds parameters, final embeddings, configuration, id maps and history."
        ),
    )
    def checkpoint(
        context: dg.AssetExecutionContext,
        config: TrainingRunConfig,
        data_root: DataRoot,
        compute: ComputeResource,
        **tables: pl.DataFrame,
    ) -> dg.MaterializeResult[Path]:
        from recmodels.io.devices import device_name
        from recmodels.models.inputs import training_data
        from recmodels.reporting.charts import training_curves
        from recmodels.training.run import train_checkpoint

        dataset, seed = dataset_of(context.partition_key), seed_of(context.partition_key)
        entry = entry_of(context.partition_key)
        overrides = [tuned_settings(tables["tuning"])] if spec.tuned else []
        resolved = training_config(entry, spec, *overrides, config.overrides)
        used = training_settings(entry, spec, *overrides, config.overrides)
        split = split_digest(tables["interactions"])
        rows = tables["interactions"].filter(pl.col("split") != "test")
        batch = resolved.batch_size_for(rows.filter(pl.col("split") == "train").height)
        follows_data = not spec.closed_form and batch != resolved.training.batch_size
        provenance = digest_of(
            training_version(spec),
            spec.model,
            used.digest,
            *(frame_digest(tables[name]) for name in sorted(spec.inputs | {"users", "item_ids"})),
            frame_digest(rows),
            *([f"batches of {batch}"] if follows_data else []),
        )
        version = digest_of(provenance, f"seed {seed}")
        data = training_data(
            rows,
            n_users=tables["users"].height,
            n_items=tables["item_ids"].height,
            **{name: tables[name] for name in spec.inputs},
        )
        inputs = records_read(context)
        directory = staging_directory(data_root, context.run.run_id)
        place = compute.open()
        result = train_checkpoint(
            directory,
            spec.model,
            resolved,
            data,
            seed=seed,
            users=tables["users"],
            items=tables["item_ids"],
            provenance={
                "dataset": dataset,
                **({"variant": spec.name} if spec.variant_of else {}),
                "data_version": version,
                "code_version": training_version(spec),
                SPLIT_DIGEST: split,
                PROVENANCE: provenance,
                "settings": dict(used.values),
                "read": versions_read(context, inputs),
            },
            on_epoch=[_logged(context)],
            state_directory=safe_join(data_root.root, "training_state", version),
            compute=place,
        )
        curve = (result.history["epoch"].to_numpy(), result.history["valid_recall"].to_numpy())
        return materialized(
            context,
            directory,
            data_version=version,
            inputs=inputs,
            split=split,
            used=used,
            metadata={
                "progress": inline_table(training_progress(result.history, result.best_epoch)),
                "curve": inline_image(training_curves({spec.name: [curve]})),
                # Text: over partitions the interface draws every number, and a line of these says nothing.
                "best_epoch": dg.MetadataValue.text(str(result.best_epoch)),
                "valid_recall@20": result.best_valid_recall,
                "epochs": result.history.height,
                **({} if spec.closed_form else {"batch_size": batch, "steps": result.n_steps}),
                "stopped_early": result.stopped_early,
                "seconds": float(result.history["seconds"].sum()),
                COMMIT: current_commit(),
                DEVICE: device_name(resolved.training.device),
                # What is one process is trained in that of the run.
                **(compute_metadata(place) if resolved.training.shards > 1 else {}),
            },
        )

    return checkpoint


def _logged(context: dg.AssetExecutionContext) -> Callable[["EpochRecord"], None]:
    clock = Clock()

    def log(record: "EpochRecord") -> None:
        if clock.struck():
            context.log.info(
                f"epoch {record.epoch}: loss {record.loss:.4f}, validation recall@20 {record.valid_recall:.4f}, "
                f"best epoch {record.best_epoch}"
            )

    return log


checkpoints = [checkpoint_asset(spec) for spec in TRAINED.values()]


def intact_check(model: str) -> dg.AssetChecksDefinition:
    """Return the check that a checkpoint is as it was stored."""

    @stored_check(
        checkpoint_key(model),
        "Every file of the checkpoint is there and has the digest that was recorded with it.",
        blocking=True,
        partitions_def=DATASET_SEEDS,
    )
    def intact(context: dg.AssetCheckExecutionContext, data_root: DataRoot) -> Verdict:
        from recmodels.checkpoints.store import load_checkpoint

        try:
            path = recorded_path(context.instance, data_root, checkpoint_key(model), context.partition_key)
            return Verdict({"parameters": len(load_checkpoint(path).parameters)})
        except MissingObject as error:
            return Verdict({}, f"1 checkpoint is not what was recorded, expected none: {error}")

    return intact


FEW_STEPS = 200
"""Optimiser steps below which a training that ended by its patience has hardly begun."""


def enough_steps_check(model: str) -> dg.AssetChecksDefinition:
    """Return the check that early stopping did not end the training of a model before it had begun."""

    @recorded_check(
        checkpoint_key(model),
        f"A training that early stopping ended had at least {FEW_STEPS} optimiser steps.",
        blocking=False,
        partitions_def=DATASET_SEEDS,
    )
    def enough_steps(records: list[dg.AssetMaterialization]) -> Verdict:
        names = ("steps", "batch_size", "epochs", "stopped_early")
        found = {name: records[0].metadata[name].value for name in names if name in records[0].metadata}
        steps = int(str(found.get("steps", FEW_STEPS)))
        if steps >= FEW_STEPS or not found.get("stopped_early"):
            return Verdict(found)
        return Verdict(
            found,
            f"Training ended by its patience after {steps:,} optimiser steps ({found['epochs']} epochs with batches of "
            f"{found['batch_size']}), expected at least {FEW_STEPS}: the model has hardly been trained. Lower "
            "training.batch_size or raise training.patience of the data set in the catalogue.",
        )

    return enough_steps


checkpoint_checks = [intact_check(name) for name in TRAINED]
enough_steps_checks = [enough_steps_check(name) for name, spec in TRAINED.items() if not spec.closed_form]
