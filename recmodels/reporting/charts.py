"""Small charts as PNG bytes. Nothing here touches matplotlib's global state, so threads and notebooks are safe."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from PIL import Image

from recmodels.reporting.tables import has_spread

COLOURS = 48
"""Charts have few colours; a palette makes them three times smaller than true colour."""
LEGEND_INSIDE = 6
"""Most models whose names fit beside their curves."""
SHORTEST_BAR = 0.6
"""Where a logarithmic axis of counts begins, so that a bar of 1 has a height."""


def png_bytes(figure: Figure) -> bytes:
    """Return a figure as a PNG image; equal figures give equal bytes."""
    drawn, image = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=110, metadata={"Software": None})
    Image.open(drawn).convert("RGB").quantize(COLOURS).save(image, format="png", optimize=True)
    return image.getvalue()


def _panels(n: int, width: float, height: float, **options: Any) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), layout="constrained")
    panels = figure.subplots(1, n, squeeze=False, **options)[0]
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
    return figure, panels


def horizontal_bars(
    labels: Sequence[str], values: npt.ArrayLike, width: float, height: float, **options: Any
) -> tuple[Figure, Any, np.ndarray]:
    """Return a figure with a bar a label, the first at the top, its axes, and where the bars are."""
    figure, (axes,) = _panels(1, width, height + 0.3 * len(labels))
    positions = np.arange(len(labels))[::-1]
    axes.barh(positions, values, height=0.65, color="C0", **options)
    axes.set_yticks(positions, labels)
    return figure, axes, positions


def training_curves(histories: Mapping[str, Sequence[tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]]]) -> bytes:
    """
    Draw validation Recall@20 over epochs, and mark the epoch whose parameters were kept: the first of the best.

    Parameters
    ----------
    histories
        Per model the runs (one a seed), each as epochs and values of equal length, at least one.
    """
    many = len(histories) > LEGEND_INSIDE
    figure, (axes,) = _panels(1, 8.4 if many else 7.0, 3.4)
    for index, (model, runs) in enumerate(histories.items()):
        colour, style = f"C{index % 10}", ("-", "--", ":", "-.")[index // 10 % 4]
        for run, (epochs, values) in enumerate(runs):
            label = model if run == 0 else None
            axes.plot(epochs, values, color=colour, linestyle=style, alpha=0.8, linewidth=1.2, label=label)
            kept = int(np.argmax(values))
            axes.plot(epochs[kept], values[kept], "o", color=colour, markersize=6, markeredgecolor="w", zorder=3)
    axes.plot([], [], "o", color="0.4", markersize=5, label="kept epoch")
    axes.set(xlabel="epoch", ylabel="validation Recall@20")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if many:
        figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    else:
        axes.legend(frameon=False, fontsize=8)
    return png_bytes(figure)


def tuning_history(tries: pl.DataFrame) -> bytes:
    """Draw validation Recall@20 of a search's tries (schema `recmodels.schemas.tables.TRIES`), and the best so far."""
    figure, (axes,) = _panels(1, 7.0, 3.0)
    measured = tries.filter(pl.col("valid_recall").is_not_null())
    for index, (state, marker) in enumerate({"complete": "o", "pruned": "x", "unfinished": "+"}.items()):
        of_state = measured.filter(pl.col("state") == state)
        if of_state.height:
            axes.plot(
                of_state["number"], of_state["valid_recall"], marker, color=f"C{index}", markersize=5, label=state
            )
    complete = measured.filter(pl.col("state") == "complete")
    axes.step(complete["number"], complete["valid_recall"].cum_max(), where="post", color="0.6", label="best so far")
    axes.set(xlabel="try", ylabel="validation Recall@20")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, fontsize=8)
    return png_bytes(figure)


def tuning_importances(importances: Mapping[str, float]) -> bytes:
    """Draw how much each setting mattered, the first at the top."""
    figure, axes, _ = horizontal_bars(list(importances), list(importances.values()), 5.6, 0.7)
    axes.set_xlabel("importance")
    return png_bytes(figure)


def leaderboard_bars(board: pl.DataFrame) -> bytes:
    """Draw test Recall@20 of each model of a leaderboard in its order from the top, with its spread if it has any."""
    recall = board.filter((pl.col("metric") == "recall") & (pl.col("k") == 20))
    means = recall["mean"].to_numpy()
    figure, axes, positions = horizontal_bars(recall["model"].to_list(), means, 5.6, 0.7)
    spreads = np.array([spread if has_spread(spread) else np.nan for spread in recall["std"]], dtype=np.float64)
    spread = np.isfinite(spreads)
    if spread.any():
        axes.errorbar(
            means[spread], positions[spread], xerr=spreads[spread], fmt="none", color="k", elinewidth=1, capsize=2
        )
    axes.set_xlabel("test Recall@20")
    return png_bytes(figure)


