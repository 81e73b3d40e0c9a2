"""Checks of embeddings."""

import dagster as dg
import numpy as np
import polars as pl

from assets.checks.declare import Verdict, table_check


def _usable(name: str, id_column: str, ids: str) -> dg.AssetChecksDefinition:
    @table_check(name, "Every id has one finite vector, in order; or the modality is absent as a whole.", also=[ids])
    def finite_vector_an_id(embeddings: pl.DataFrame, known: pl.DataFrame) -> Verdict:
        if embeddings.is_empty():
            return True, {"modality_present": False}
        norms = np.linalg.norm(embeddings["embedding"].to_numpy(), axis=1)
        passed = embeddings[id_column].equals(known[id_column]) and bool(np.isfinite(norms).all())
        return passed, {
            "modality_present": True,
            "width": embeddings.schema["embedding"].shape[0],  # type: ignore[attr-defined]
            "norm_min": float(norms.min()),
            "norm_max": float(norms.max()),
        }

    return finite_vector_an_id


CHECKS = [
    _usable("item_text_embeddings", "item_id", "item_ids"),
    _usable("item_image_embeddings", "item_id", "item_ids"),
    _usable("user_text_embeddings", "user_id", "users"),
]
