"""What reaches a model, and what never does."""

from dataclasses import fields, replace

import numpy as np
import polars as pl
import pytest

from recmodels.errors import InputError
from recmodels.models.inputs import training_data


def arrays(data) -> dict[str, bytes]:
    found = {}
    for field in fields(data):
        value = getattr(data, field.name)
        if isinstance(value, np.ndarray):
            found[field.name] = value.tobytes()
    return found


def test_test_rows_do_not_enter(checkerboard) -> None:
    whole = checkerboard.data()
    without = training_data(
        checkerboard.interactions.filter(pl.col("split") != "test"), n_users=60, n_items=80, **checkerboard.tables
    )
    assert arrays(whole) == arrays(without)


def test_pairs_come_in_order_whatever_the_rows_order(checkerboard) -> None:
    shuffled = checkerboard.interactions.sample(fraction=1.0, shuffle=True, seed=1)
    data = training_data(shuffled, n_users=60, n_items=80, **checkerboard.tables)
    assert arrays(data) == arrays(checkerboard.data())


def test_tables_without_rows_are_absent_modalities(checkerboard) -> None:
    empty = {name: table.clear() for name, table in checkerboard.tables.items()}
    data = training_data(checkerboard.interactions, n_users=60, n_items=80, **empty)
    assert data.item_features == {}
    assert data.item_knn == {}
    assert data.user_features is None
    assert data.user_knn is None
    # An augmentation that found nothing is still an augmentation.
    assert data.added_users is not None
    assert data.added_users.size == 0


@pytest.mark.parametrize(
    ("table", "change", "message"),
    [
        ("item_text_embeddings", lambda frame: frame.reverse(), "every id once, in order"),
        ("item_text_embeddings", lambda frame: frame.head(5), "80 rows"),
        ("user_text_embeddings", lambda frame: frame.head(5), "60 rows"),
        ("item_image_knn", lambda frame: frame.with_columns(dst=pl.lit(80, pl.Int32)), "item_image_knn, item ids"),
        ("augmented_interactions", lambda frame: frame.with_columns(user_id=pl.lit(-1, pl.Int32)), "added pairs"),
    ],
)
def test_tables_that_do_not_fit_are_refused(checkerboard, table: str, change, message: str) -> None:
    tables = checkerboard.tables | {table: change(checkerboard.tables[table])}
    with pytest.raises(InputError, match=message):
        training_data(checkerboard.interactions, n_users=60, n_items=80, **tables)


def test_times_are_those_of_the_training_pairs_or_none_at_all(checkerboard) -> None:
    data = checkerboard.data()
    times = {
        (user, item): time
        for user, item, time, split in checkerboard.interactions.select(
            "user_id", "item_id", "timestamp", "split"
        ).iter_rows()
        if split == "train"
    }
    pairs = zip(data.train_users.tolist(), data.train_items.tolist(), strict=True)
    assert data.train_times.tolist() == [times[pair] for pair in pairs]
    train = pl.col("split") == "train"
    for rows, known in ((train & (train.cum_sum() == 1), False), (~train, True)):
        some = checkerboard.interactions.with_columns(timestamp=pl.when(~rows).then("timestamp"))
        found = training_data(some, n_users=60, n_items=80).train_times
        assert (found is not None) == known


def test_of_a_pair_with_several_rows_the_newest_time_counts(checkerboard) -> None:
    older = checkerboard.interactions.with_columns(pl.col("timestamp") - 5)
    both = pl.concat([checkerboard.interactions, older]).sample(fraction=1.0, shuffle=True, seed=2)
    data = training_data(both, n_users=60, n_items=80, **checkerboard.tables)
    assert data.train_times.tolist() == checkerboard.data().train_times.tolist()


def test_times_that_do_not_fit_the_pairs_are_refused(checkerboard) -> None:
    data = checkerboard.data()
    with pytest.raises(InputError, match="train_times"):
        replace(data, train_times=data.train_times[:-1])


def test_features_that_are_not_finite_are_refused(checkerboard) -> None:
    table = checkerboard.tables["item_text_embeddings"]
    vectors = table["embedding"].to_numpy().copy()
    vectors[3, 2] = np.nan
    tables = checkerboard.tables | {"item_text_embeddings": table.with_columns(embedding=pl.Series(vectors))}
    with pytest.raises(InputError, match="finite"):
        training_data(checkerboard.interactions, n_users=60, n_items=80, **tables)


def test_no_training_rows_are_refused(checkerboard) -> None:
    with pytest.raises(InputError, match="training pairs"):
        training_data(checkerboard.interactions.filter(pl.col("split") != "train"), n_users=60, n_items=80)