def rows_of_users_and_items(interactions: pl.DataFrame, rows: str = "rows") -> bytes:
    """Draw how many rows users have and how many items have, as two histograms with logarithmic counts."""
    counts = {kind: interactions.group_by(f"{kind}_id").len()["len"].to_numpy() for kind in ("user", "item")}
    return side_by_side_histograms(
        {f"{rows} of one {kind}": {f"{kind}s": values.astype(np.float64)} for kind, values in counts.items()}
    )


def recall_by_group(metrics: pl.DataFrame) -> bytes:
    """
    Draw Recall@20 by the activity of users and by the popularity of what they bought.

    Parameters
    ----------
    metrics
        Columns grouping, group, metric, k and value; groups in the order in which they are to stand.
    """
    recall = metrics.filter((pl.col("metric") == "recall") & (pl.col("k") == 20))
    labels = {"user_activity": "training rows of the user", "item_popularity": "popularity of the test item"}
    figure, panels = _panels(len(labels), 7.0, 2.6, sharey=True)
    for axes, (grouping, label) in zip(panels, labels.items(), strict=True):
        rows = recall.filter(pl.col("grouping") == grouping)
        axes.bar(rows["group"].to_list(), rows["value"].to_list(), width=0.65, color="C0")
        axes.set_xlabel(label)
    panels[0].set_ylabel("test Recall@20")
    return png_bytes(figure)


def knn_histograms(knn: pl.DataFrame, n: int) -> bytes:
    """Draw how often n nodes are chosen as neighbours (schema `KNN`) by others, and how similar neighbours are."""
    others = knn.filter(pl.col("src") != pl.col("dst"))
    in_degrees = np.bincount(others["dst"].to_numpy(), minlength=n)
    return side_by_side_histograms(
        {
            "in-degree": {"nodes": in_degrees.astype(np.float64)},
            "cosine similarity": {"edges": others["similarity"].drop_nulls().to_numpy().astype(np.float64)},
        }
    )


def activity_histograms(interactions: pl.DataFrame, added: pl.DataFrame, n_users: int, n_items: int) -> bytes:
    """Draw the activity of users and the popularity of items by training pairs, before and after some were added."""
    panels: dict[str, dict[str, np.ndarray]] = {}
    for label, column, n in (("items of a user", "user_id", n_users), ("users of an item", "item_id", n_items)):
        before = np.bincount(interactions[column].to_numpy(), minlength=n)
        after = before + np.bincount(added[column].to_numpy(), minlength=n)
        panels[label] = {"before": before.astype(np.float64), "after": after.astype(np.float64)}
    return side_by_side_histograms(panels)


def side_by_side_histograms(panels: Mapping[str, Mapping[str, np.ndarray]]) -> bytes:
    """
    Draw one histogram a panel, with logarithmic counts.

    Parameters
    ----------
    panels
        Label of the horizontal axis to the series drawn over it: name to values. A panel with a single series names
        its vertical axis after it; with several, a legend does.
    """
    figure, all_axes = _panels(len(panels), 4.2 * len(panels), 2.8)
    for axes, (label, series) in zip(all_axes, panels.items(), strict=True):
        values = np.concatenate(list(series.values()))
        bins = histogram_bins(values)
        for name, data in series.items():
            axes.hist(data, bins=bins, histtype="step" if len(series) > 1 else "stepfilled", label=name)
        if values.size:
            axes.set_yscale("log")
            axes.set_ylim(bottom=SHORTEST_BAR)
            axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axes.yaxis.set_major_formatter("{x:,.0f}")
            axes.yaxis.set_minor_formatter(NullFormatter())
        if np.all(values == np.rint(values)):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel(label)
        if len(series) > 1:
            axes.set_ylabel("count")
            axes.legend(frameon=False)
        else:
            axes.set_ylabel(next(iter(series)))
    return png_bytes(figure)


def histogram_bins(values: np.ndarray) -> np.ndarray:
    """
    Return the edges of about 40 bins.

    Over whole numbers each bin covers the same number of them and its edges lie between them, so that none stays empty
    and a bar of a single number stands on it.

    Examples
    --------
    >>> histogram_bins(np.array([3, 1, 2, 1]))
    array([0.5, 1.5, 2.5, 3.5])
    """
    if not values.size:
        return np.array([0.0, 1.0])
    low, high = float(values.min()), float(values.max())
    if np.all(values == np.rint(values)):
        step = max(1, int(np.ceil((high - low + 1) / 40)))
        return np.arange(low - 0.5, high + 0.5 + step, step)
    return np.linspace(low, high if high > low else low + 1, 41)
