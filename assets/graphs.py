"""Graphs: the nearest neighbours of items in each modality, and of users by profile."""

from collections.abc import Sequence
from typing import Any, Literal

import dagster as dg
import polars as pl

from assets.support.checks import Verdict, recorded_check
from assets.support.lineage import inline_image, inline_table, materialized
from assets.support.partitions import entry_of
from assets.support.resources import ComputeResource, DataRoot, compute_metadata
from assets.support.stage import stage_asset
from assets.support.titles import item_titles
from recmodels.data.dump import read_imported_knn
from recmodels.raw.formats.base import Role
from recmodels.raw.manifest import RawManifest
from recmodels.reporting.tables import neighbour_examples
from recmodels.schemas.tables import KNN
from recmodels.settings import graph_settings

CODE_VERSION = "1"
GROUP = "graphs"
SAMPLED_RECALL = "sampled_recall"
"""Metadata entry of an approximate table: the share of true neighbours it holds, measured on a sample of rows."""


def _item_knn(
    name: str, embeddings: str, role: Literal[Role.TEXT_KNN, Role.IMAGE_KNN], description: str
) -> dg.AssetsDefinition:
    @stage_asset(
        name=name,
        group_name=GROUP,
        settings=graph_settings,
        kinds={"pytorch", "parquet"},
        code_version=CODE_VERSION,
        ins={"embeddings": dg.AssetIn(embeddings)},
        description=description,
    )
    def item_knn(
        context: dg.AssetExecutionContext,
        data_root: DataRoot,
        compute: ComputeResource,
        raw_dumps: str,
        item_ids: pl.DataFrame,
        embeddings: pl.DataFrame,
    ) -> dg.MaterializeResult[pl.DataFrame]:
        imported = read_imported_knn(RawManifest.parse(raw_dumps), role, item_ids)
        return neighbours_of(context, compute, embeddings, imported, item_titles(context, data_root, item_ids))

    return item_knn


item_text_knn = _item_knn(
    "item_text_knn",
    "item_text_embeddings",
    Role.TEXT_KNN,
    "Nearest neighbours of each item by the cosine of text embeddings, itself included.\n\n"
    "An import's own table where it brings one.",
)
item_image_knn = _item_knn(
    "item_image_knn",
    "item_image_embeddings",
    Role.IMAGE_KNN,
    "Nearest neighbours of each item by the cosine of image features; no rows where there are none.",
)


@stage_asset(
    group_name=GROUP,
    settings=graph_settings,
    kinds={"pytorch", "parquet"},
    code_version=CODE_VERSION,
)
def user_knn(
    context: dg.AssetExecutionContext, compute: ComputeResource, user_text_embeddings: pl.DataFrame
) -> dg.MaterializeResult[pl.DataFrame]:
    """Nearest neighbours of each user by the cosine of profile embeddings, itself included."""
    return neighbours_of(context, compute, user_text_embeddings)


def neighbours_of(
    context: dg.AssetExecutionContext,
    compute: ComputeResource,
    embeddings: pl.DataFrame,
    imported: pl.DataFrame | None = None,
    titles: Sequence[str] = (),
) -> dg.MaterializeResult[pl.DataFrame]:
    """Return the nearest neighbours by the cosine of embeddings, or the table that came with the data set."""
    from recmodels.graphs.knn import knn_recall, knn_table
    from recmodels.graphs.quality import knn_summary
    from recmodels.reporting.charts import knn_histograms

    came_with_data = False
    measured: dict[str, Any] = {}
    if imported is not None and not imported.is_empty():
        came_with_data, table = True, imported
    elif embeddings.is_empty():
        table = pl.DataFrame(schema=KNN)
    else:
        entry = entry_of(context.partition_key)
        vectors = embeddings["embedding"].to_numpy()
        place = compute.open()
        table = knn_table(vectors, entry.knn_k, index=entry.knn_index, compute=place)
        measured |= compute_metadata(place)
        if entry.knn_index != "exact":
            measured[SAMPLED_RECALL] = knn_recall(table, vectors)
    n = table["src"].n_unique()
    return materialized(
        context,
        table,
        metadata={
            **({"examples": inline_table(neighbour_examples(table, titles))} if titles else {}),
            "histograms": inline_image(knn_histograms(table, n)),
            "imported": came_with_data,
            "modality_present": not table.is_empty(),
            **knn_summary(table, n),
            **measured,
        },
    )


MIN_RECALL = 0.99


def _approximate(name: str) -> dg.AssetChecksDefinition:
    @recorded_check(name, f"An approximate search found {MIN_RECALL:.0%} of the true neighbours.", blocking=True)
    def sampled_recall(records: list[dg.AssetMaterialization]) -> Verdict:
        entry = records[0].metadata.get(SAMPLED_RECALL)
        if entry is None:
            return Verdict({"search": "exact or imported"})
        recall = float(str(entry.value))
        if recall >= MIN_RECALL:
            return Verdict({"recall": recall})
        return Verdict(
            {"recall": recall},
            f"The search found {recall:.2%} of the true neighbours of a sample of rows, expected at least "
            f"{MIN_RECALL:.0%}; of every 100 neighbours {100 * (1 - recall):.1f} are others. Set knn_index of the data "
            "set to exact or hnsw in the catalogue.",
        )

    return sampled_recall


recall_checks = [_approximate(name) for name in ("item_text_knn", "item_image_knn", "user_knn")]
