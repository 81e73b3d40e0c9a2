"""What a neighbour table must satisfy, and how it looks: violations, figures and histograms."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import polars as pl

SelfEdges = Literal["required", "allowed", "excluded"]


def knn_violations(
    knn: pl.DataFrame, n: int, k: int | None = None, *, self_edges: SelfEdges = "required"
) -> dict[str, int]:
    """
    Count what is wrong with a neighbour table.

    Parameters
    ----------
    knn
        Table of schema `recmodels.data.schemas.KNN`. No rows (the modality is absent) means no violation.
    n
        Number of nodes.
    k
        Neighbours every node must have, or all other nodes if there are fewer. None accepts any number, so long as it
        is the same for all nodes.
    self_edges
        Whether each node must be, may be or must not be its own neighbour. Imported tables may have lost some.

    Returns
    -------
    dict
        Violation to how often it occurs; all 0 for a sound table. ``ids_out_of_range``, ``repeated_edges``,
        ``wrong_degrees`` (nodes), ``wrong_ranks`` (rows whose rank is not their place from 0),
        ``wrong_order`` (rows more similar than the one before), ``similarities_out_of_range`` (NaN or outside [-1, 1];
        null is an unknown one and allowed), ``wrong_self_edges`` (nodes).
    """
    found: dict[str, int] = {
        "ids_out_of_range": 0,
        "repeated_edges": 0,
        "wrong_degrees": 0,
        "wrong_ranks": 0,
        "wrong_order": 0,
        "similarities_out_of_range": 0,
        "wrong_self_edges": 0,
    }
    if knn.is_empty():
        return found
    known = pl.all_horizontal(pl.col("src", "dst").is_between(0, n - 1))
    found["ids_out_of_range"] = knn.filter(~known).height
    knn = knn.filter(known).sort("src", "rank", maintain_order=True)
    found["repeated_edges"] = knn.height - knn.select("src", "dst").n_unique()
    degrees = np.bincount(knn["src"].to_numpy(), minlength=n)
    most_self = 0 if self_edges == "excluded" else 1
    wanted = int(np.median(degrees)) if k is None else min(k, n - 1 + most_self)
    found["wrong_degrees"] = int((degrees != wanted).sum())
    place = np.arange(knn.height) - np.repeat(np.cumsum(degrees) - degrees, degrees)
    found["wrong_ranks"] = int((knn["rank"].to_numpy() != place).sum())
    before = pl.col("similarity").shift(1).over("src")
    found["wrong_order"] = knn.filter((pl.col("similarity") > before) & (pl.col("src") != pl.col("dst"))).height
    # A comparison with NaN is not false in polars, where NaN is the largest number.
    found["similarities_out_of_range"] = knn.filter(
        pl.col("similarity").is_nan() | ~pl.col("similarity").is_between(-1.000001, 1.000001)
    ).height
    loops = np.bincount(knn.filter(pl.col("src") == pl.col("dst"))["src"].to_numpy(), minlength=n)
    if self_edges == "required":
        found["wrong_self_edges"] = int((loops == 0).sum())
    elif self_edges == "excluded":
        found["wrong_self_edges"] = int((loops > 0).sum())
    return found


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
