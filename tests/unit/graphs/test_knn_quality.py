"""The figures and pictures of a neighbour table are about the edges between different nodes."""

import numpy as np
import polars as pl
import pytest

from recmodels.graphs.knn import knn_table
from recmodels.graphs.quality import knn_summary
from recmodels.reporting.charts import knn_histograms
from recmodels.schemas.tables import KNN

PNG = b"\x89PNG\r\n"


@pytest.fixture
def table() -> pl.DataFrame:
    return knn_table(np.random.default_rng(0).standard_normal((30, 4)).astype(np.float32), 5)


def test_the_summary_counts_what_a_loop_counts(table: pl.DataFrame) -> None:
    summary = knn_summary(table, 30)
    chosen = [d for s, d in zip(table["src"], table["dst"], strict=True) if s != d]
    assert summary["n_edges"] == 150
    assert summary["largest_in_degree"] == max(chosen.count(i) for i in range(30))
    assert summary["share_never_chosen"] == pytest.approx(len(set(range(30)) - set(chosen)) / 30)
    assert knn_summary(KNN.to_frame(), 30) == {"n_edges": 0}


def test_histograms_are_images_whatever_the_table(table: pl.DataFrame) -> None:
    for each in (table, KNN.to_frame(), table.with_columns(similarity=pl.lit(None, pl.Float32)), table.head(1)):
        assert knn_histograms(each, 30).startswith(PNG)
