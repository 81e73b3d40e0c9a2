"""Small charts as PNG bytes. Nothing here touches matplotlib's global state, so threads and notebooks are safe."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from recmodels.graphs.quality import side_by_side_histograms
from recmodels.pictures import png_bytes


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def training_curves(histories: Mapping[str, Sequence[tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]]]) -> bytes:
    """
    Draw validation Recall@20 over epochs.

    Parameters
    ----------
    histories
        Per model the runs (one a seed), each as epochs and values of equal length.
    """
    figure, axes = _axes(7.0, 3.2)
    for index, (model, runs) in enumerate(histories.items()):
        for run, (epochs, values) in enumerate(runs):
            axes.plot(
                epochs, values, color=f"C{index % 10}", alpha=0.8, linewidth=1.2, label=model if run == 0 else None
            )
    axes.set_xlabel("epoch")
    axes.set_ylabel("validation Recall@20")
    axes.legend(frameon=False, fontsize=8)
    return png_bytes(figure)


def leaderboard_bars(board: pl.DataFrame) -> bytes:
    """Draw test Recall@20 of each model of a leaderboard with its standard deviation, in its order from the top."""
    recall = board.filter((pl.col("metric") == "recall") & (pl.col("k") == 20))
    figure, axes = _axes(7.0, 0.5 + 0.32 * recall.height)
    positions = np.arange(recall.height)[::-1]
    axes.barh(
        positions,
        recall["mean"].to_list(),
        xerr=recall["std"].fill_null(0.0).to_list(),
        height=0.65,
        color="C0",
        error_kw={"elinewidth": 1, "capsize": 2},
    )
    axes.set_yticks(positions, recall["model"].to_list())
    axes.set_xlabel("test Recall@20")
    return png_bytes(figure)


def histogram(values: npt.NDArray[np.int64] | npt.NDArray[np.float64], x_label: str, y_label: str) -> bytes:
    """Draw a histogram with a logarithmic count axis."""
    figure, axes = _axes(4.2, 2.6)
    axes.hist(values, bins=min(40, max(5, int(np.ptp(values)) + 1)) if len(values) else 5, color="C0")
    axes.set_yscale("log")
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    return png_bytes(figure)


def rows_of_users_and_items(interactions: pl.DataFrame) -> bytes:
    """Draw how many rows users have and how many items have, as two histograms with logarithmic counts."""
    counts = {kind: interactions.group_by(f"{kind}_id").len()["len"].to_numpy() for kind in ("user", "item")}
    return side_by_side_histograms(
        {f"rows of one {kind}": {f"{kind}s": values.astype(np.float64)} for kind, values in counts.items()}
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
    figure = Figure(figsize=(7.0, 2.6), layout="constrained")
    panels = figure.subplots(1, len(labels), sharey=True)
    for axes, (grouping, label) in zip(panels, labels.items(), strict=True):
        rows = recall.filter(pl.col("grouping") == grouping)
        axes.bar(rows["group"].to_list(), rows["value"].to_list(), width=0.65, color="C0")
        axes.set_xlabel(label)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("test Recall@20")
    return png_bytes(figure)
