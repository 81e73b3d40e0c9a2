"""Optimal transport: the pairs that the augmentation adds to the training set."""

import dagster as dg
import polars as pl

from assets.support.checks import Verdict, recorded_check
from assets.support.lineage import inline_image, inline_table, materialized
from assets.support.partitions import entry_of
from assets.support.resources import ComputeResource, DataRoot, compute_metadata
from assets.support.stage import stage_asset
from assets.support.titles import item_titles
from recmodels.reporting.examples import example_users, named_users
from recmodels.reporting.tables import new_and_had
from recmodels.settings import transport_config, transport_settings


@stage_asset(
    group_name="transport",
    settings=transport_settings,
    kinds={"polars", "parquet"},
    code_version="1",
)
def augmented_interactions(
    context: dg.AssetExecutionContext,
    data_root: DataRoot,
    compute: ComputeResource,
    interactions: pl.DataFrame,
    users: pl.DataFrame,
    item_ids: pl.DataFrame,
    item_text_knn: pl.DataFrame,
    item_image_knn: pl.DataFrame,
) -> dg.MaterializeResult[pl.DataFrame]:
    """
    Likely-liked pairs that entropic optimal transport adds as positives (BLAST, stage 4).

    They come from training rows and item graphs alone. `mass` is the plan's entry.
    """
    from recmodels.reporting.charts import activity_histograms
    from recmodels.transport.augment import augment

    train = interactions.filter(pl.col("split") == "train").select("user_id", "item_id")
    place = compute.open()
    result = augment(
        train,
        {"text": item_text_knn, "image": item_image_knn},
        n_users=users.height,
        n_items=item_ids.height,
        config=transport_config(entry_of(context.partition_key)),
        compute=place,
        keep_false_negatives=False,
    )
    titles = item_titles(context, data_root, item_ids)
    shown = named_users(users, example_users(interactions))
    examples = new_and_had(result.added.sort("mass", descending=True), "added", train, shown, titles)
    picture = inline_image(activity_histograms(train, result.added, users.height, item_ids.height))
    return materialized(
        context,
        result.added,
        metadata={
            "examples": inline_table(examples),
            "before_and_after": picture,
            **result.diagnostics,
            **compute_metadata(place),
        },
    )


@recorded_check("augmented_interactions", "The plan's marginals were met within the tolerance.", blocking=False)
def converged_plan(records: list[dg.AssetMaterialization]) -> Verdict:
    """Look at how the solver ended."""
    found = {
        name: records[0].metadata[name].value for name in ("status", "marginal_error") if name in records[0].metadata
    }
    measured = {"status": str(found.get("status", "")), "marginal_error": found.get("marginal_error", 0.0)}
    if measured["status"] != "not converged":
        return Verdict(measured)
    return Verdict(
        measured,
        f"The marginals of the plan are off by {measured['marginal_error']}, expected no more than the tolerance of "
        "the transport settings. Raise max_iterations or epsilon there, in the catalogue.",
    )
