"""Checks of neighbour tables."""

import dagster as dg

from assets.checks.declare import Verdict, recorded_check
from assets.graphs import SAMPLED_RECALL

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


CHECKS = [_approximate(name) for name in ("item_text_knn", "item_image_knn", "user_knn")]
