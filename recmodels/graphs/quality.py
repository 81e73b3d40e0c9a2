"""Figures of a neighbour table."""

import numpy as np
import polars as pl


def knn_summary(knn: pl.DataFrame, n: int) -> dict[str, float]:
    """
    Return figures of a neighbour table (schema `KNN`) of n nodes: how similar neighbours are and how unevenly chosen.

    Returns
    -------
    dict
        ``n_edges``; over edges between different nodes ``mean_similarity``, ``largest_in_degree``,
        ``share_never_chosen`` (nodes that are nobody's neighbour) and ``share_unknown_similarity``. Without such
        edges, ``n_edges`` alone.
    """
    others = knn.filter(pl.col("src") != pl.col("dst"))
    summary = {"n_edges": float(knn.height)}
    if others.height:
        in_degrees = np.bincount(others["dst"].to_numpy(), minlength=n)
        similarity = others["similarity"].drop_nulls().to_numpy()
        summary |= {
            "mean_similarity": float(similarity.mean()) if similarity.size else 0.0,
            "largest_in_degree": float(in_degrees.max()),
            "share_never_chosen": float((in_degrees == 0).mean()),
            "share_unknown_similarity": others["similarity"].null_count() / others.height,
        }
    return summary
