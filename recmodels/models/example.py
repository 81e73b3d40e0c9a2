"""Made-up data for examples in a docstring or a notebook: 12 users like the items of 16 that share their parity."""

import numpy as np
import polars as pl

from recmodels.models.inputs import TrainingData, training_data

N_USERS = 12
N_ITEMS = 16


def example_tables() -> dict[str, pl.DataFrame]:
    """
    Return the tables `interactions` (without ratings), `users` and `item_ids`, as the assets of these names have them.

    Of the 8 items that a user likes, 6 are in training, one is for validation and one for the test.

    Examples
    --------
    >>> example_tables()["interactions"].group_by("split").len().sort("split").rows()
    [('test', 12), ('train', 72), ('valid', 12)]
    """
    users, items = (ids.ravel() for ids in np.indices((N_USERS, N_ITEMS), dtype=np.int32))
    place = (users // 2 + items // 2) % (N_ITEMS // 2)
    split = np.where(place == 0, "valid", np.where(place == 1, "test", "train"))
    pairs = pl.DataFrame({"user_id": users, "item_id": items, "timestamp": place.astype(np.int64), "split": split})
    user_ids, item_ids = np.arange(N_USERS, dtype=np.int32), np.arange(N_ITEMS, dtype=np.int32)
    return {
        "interactions": pairs.filter((users + items) % 2 == 0),
        "users": pl.DataFrame({"user_id": user_ids, "reviewer_id": [f"R{user}" for user in user_ids]}),
        "item_ids": pl.DataFrame({"item_id": item_ids, "asin": [f"B{item}" for item in item_ids]}),
    }


def example_data() -> TrainingData:
    """
    Return the training data of these tables, with one feature of each item: its parity.

    Examples
    --------
    >>> data = example_data()
    >>> data.train_matrix().shape, data.item_features["text"].shape
    ((12, 16), (16, 1))
    """
    tables = example_tables()
    parity = np.arange(N_ITEMS, dtype=np.float32)[:, None] % 2
    features = tables["item_ids"].select("item_id", embedding=pl.Series(parity, dtype=pl.Array(pl.Float32, 1)))
    return training_data(tables["interactions"], n_users=N_USERS, n_items=N_ITEMS, item_text_embeddings=features)
