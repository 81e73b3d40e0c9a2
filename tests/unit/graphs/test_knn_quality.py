"""Each violation of a neighbour table is counted, and only that one."""

import numpy as np
import polars as pl
import pytest

from recmodels.data.schemas import KNN
from recmodels.graphs.knn import knn_table
from recmodels.graphs.quality import knn_histograms, knn_summary, knn_violations

PNG = b"\x89PNG\r\n"


@pytest.fixture
def table() -> pl.DataFrame:
    return knn_table(np.random.default_rng(0).standard_normal((30, 4)).astype(np.float32), 5)


def test_a_sound_table_and_an_absent_modality_have_none(table: pl.DataFrame) -> None:
    assert not any(knn_violations(table, 30, 5).values())
    assert not any(knn_violations(table, 30).values())
    assert not any(knn_violations(KNN.to_frame(), 30, 5).values())
    alone = knn_table(np.eye(30), 5, include_self=False)
    assert not any(knn_violations(alone, 30, 5, self_edges="excluded").values())
    assert not any(knn_violations(knn_table(np.eye(3), 5), 3, 5).values())


def changed(table: pl.DataFrame, row: int, **values: object) -> pl.DataFrame:
    here = pl.int_range(pl.len()) == row
    return table.with_columns(
        pl.when(here).then(pl.lit(value, KNN[name])).otherwise(pl.col(name)).alias(name)
        for name, value in values.items()
    )


def test_each_violation_is_counted(table: pl.DataFrame) -> None:
    def found(spoiled: pl.DataFrame) -> dict[str, int]:
        return {name: count for name, count in knn_violations(spoiled, 30, 5).items() if count}

    second = table.row(6, named=True)["dst"]
    assert found(changed(table, 7, dst=second)) == {"repeated_edges": 1}
    assert found(table.filter(pl.int_range(pl.len()) != 9)) == {"wrong_degrees": 1}
    assert found(changed(table, 9, rank=7)) == {"wrong_ranks": 1}
    assert found(changed(table, 9, similarity=0.9999)) == {"wrong_order": 1}
    assert found(changed(table, 6, similarity=1.5)) == {"similarities_out_of_range": 1, "wrong_order": 1}
    assert found(changed(table, 9, similarity=float("nan")))["similarities_out_of_range"] == 1
    assert found(changed(table, 9, similarity=None)) == {}
    assert found(changed(table, 9, dst=30)) == {"ids_out_of_range": 1, "wrong_degrees": 1}
    unused = next(i for i in range(30) if i not in table.filter(pl.col("src") == 1)["dst"])
    assert found(changed(table, 5, dst=unused)) == {"wrong_self_edges": 1}
    assert knn_violations(table, 30, 5, self_edges="excluded")["wrong_self_edges"] == 30
    assert not any(knn_violations(changed(table, 5, dst=unused), 30, 5, self_edges="allowed").values())


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
