"""How a neighbour table looks: figures and histograms."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl


def knn_summary(knn: pl.DataFrame, n: int) -> dict[str, float]:
    """
    Return figures of a neighbour table: how similar neighbours are and how unevenly they are chosen.

    Parameters
    ----------
    knn
        Table of schema `recmodels.data.schemas.KNN`.
    n
        Number of nodes.

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


def knn_histograms(knn: pl.DataFrame, n: int) -> bytes:
    """
    Draw how often nodes are chosen as neighbours and how similar neighbours are.

    Parameters
    ----------
    knn
        Table of schema `recmodels.data.schemas.KNN`; edges from a node to itself are left out.
    n
        Number of nodes.

    Returns
    -------
    bytes
        A PNG image of two histograms with logarithmic counts.
    """
    others = knn.filter(pl.col("src") != pl.col("dst"))
    in_degrees = np.bincount(others["dst"].to_numpy(), minlength=n)
    return side_by_side_histograms(
        {
            "in-degree": {"nodes": in_degrees.astype(np.float64)},
            "cosine similarity": {"edges": others["similarity"].drop_nulls().to_numpy().astype(np.float64)},
        }
    )


def side_by_side_histograms(panels: Mapping[str, Mapping[str, np.ndarray]]) -> bytes:
    """
    Draw one histogram a panel.

    Parameters
    ----------
    panels
        Label of the horizontal axis to the series drawn over it: name to values. A panel with a single series names
        its vertical axis after it; with several, a legend does.

    Returns
    -------
    bytes
        A PNG image; counts are on a logarithmic axis.
    """
    from matplotlib.figure import Figure

    from recmodels.pictures import png_bytes

    figure = Figure(figsize=(4.2 * len(panels), 2.8), layout="constrained")
    all_axes: Any = figure.subplots(1, len(panels), squeeze=False)
    for axes, (label, series) in zip(all_axes[0], panels.items(), strict=True):
        values = np.concatenate(list(series.values()))
        bins = _bins(values)
        for name, data in series.items():
            axes.hist(data, bins=bins, histtype="step" if len(series) > 1 else "stepfilled", label=name)
        if values.size:
            axes.set_yscale("log")
        axes.set_xlabel(label)
        axes.spines[["top", "right"]].set_visible(False)
        if len(series) > 1:
            axes.set_ylabel("count")
            axes.legend(frameon=False)
        else:
            axes.set_ylabel(next(iter(series)))
    return png_bytes(figure)


def _bins(values: np.ndarray) -> np.ndarray:
    """Return about 40 bins; over whole numbers each covers the same number of them, so that none stays empty."""
    if not values.size:
        return np.array([0.0, 1.0])
    low, high = float(values.min()), float(values.max())
    if np.all(values == np.rint(values)):
        step = max(1, int(np.ceil((high - low + 1) / 40)))
        return np.arange(low - 0.5, high + 0.5 + step, step)
    return np.linspace(low, high if high > low else low + 1, 41)
