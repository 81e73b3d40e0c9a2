"""What the augmentation does to activity and popularity, as a picture."""

import polars as pl

from recmodels.reporting.charts import activity_histograms
from recmodels.schemas.tables import AUGMENTED

TRAIN = pl.DataFrame({"user_id": [0, 1, 1], "item_id": [0, 0, 2]})


def test_the_activity_plot_is_an_image() -> None:
    for rows in ([], [(0, 1, 0.5)]):
        added = pl.DataFrame(rows, schema=AUGMENTED, orient="row")
        assert activity_histograms(TRAIN, added, 2, 3).startswith(b"\x89PNG\r\n")
