"""
The search for each model's settings on a data set, where somebody asks for it: every try, and which was the best.

What is tried and how it is measured is `recmodels.tuning`; it gets no test rows. Training with what was found is not
done here.
"""

from typing import TYPE_CHECKING, Any

import dagster as dg
import polars as pl

from assets.support.lineage import inline_image, inline_table, materialized
from assets.support.partitions import entry_of
from assets.support.resources import DataRoot
from assets.support.stage import stage_asset
from assets.training import BASE_INPUTS, Clock, training_version, tuning_key
from recmodels.data.split import split_digest
from recmodels.io.digest import digest_of, frame_digest
from recmodels.io.files import safe_join
from recmodels.models.registry import MODELS, ModelSpec
from recmodels.settings import training_config, tuning_config, tuning_settings

if TYPE_CHECKING:
    from recmodels.tuning.study import Tried

SEARCH_VERSION = "1"
"""Code version of what is tried, whatever the model."""
FOLDER = "tuning"
"""Folder below the data root where the searches keep their tries."""
TRIES_SHOWN = 20


class TuningRunConfig(dg.Config):
    """What one run may change about a search."""

    overrides: dict[str, Any] = {}
    """Settings of the search by name, over the catalogue's, such as `trials` and `hours`. Unknown keys fail."""


def tuning_asset(spec: ModelSpec) -> dg.AssetsDefinition:
    """Return the asset that searches the settings of one model."""
    version = f"{SEARCH_VERSION}.{training_version(spec)}"

    @stage_asset(
        key=tuning_key(spec.name),
        group_name="tuning",
        settings=lambda entry: tuning_settings(entry, spec.name),
        on_request=True,
        job="tune",
        kinds={"optuna", "polars", "parquet"},
        code_version=version,
        pool="gpu",
        ins={name: dg.AssetIn(name) for name in sorted(BASE_INPUTS | spec.inputs)},
        description=(
            f"The settings of {spec.title} that rank the validation rows best, and every try on the way there: those "
            "that hold today first, then the published grid, then a seeded search. A run that was killed goes on."
        ),
    )
    def tuning(
        context: dg.AssetExecutionContext, config: TuningRunConfig, data_root: DataRoot, **tables: pl.DataFrame
    ) -> dg.MaterializeResult[pl.DataFrame]:
        from recmodels.models.inputs import training_data
        from recmodels.reporting.charts import tuning_history, tuning_importances
        from recmodels.training.trainer import EpochRecord
        from recmodels.tuning.result import tuned_settings
        from recmodels.tuning.tune import tune

        entry = entry_of(context.partition_key)
        split = split_digest(tables["interactions"])
        rows = tables.pop("interactions").filter(pl.col("split") != "test")
        data = training_data(
            rows,
            n_users=tables["users"].height,
            n_items=tables["item_ids"].height,
            **{name: tables[name] for name in spec.inputs},
        )
        clock = Clock()

        def log_epoch(number: int, record: EpochRecord) -> None:
            if clock.struck():
                context.log.info(f"try {number}, epoch {record.epoch}: validation recall@20 {record.valid_recall:.4f}")

        def log_try(tried: "Tried") -> None:
            context.log.info(_told(tried))

        result = tune(
            spec.name,
            lambda overrides: training_config(entry, spec.name, overrides),
            data,
            tuning_config(entry, config.overrides),
            folder=safe_join(data_root.root, FOLDER, context.partition_key, spec.name),
            key=digest_of(version, frame_digest(rows), *(frame_digest(tables[name]) for name in sorted(tables))),
            on_epoch=log_epoch,
            on_try=log_try,
        )
        tries, best = result.table, result.table.filter(pl.col("chosen")).row(0, named=True)
        ranked = tries.sort("valid_recall", descending=True, nulls_last=True, maintain_order=True)
        pictures = {"history": inline_image(tuning_history(tries))}
        if result.importances:
            pictures["importance"] = inline_image(tuning_importances(result.importances))
        return materialized(
            context,
            tries,
            # How long a try took is not what it found.
            data_version=digest_of(frame_digest(tries.drop("seconds"))),
            split=split,
            used=tuning_settings(entry, spec.name, config.overrides),
            metadata={
                "best": dg.MetadataValue.json(tuned_settings(tries)),
                "valid_recall@20": best["valid_recall"],
                "valid_recall@20_today": tries["valid_recall"][0],
                **{state: tries.filter(pl.col("state") == state).height for state in tries["state"].unique().sort()},
                "exhausted": result.exhausted,
                "seconds": float(tries["seconds"].sum()),
                "seed": best["seed"],
                **pictures,
                "tries": inline_table(ranked.drop("seed", "chosen").head(TRIES_SHOWN), characters=400),
            },
        )

    return tuning


def _told(tried: "Tried") -> str:
    outcome = tried.outcome
    values = ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in tried.values.items()
    )
    figure = outcome.reason or f"validation recall@20 {outcome.valid_recall:.4f} after {outcome.epochs} epochs"
    return f"try {tried.number} ({tried.origin}) {outcome.state}: {figure}; {values}"


tunings = [tuning_asset(spec) for spec in MODELS.values()]
