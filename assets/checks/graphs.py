"""Checks of neighbour tables."""

import dagster as dg
import polars as pl

from assets.checks.declare import Verdict, recorded_check, table_check
from assets.graphs import SAMPLED_RECALL
from recmodels.graphs.quality import SelfEdges, knn_violations

MIN_RECALL = 0.99


def _well_formed(name: str, ids: str, self_edges: SelfEdges) -> dg.AssetChecksDefinition:
    @table_check(
        name,
        "Ids are in range; every row has the same number of distinct neighbours, the most similar first.",
        also=[ids],
    )
    def sound_neighbours(knn: pl.DataFrame, known: pl.DataFrame) -> Verdict:
        violations = knn_violations(knn, known.height, self_edges=self_edges)
        return not any(violations.values()), {**violations, "modality_present": not knn.is_empty()}

    return sound_neighbours


def _approximate(name: str) -> dg.AssetChecksDefinition:
    @recorded_check(name, f"An approximate search found {MIN_RECALL:.0%} of the true neighbours.", blocking=True)
    def sampled_recall(records: list[dg.AssetMaterialization]) -> Verdict:
        recall = records[0].metadata.get(SAMPLED_RECALL)
        if recall is None:
            return True, {"search": "exact or imported"}
        return float(str(recall.value)) >= MIN_RECALL, {"recall": recall}

    return sampled_recall


CHECKS = [
    *(_approximate(name) for name in ("item_text_knn", "item_image_knn", "user_knn")),
    # Imported item tables may have lost edges from an item to itself.
    _well_formed("item_text_knn", "item_ids", "allowed"),
    _well_formed("item_image_knn", "item_ids", "allowed"),
    _well_formed("user_knn", "users", "required"),
]
