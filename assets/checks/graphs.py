"""Checks of neighbour tables."""

import dagster as dg
import polars as pl

from assets.checks.declare import Verdict, table_check
from recmodels.graphs.quality import SelfEdges, knn_violations


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


CHECKS = [
    # Imported item tables may have lost edges from an item to itself.
    _well_formed("item_text_knn", "item_ids", "allowed"),
    _well_formed("item_image_knn", "item_ids", "allowed"),
    _well_formed("user_knn", "users", "required"),
]
