"""That costs are measured as they are, and that docs/scale.md says what was measured and what follows."""

import json
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.scale import STAGES, Done, Stage, measured
from benchmarks.scale_page import DOCS, SIZES, extrapolated, rendered, seconds, significant, slopes, unit_costs

FIGURES: dict[str, float] = json.loads((DOCS / "scale.json").read_text())


def made_up(**changes: float) -> dict[str, float]:
    """Figures in which a row adds 2 bytes and a unit 3 us to what every problem needs."""
    figures: dict[str, float] = {}
    for name in STAGES:
        for size, n in (("small", 1e6), ("large", 1e7)):
            parts = {"rows": n, "units": n, "bytes": 5e6 + 2 * n, "core_seconds": 4 + 3e-6 * n}
            figures |= {f"{name}_{size}_{part}": value for part, value in parts.items()}
    return figures | changes


def test_the_tables_of_the_page_are_what_the_measurements_give() -> None:
    page = (DOCS / "scale.md").read_text()
    assert rendered(page, FIGURES) == page, "run `python -m benchmarks.scale_page`"
    changed = {**FIGURES, "split_large_bytes": 3 * FIGURES["split_large_bytes"]}
    assert rendered(page, changed) != page


def test_a_page_without_a_place_for_a_table_is_refused() -> None:
    with pytest.raises(ValueError, match="unit costs"):
        rendered("# Scale\n", FIGURES)


def test_the_sizes_that_were_measured_are_far_apart() -> None:
    for name in STAGES:
        assert FIGURES[f"{name}_large_rows"] > 7 * FIGURES[f"{name}_small_rows"]  # repeated pairs count once


def test_what_every_problem_needs_is_no_cost_of_a_row() -> None:
    of_row, of_unit = slopes(made_up(), "split")
    assert (of_row, of_unit) == (pytest.approx(2), pytest.approx(3e-6))


def test_costs_are_multiplied_by_what_a_data_set_has() -> None:
    rows = {line.split(" | ")[0].strip("| "): line for line in extrapolated(made_up()).splitlines()}
    largest = {title: line.split(" | ")[-1].strip(" |") for title, line in rows.items()}
    assert rows["parsing"].split(" | ")[1] == "< 0.01 GB, < 0.01 h"  # 1e6 x 2 bytes, x 3 us
    assert list(SIZES)[-1] == "571 million"
    assert largest["parsing"] == "1.1 GB, 0.48 h"  # 571e6 x 2 bytes, x 3 us
    assert largest["embeddings of users and items"] == "160 GB, 0.085 h"  # 102e6 x 4 x 384 bytes, x 3 us
    assert largest["exact neighbours of items"] == "0.096 GB, 1,900,000 h"  # 48e6 x 2 bytes, squared x 3 us
    assert largest["transport, 10 false negatives a training row"] == "9.1 GB, 3.8 h"  # 10 x 0.8 x 571e6
    assert largest["an epoch of LightGCN, 58 steps"] == "0.2 GB, 22 h"  # 102e6 x 2; 58 x 0.8 x 571e6 x 3 us
    assert largest["full ranking"] == "0.096 GB, 2,200,000 h"  # 54e6 x 48e6 x 3 us


def test_the_table_of_costs_shows_both_sizes() -> None:
    line = next(line for line in unit_costs(made_up()).splitlines() if "5-core" in line)
    for shown in ("1,000,000 and 10,000,000 interactions", "7 and 25", "2 an interaction", "7 and 34", "3 us"):
        assert shown in line


@pytest.mark.parametrize(
    ("value", "shown"), [(7.3e-9, "7.3 ns"), (4.56e-7, "460 ns"), (1e-6, "1 us"), (0.0731, "73 ms"), (2.2, "2.2 s")]
)
def test_times_have_the_unit_that_suits_them(value: float, shown: str) -> None:
    assert seconds(value) == shown


def test_figures_have_two_digits() -> None:
    assert [significant(value) for value in (0.0, 0.0234, 12.6, 1_234_567.0)] == ["0", "0.023", "13", "1,200,000"]


def test_bytes_and_core_seconds_are_those_of_the_work() -> None:
    def wait_and_fill(block: np.ndarray) -> Done:
        filled = np.ones(block.size)
        time.sleep(2)  # costs no core
        begun = time.process_time()
        while time.process_time() - begun < 0.1:
            pass
        return Done(float(filled.size), float(filled.size))

    stage = Stage("filling", "number", "number", np.zeros, wait_and_fill, 10)
    found = measured(stage, 20_000_000, 10)
    assert found.rows == found.units == 20_000_000
    # Zeros that nobody wrote to take no memory, so 8 bytes a number.
    assert found.bytes == pytest.approx(160e6, rel=0.1)
    assert 0.1 <= found.core_seconds < 2


@pytest.mark.parametrize("name", list(STAGES))
def test_every_stage_runs_small(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    size = {"embed": 4, "neighbours": 50, "rank": 200}.get(name, 2_000)
    done = STAGES[name].work(STAGES[name].prepare(size))
    expected = {
        "parse": (size, size),
        "distinct": (size, size),
        "split": (size, size),
        "embed": (size, size),
        "neighbours": (size, size**2),
        "train": (size // 9 + 1 + size // 40 + 1, None),
        "rank": (size, 2_000 * size),
    }
    rows, units = expected.get(name, (None, None))
    assert done.rows > 0
    assert rows is None or done.rows == rows
    assert done.units > 0
    assert units is None or done.units == units
