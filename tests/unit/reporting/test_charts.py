"""What is drawn, read off the figure before it becomes a picture."""

from typing import Any

import numpy as np
import polars as pl
import pytest

from recmodels.reporting import charts


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that are drawn."""
    figures: list[Any] = []

    def keep(figure: Any) -> bytes:
        figures.append(figure)
        return b""

    monkeypatch.setattr(charts, "png_bytes", keep)
    return figures


def test_the_kept_epoch_of_every_run_is_marked(drawn: list[Any]) -> None:
    epochs = np.arange(4)
    runs = {"one": [(epochs, np.array([0.1, 0.3, 0.3, 0.2])), (epochs, np.array([0.4, 0.1, 0.1, 0.1]))]}
    charts.training_curves(runs)
    marks = [line for line in drawn[0].axes[0].lines if line.get_marker() == "o" and len(line.get_xdata())]
    assert [(mark.get_xdata()[0], mark.get_ydata()[0]) for mark in marks] == [(1, 0.3), (0, 0.4)]


def test_many_curves_are_told_apart_and_named_outside_of_the_axes(drawn: list[Any]) -> None:
    run = [(np.arange(3), np.array([0.1, 0.2, 0.15]))]
    charts.training_curves({f"model {index}": run for index in range(20)})
    (figure,) = drawn
    curves = [line for line in figure.axes[0].lines if line.get_marker() != "o"]
    assert len({(line.get_color(), line.get_linestyle()) for line in curves}) == 20
    assert [text.get_text() for text in figure.legends[0].texts][:2] == ["model 0", "model 1"]


def test_only_rows_that_have_a_spread_get_an_error_bar(drawn: list[Any]) -> None:
    board = pl.DataFrame(
        {"model": ["a", "b", "c"], "metric": "recall", "k": 20, "mean": [0.3, 0.2, 0.1], "std": [0.05, 0.0, None]}
    )
    charts.leaderboard_bars(board)
    (bars,) = [container for container in drawn[0].axes[0].containers if hasattr(container, "has_xerr")]
    (segments,) = [collection.get_segments() for collection in bars.lines[2]]
    assert [segment.tolist() for segment in segments] == [[[pytest.approx(0.25), 2.0], [pytest.approx(0.35), 2.0]]]


def test_a_board_without_any_spread_has_no_error_bars(drawn: list[Any]) -> None:
    board = pl.DataFrame({"model": ["a"], "metric": "recall", "k": 20, "mean": [0.3], "std": [None]})
    charts.leaderboard_bars(board.cast({"std": pl.Float64}))
    assert not [container for container in drawn[0].axes[0].containers if hasattr(container, "has_xerr")]


@pytest.mark.parametrize("largest", [1, 3, 39, 40, 5000])
def test_bars_over_whole_numbers_stand_between_halves_and_each_covers_as_many(largest: int) -> None:
    values = np.random.default_rng(0).integers(1, largest + 1, 300)
    edges = charts.histogram_bins(values)
    assert len(edges) <= 41 + 1
    assert np.all(edges % 1 == 0.5)
    assert len(set(np.diff(edges))) == 1
    assert edges[0] < values.min() <= values.max() < edges[-1]
    if values.max() - values.min() < 40:
        assert (edges[1:] + edges[:-1])[: np.ptp(values) + 1].tolist() == [
            2 * number for number in range(values.min(), values.max() + 1)
        ]


def test_a_bar_of_one_has_a_height_on_the_logarithmic_axis(drawn: list[Any]) -> None:
    rows = pl.DataFrame({"user_id": [0, 0, 0, 1, 2, 2], "item_id": [0, 1, 2, 0, 0, 1]})
    charts.rows_of_users_and_items(rows)
    for axes in drawn[0].axes:
        assert axes.get_yscale() == "log"
        assert 0 < axes.get_ylim()[0] < 1
        ticks = axes.xaxis.get_majorticklocs()
        assert np.all(ticks == np.rint(ticks))
