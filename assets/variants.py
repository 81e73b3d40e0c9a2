"""
What variants read that no model does: neighbours of the item profiles, and added positives of their own.

Their checkpoints, metrics and recommendations are made where those of models are; which variants there are stands in
`recmodels.models.variants`.
"""

import dagster as dg
import polars as pl

from assets.embeddings import TEXT_VERSION, embedded
from assets.graphs import CODE_VERSION as KNN_VERSION
from assets.graphs import neighbours_of
from assets.support.lineage import materialized
from assets.support.partitions import entry_of
from assets.support.resources import ComputeResource, DataRoot, compute_metadata
from assets.support.stage import STUDY_JOB, stage_asset
from assets.support.titles import item_titles
from assets.training import VARIANTS
from recmodels.models.spec import ModelSpec
from recmodels.models.variants import POSITIVES
from recmodels.settings import graph_settings, positives_config, positives_settings, text_embedding_settings

GROUP = "variants"


@stage_asset(
    group_name=GROUP,
    job=STUDY_JOB,
    on_request=True,
    settings=text_embedding_settings,
    kinds={"huggingface", "parquet"},
    code_version=TEXT_VERSION,
)
def item_profile_embeddings(
    context: dg.AssetExecutionContext, data_root: DataRoot, compute: ComputeResource, item_profiles: pl.DataFrame
) -> dg.MaterializeResult[pl.DataFrame]:
    """Each item's profile as a vector, also where the data set brings text features of its own."""
    return embedded(context, data_root, compute, item_profiles, "item_id")


@stage_asset(
    group_name=GROUP,
    job=STUDY_JOB,
    on_request=True,
    settings=graph_settings,
    kinds={"pytorch", "parquet"},
    code_version=KNN_VERSION,
)
def item_profile_knn(
    context: dg.AssetExecutionContext,
    data_root: DataRoot,
    compute: ComputeResource,
    item_ids: pl.DataFrame,
    item_profile_embeddings: pl.DataFrame,
) -> dg.MaterializeResult[pl.DataFrame]:
    """Nearest neighbours of each item by the cosine of profile embeddings, also where an import has a table."""
    return neighbours_of(context, compute, item_profile_embeddings, titles=item_titles(context, data_root, item_ids))


def positives_asset(spec: ModelSpec) -> dg.AssetsDefinition:
    """Return the asset with the added positives of one variant."""
    graphs = {name: dg.AssetIn(spec.source(name)) for name in ("item_text_knn", "item_image_knn")}

    @stage_asset(
        key=dg.AssetKey([POSITIVES.removesuffix("/"), spec.name]),
        group_name=GROUP,
        job=STUDY_JOB,
        on_request=True,
        settings=lambda entry: positives_settings(entry, spec),
        kinds={"polars", "parquet"},
        code_version="1",
        ins={**{name: dg.AssetIn(name) for name in ("interactions", "users", "item_ids")}, **graphs},
        description=f"The pairs that {spec.title} adds to the positives, from training rows and item graphs alone.",
    )
    def positives(
        context: dg.AssetExecutionContext,
        compute: ComputeResource,
        interactions: pl.DataFrame,
        users: pl.DataFrame,
        item_ids: pl.DataFrame,
        item_text_knn: pl.DataFrame,
        item_image_knn: pl.DataFrame,
    ) -> dg.MaterializeResult[pl.DataFrame]:
        from recmodels.transport.positives import added_positives

        train = interactions.filter(pl.col("split") == "train").select("user_id", "item_id")
        place = compute.open()
        added = added_positives(
            train,
            {"text": item_text_knn, "image": item_image_knn},
            n_users=users.height,
            n_items=item_ids.height,
            config=positives_config(entry_of(context.partition_key), spec),
            compute=place,
        )
        shares = {"n_added": added.height, "share": added.height / train.height}
        return materialized(context, added, metadata={**shares, **compute_metadata(place)})

    return positives


positives = [positives_asset(spec) for spec in VARIANTS.values() if spec.positives is not None]
