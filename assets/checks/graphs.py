"""Checks of neighbour tables."""

import dagster as dg
import polars as pl

from assets.checks.declare import Verdict, table_check


def _well_formed(name: str, ids: str) -> dg.AssetChecksDefinition:
    @table_check(name, "Ids are in range, every row has the same number of distinct neighbours.", also=[ids])
    def equal_degrees(knn: pl.DataFrame, known: pl.DataFrame) -> Verdict:
        if knn.is_empty():
            return True, {"modality_present": False}
        degrees = knn.group_by("src").len()["len"]
        out_of_range = knn.filter(~pl.all_horizontal(pl.col("src", "dst").is_between(0, known.height - 1))).height
        repeated = knn.height - knn.select("src", "dst").n_unique()
        passed = degrees.n_unique() == 1 and len(degrees) == known.height and out_of_range == 0 and repeated == 0
        return passed, {
            "smallest_degree": int(degrees.min()),  # type: ignore[arg-type]
            "largest_degree": int(degrees.max()),  # type: ignore[arg-type]
            "rows_without_neighbours": known.height - len(degrees),
            "ids_out_of_range": out_of_range,
            "repeated_edges": repeated,
            "share_with_itself": knn.filter(pl.col("src") == pl.col("dst")).height / known.height,
        }

    return equal_degrees


CHECKS = [
    _well_formed("item_text_knn", "item_ids"),
    _well_formed("item_image_knn", "item_ids"),
    _well_formed("user_knn", "users"),
]
