"""Evaluation: each model and baseline scored once on the test rows, and the leaderboard over seeds."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
import numpy as np
import polars as pl
from numpy.typing import NDArray

from assets.calibration import CALIBRATED_TITLES
from assets.support.checks import Verdict, recorded_check
from assets.support.lineage import SPLIT_DIGEST, inline_image, inline_table, materialized, records_read
from assets.support.partitions import ALL_SEEDS, DATASET_SEEDS, seed_of
from assets.support.resources import ComputeResource, compute_metadata
from assets.support.stage import stage_asset, stage_multi_asset
from assets.training import PROVENANCE, TESTED, checkpoint_key, group_of
from recmodels.compute.base import Compute
from recmodels.data.split import split_digest
from recmodels.errors import InputError
from recmodels.io.digest import digest_of, frame_digest
from recmodels.models.registry import NON_PERSONALISED
from recmodels.reporting.tables import (
    HEADLINE,
    figure_name,
    leaderboard_figures,
    leaderboard_summary,
    metrics_by_group,
)

if TYPE_CHECKING:
    from recmodels.ranking.ranker import Ranker

CODE_VERSION = "1"
TITLES = {spec.name: spec.title for spec in TESTED.values()} | CALIBRATED_TITLES
"""Title of everything that is trained, by its name: models, variants and their calibrated forms."""
GROUP = "evaluation"
SHOWN_FIRST = ("model", "seeds", "recall@20", "ndcg@20")
"""Columns of the leaderboard that stand first, as the interface cuts off what its panel has no room for."""


def metrics_key(model: str) -> dg.AssetKey:
    """Return the key of a model's test metrics: the means, over all users and by group."""
    return dg.AssetKey(["metrics", *model.split("/")])


def user_metrics_key(model: str) -> dg.AssetKey:
    """Return the key of a model's test metrics user by user."""
    return dg.AssetKey(["user_metrics", *model.split("/")])


def identifier(model: str) -> str:
    """Return a model's name as part of the names of operations and inputs, which are identifiers."""
    return model.replace("/", "__").replace("-", "_").replace(".", "_")


def _specs(model: str, title: str, inputs: list[dg.AssetKey]) -> list[dg.AssetSpec]:
    texts = {
        metrics_key(model): f"Test metrics of {title}: means over the users, and by user activity and item popularity.",
        user_metrics_key(model): f"Test metrics of {title} user by user, for tests of significance without a re-run.",
    }
    return [
        dg.AssetSpec(
            key,
            deps=inputs,
            group_name=group_of(model, GROUP),
            kinds={"polars", "parquet"},
            code_version=CODE_VERSION,
            description=text,
        )
        for key, text in texts.items()
    ]


def metrics_assets(model: str) -> dg.AssetsDefinition:
    """Return the assets that evaluate the checkpoint of a model."""
    keys = [checkpoint_key(model), dg.AssetKey("interactions")]

    @stage_multi_asset(
        _specs(model, TITLES[model], keys),
        name=f"evaluate_{identifier(model)}",
        partitions_def=DATASET_SEEDS,
        ins={"checkpoint": dg.AssetIn(keys[0]), "interactions": dg.AssetIn(keys[1])},
    )
    def evaluate_model(
        context: dg.AssetExecutionContext, compute: ComputeResource, checkpoint: Path, interactions: pl.DataFrame
    ) -> Iterator[dg.MaterializeResult[pl.DataFrame]]:
        from recmodels.checkpoints.store import load_checkpoint

        stored = load_checkpoint(checkpoint)
        _require_same_split(stored.provenance[SPLIT_DIGEST], interactions, model)
        made_from = stored.provenance[PROVENANCE]
        yield from _evaluated(context, compute.open(), model, stored.ranker, interactions, made_from=made_from)

    return evaluate_model


