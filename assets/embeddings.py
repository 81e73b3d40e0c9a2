"""Embeddings: profiles and images as vectors, one row an id."""

import dagster as dg
import polars as pl

from assets.support.lineage import materialized
from assets.support.partitions import entry_of
from assets.support.resources import ComputeResource, DataRoot, compute_metadata
from assets.support.stage import stage_asset
from recmodels.data.dump import read_image_embeddings, read_text_features
from recmodels.raw.manifest import RawManifest
from recmodels.settings import text_embedding_settings

TEXT_VERSION = "2"
IMAGE_VERSION = "1"
GROUP = "embeddings"
STORE = "text_embeddings.sqlite"


@stage_asset(
    group_name=GROUP,
    settings=text_embedding_settings,
    kinds={"huggingface", "parquet"},
    code_version=TEXT_VERSION,
)
def item_text_embeddings(
    context: dg.AssetExecutionContext,
    data_root: DataRoot,
    compute: ComputeResource,
    raw_dumps: str,
    item_ids: pl.DataFrame,
    item_profiles: pl.DataFrame,
) -> dg.MaterializeResult[pl.DataFrame]:
    """
    Each item's profile as a vector of the data set's sentence encoder.

    The text features that came with the data set where it brings them.
    """
    imported = read_text_features(RawManifest.parse(raw_dumps), item_ids)
    if not imported.is_empty():
        return materialized(context, imported, metadata={"imported": True})
    return embedded(context, data_root, compute, item_profiles, "item_id")


@stage_asset(
    group_name=GROUP,
    settings=text_embedding_settings,
    kinds={"huggingface", "parquet"},
    code_version=TEXT_VERSION,
)
def user_text_embeddings(
    context: dg.AssetExecutionContext, data_root: DataRoot, compute: ComputeResource, user_profiles: pl.DataFrame
) -> dg.MaterializeResult[pl.DataFrame]:
    """Each user's profile as a vector of the data set's sentence encoder."""
    return embedded(context, data_root, compute, user_profiles, "user_id")


@stage_asset(
    group_name=GROUP,
    kinds={"numpy", "parquet"},
    code_version=IMAGE_VERSION,
)
def item_image_embeddings(
    context: dg.AssetExecutionContext, raw_dumps: str, item_ids: pl.DataFrame
) -> dg.MaterializeResult[pl.DataFrame]:
    """
    The image features that came with the data set; items without an image get the mean, and `present` says so.

    No rows if the data set has no image features.
    """
    table = read_image_embeddings(RawManifest.parse(raw_dumps), item_ids)
    missing = table.height - int(table["present"].sum())
    return materialized(context, table, metadata={"without_image": missing, "modality_present": table.height > 0})


def embedded(
    context: dg.AssetExecutionContext,
    data_root: DataRoot,
    compute: ComputeResource,
    profiles: pl.DataFrame,
    id_column: str,
) -> dg.MaterializeResult[pl.DataFrame]:
    """Return profiles as vectors of the data set's sentence encoder."""
    from recmodels.embeddings.encode import EncoderConfig, embed_table

    place = compute.open()
    result = embed_table(
        profiles,
        id_column=id_column,
        text_column="profile",
        config=EncoderConfig(model=entry_of(context.partition_key).encoder),
        store_path=data_root.cache(STORE),
        progress=lambda done, total: context.log.info(f"{done:,} of {total:,} texts encoded"),
        compute=place,
    )
    return materialized(context, result.table, metadata={**result.stats, **compute_metadata(place)})
