"""Pictures of studies: rows with their spread and published figures, and sweeps of settings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from recmodels.reporting.charts import horizontal_bars, png_bytes

COLUMNS = 2
"""Panels of sweeps side by side."""


@dataclass(frozen=True)
class SweepPanel:
    """A plot of one figure over settings."""

    title: str
    """What is written above it."""
    figure: str
    """What is written at its side."""
    points: Sequence[tuple[Mapping[str, Any], float]]
    """The values of the settings by dotted name, the first of which runs along the axis, and the figure there."""


def study_bars(figures: pl.DataFrame, figure: str) -> bytes:
    """
    Draw one figure, such as ``recall@20``, of each row of a study from the top, with its spread.

    A mark shows where the published one is. `figures` are of schema `recmodels.schemas.tables.STUDY`.
    """
    rows = figures.filter(pl.col("figure") == figure)
    shown = {"xerr": rows["std"].fill_null(0).to_numpy(), "ecolor": "k", "label": "measured"}
    drawn, axes, places = horizontal_bars(rows["title"].to_list(), rows["mean"].to_numpy(), 7.0, 0.9, **shown)
    published = rows["published"].to_numpy()
    if not np.isnan(published.astype(np.float64)).all():
        axes.plot(published, places, "|", color="C3", markersize=14, markeredgewidth=2, label="published")
        axes.legend(frameon=False, fontsize=8)
    axes.set_xlabel(figure)
    return png_bytes(drawn)


def sweeps(panels: Sequence[SweepPanel]) -> bytes:
    """Draw sweeps side by side: the first setting along the axis, a line for each combination of the others."""
    n_rows = -(-len(panels) // COLUMNS)
    drawn = Figure(figsize=(8.4, 2.8 * n_rows), layout="constrained")
    every = drawn.subplots(n_rows, COLUMNS, squeeze=False).ravel()
    for axes, panel in zip(every, panels, strict=False):
        _panel(axes, panel)
    for axes in every[len(panels) :]:
        axes.set_axis_off()
    return png_bytes(drawn)


def _panel(axes: Axes, panel: SweepPanel) -> None:
    along = next(iter(panel.points[0][0]))
    lines: dict[str, list[tuple[float, float]]] = {}
    for values, figure in panel.points:
        others = ", ".join(f"{_short(name)} {value}" for name, value in values.items() if name != along)
        lines.setdefault(others, []).append((float(values[along]), figure))
    for label, points in lines.items():
        axes.plot(*np.array(sorted(points)).T, marker="o", markersize=4, linewidth=1.2, label=label or None)
    axes.set_title(panel.title, fontsize=9)
    axes.set(xlabel=_short(along), ylabel=f"validation {panel.figure}")
    axes.spines[["top", "right"]].set_visible(False)
    if any(lines):
        axes.legend(frameon=False, fontsize=7)


def _short(name: str) -> str:
    return name.rpartition(".")[2]