def baseline_assets(baseline: str) -> dg.AssetsDefinition:
    """Return the assets that evaluate a recommender that learns nothing about a user."""
    keys = [dg.AssetKey("interactions"), dg.AssetKey("users"), dg.AssetKey("item_ids")]

    @stage_multi_asset(
        _specs(baseline, baseline, keys),
        name=f"evaluate_{baseline}",
        partitions_def=DATASET_SEEDS,
        ins={key.path[0]: dg.AssetIn(key) for key in keys},
    )
    def evaluate_floor(
        context: dg.AssetExecutionContext,
        compute: ComputeResource,
        interactions: pl.DataFrame,
        users: pl.DataFrame,
        item_ids: pl.DataFrame,
    ) -> Iterator[dg.MaterializeResult[pl.DataFrame]]:
        from recmodels.evaluation.non_personalised import popularity_embeddings, random_embeddings
        from recmodels.ranking.ranker import EmbeddingScorer

        if baseline == "popularity":
            embeddings = popularity_embeddings(_pairs(interactions, "train")[1], users.height, item_ids.height)
        else:
            embeddings = random_embeddings(users.height, item_ids.height, seed=seed_of(context.partition_key))
        made_from = frame_digest(interactions.filter(pl.col("split") == "train"))
        ranker = EmbeddingScorer(*embeddings)
        yield from _evaluated(context, compute.open(), baseline, ranker, interactions, made_from=made_from)

    return evaluate_floor


def _require_same_split(trained_on: str, interactions: pl.DataFrame, model: str) -> None:
    """Make sure that no row which a model was trained on is among those it is measured by."""
    if trained_on != (found := split_digest(interactions)):
        raise InputError(
            f"checkpoint of {model}",
            expected=f"one that was trained on the split {found} it is to be measured by",
            found=f"one of the split {trained_on}",
            action=f"Materialise {checkpoint_key(model).to_user_string()} again.",
        )


def _evaluated(
    context: dg.AssetExecutionContext,
    compute: Compute,
    model: str,
    ranker: "Ranker",
    interactions: pl.DataFrame,
    *,
    made_from: str,
) -> Iterator[dg.MaterializeResult[pl.DataFrame]]:
    from recmodels.evaluation.evaluator import evaluate
    from recmodels.reporting.charts import recall_by_group

    result = evaluate(ranker, _pairs(interactions, "train"), _pairs(interactions, "test"), compute=compute)
    split, inputs = split_digest(interactions), records_read(context)
    run = {
        "model": pl.lit(model),
        "seed": pl.lit(seed_of(context.partition_key), pl.Int32),
        SPLIT_DIGEST: pl.lit(split),
        PROVENANCE: pl.lit(digest_of(CODE_VERSION, made_from)),
    }
    overall = result.summary.select(
        grouping=pl.lit("all"),
        group=pl.lit("all"),
        n_users=pl.lit(result.per_user.height, pl.Int32),
        **_same("metric", "k", "value"),
    )
    metrics = pl.concat([overall, result.groups])
    yield materialized(
        context,
        metrics.select(**run, **_same(*overall.columns)),
        key=metrics_key(model),
        inputs=inputs,
        split=split,
        metadata={
            "figures": inline_table(metrics_by_group(metrics)),
            "recall_by_group": inline_image(recall_by_group(metrics)),
            **{figure_name(metric, k): result.value(metric, k) for metric, k in HEADLINE},
            **compute_metadata(compute),
        },
    )
    yield materialized(
        context,
        result.per_user.select(**run, **_same(*result.per_user.columns)),
        key=user_metrics_key(model),
        inputs=inputs,
        split=split,
    )


