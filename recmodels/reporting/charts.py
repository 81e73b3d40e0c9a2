"""Small charts as PNG bytes. Nothing here touches matplotlib's global state, so threads and notebooks are safe."""

import io
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


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
    return _png(figure)


def bars_with_spread(names: Sequence[str], means: Sequence[float], spreads: Sequence[float], label: str) -> bytes:
    """Draw one horizontal bar a name with its spread, in the given order from the top."""
    figure, axes = _axes(7.0, 0.5 + 0.32 * len(names))
    positions = np.arange(len(names))[::-1]
    axes.barh(positions, means, xerr=spreads, height=0.65, color="C0", error_kw={"elinewidth": 1, "capsize": 2})
    axes.set_yticks(positions, names)
    axes.set_xlabel(label)
    return _png(figure)


def histogram(values: npt.NDArray[np.int64] | npt.NDArray[np.float64], x_label: str, y_label: str) -> bytes:
    """Draw a histogram with a logarithmic count axis."""
    figure, axes = _axes(4.2, 2.6)
    axes.hist(values, bins=min(40, max(5, int(np.ptp(values)) + 1)) if len(values) else 5, color="C0")
    axes.set_yscale("log")
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    return _png(figure)
