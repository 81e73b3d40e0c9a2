"""Each violation of a table of added pairs is counted."""

import polars as pl

from recmodels.data.schemas import AUGMENTED
from recmodels.transport.quality import activity_histograms, augmentation_violations

TRAIN = pl.DataFrame({"user_id": [0, 1, 1], "item_id": [0, 0, 2]})


def added(*rows: tuple[int, int, float]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=AUGMENTED, orient="row")


def test_each_violation_is_counted() -> None:
    def found(*rows: tuple[int, int, float]) -> dict[str, int]:
        counts = augmentation_violations(added(*rows), TRAIN, 2, 3)
        return {name: count for name, count in counts.items() if count}

    assert found((0, 1, 0.5), (0, 2, 0.5)) == {}
    assert found() == {}
    assert found((1, 2, 0.5)) == {"training_pairs": 1}
    assert found((0, 1, 0.5), (0, 1, 0.5)) == {"repeated_pairs": 1}
    assert found((2, 1, 0.5)) == {"ids_out_of_range": 1}
    assert found((0, 1, 0.0), (0, 2, float("nan"))) == {"wrong_masses": 2}


def test_the_activity_plot_is_an_image() -> None:
    for rows in ([], [(0, 1, 0.5)]):
        assert activity_histograms(TRAIN, added(*rows), 2, 3).startswith(b"\x89PNG\r\n")