def _pairs(interactions: pl.DataFrame, split: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    rows = interactions.filter(pl.col("split") == split).cast({"user_id": pl.Int64, "item_id": pl.Int64})
    return rows["user_id"].to_numpy(), rows["item_id"].to_numpy()


def _same(*columns: str) -> dict[str, pl.Expr]:
    return {column: pl.col(column) for column in columns}


def _metrics_inputs() -> dict[str, dg.AssetIn]:
    return {
        f"metrics_{identifier(model)}": dg.AssetIn(metrics_key(model), partition_mapping=ALL_SEEDS)
        for model in [*TITLES, *NON_PERSONALISED]
    }


@stage_asset(
    group_name=GROUP,
    job="evaluate",
    kinds={"polars", "parquet"},
    code_version=CODE_VERSION,
    ins={"interactions": dg.AssetIn("interactions"), **_metrics_inputs()},
)
def leaderboard(
    context: dg.AssetExecutionContext, interactions: pl.DataFrame, **metrics: dict[str, pl.DataFrame]
) -> dg.MaterializeResult[pl.DataFrame]:
    """
    Mean and standard deviation over seeds of every model's test metrics, best first.

    Seeds that were trained by other code, with other settings or from other data have rows of their own. Results that
    were measured on another split are left out and counted.
    """
    from recmodels.evaluation.leaderboard import leaderboard as ranked
    from recmodels.reporting.charts import leaderboard_bars

    split = split_digest(interactions)
    frames = [frame for by_seed in metrics.values() for frame in by_seed.values()]
    if not frames:
        raise InputError(
            f"leaderboard of {context.partition_key}",
            expected="test metrics of at least one model",
            found="none",
            action="Materialise checkpoint and metrics of a model first (job train).",
        )
    everything = pl.concat(frames).filter(pl.col("grouping") == "all")
    current = everything.filter(pl.col(SPLIT_DIGEST) == split)
    if current.is_empty():
        raise InputError(
            f"leaderboard of {context.partition_key}",
            expected=f"test metrics on the split {split}",
            found=f"those of {everything.select('model', 'seed').n_unique()} trained models on other splits",
            action="Train and evaluate again (job train).",
        )
    board = ranked(current.select("model", PROVENANCE, "seed", "metric", "k", "value"))
    outdated = everything.select("model", "seed").unique().height - current.select("model", "seed").unique().height
    return materialized(
        context,
        board,
        split=split,
        metadata={
            "summary": dg.MetadataValue.md(leaderboard_summary(board)),
            "figures": inline_table(
                leaderboard_figures(board)
                .select(*SHOWN_FIRST, pl.exclude(*SHOWN_FIRST))
                .with_columns(pl.col(pl.String).str.replace(" ± ", "±", literal=True))
            ),
            "recall": inline_image(leaderboard_bars(board)),
            "of_another_split": outdated,
        },
    )


def beats_popularity_check(model: str) -> dg.AssetChecksDefinition:
    """Return the check that a model ranks better than what knows nothing about a user."""
    recall, ndcg = (figure_name(metric, 20) for metric in ("recall", "ndcg"))

    @recorded_check(
        metrics_key(model),
        f"{TITLES[model]} has a higher {recall} on the test rows than popularity, or {ndcg} where lists hold all.",
        blocking=False,
        beside=[metrics_key("popularity")],
        partitions_def=DATASET_SEEDS,
    )
    def beats_popularity(records: list[dg.AssetMaterialization], popularity: dg.AssetMaterialization | None) -> Verdict:
        own_record = records[0].metadata
        if popularity is None or popularity.metadata[SPLIT_DIGEST] != own_record[SPLIT_DIGEST]:
            return Verdict({recall: own_record[recall].value})
        # Where a list holds all items, whatever their order, everybody finds everything.
        figure = recall if float(str(popularity.metadata[recall].value)) < 1 else ndcg
        own, floor = (float(str(metadata[figure].value)) for metadata in (own_record, popularity.metadata))
        measured = {figure: own, f"{figure} of popularity": floor}
        if own > floor:
            return Verdict(measured)
        return Verdict(
            measured,
            f"{TITLES[model]} has {figure} {own:.4f} on the test rows, expected more than the {floor:.4f} of "
            "popularity, which knows nothing about a user. It was trained too little, or on too few rows: look at "
            f"{checkpoint_key(model).to_user_string()}, its steps and its curve, and do not rely on its lists.",
        )

    return beats_popularity


beats_popularity_checks = [beats_popularity_check(model) for model in TITLES]
evaluations = [metrics_assets(model) for model in TITLES] + [baseline_assets(name) for name in NON_PERSONALISED]
