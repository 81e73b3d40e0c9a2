"""A small data set with a known answer: users like the items of their own parity, and every modality shows it."""

from dataclasses import dataclass

import numpy as np
import polars as pl
import pytest

from recmodels.graphs.knn import knn_table
from recmodels.models.inputs import TrainingData, training_data
from recmodels.schemas.tables import INTERACTIONS

N_USERS = 60
N_ITEMS = 80
N_UNSEEN = 18


@dataclass(frozen=True, eq=False)
class Checkerboard:
    interactions: pl.DataFrame
    tables: dict[str, pl.DataFrame]
    users: pl.DataFrame
    items: pl.DataFrame

    def data(self, *without: str) -> TrainingData:
        """The training data, with the named tables left out."""
        tables = {name: table for name, table in self.tables.items() if name not in without}
        return training_data(self.interactions, n_users=N_USERS, n_items=N_ITEMS, **tables)

    def pairs(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        chosen = self.interactions.filter(pl.col("split") == split)
        return chosen["user_id"].cast(pl.Int64).to_numpy(), chosen["item_id"].cast(pl.Int64).to_numpy()


@pytest.fixture(scope="session")
def checkerboard() -> Checkerboard:
    rng = np.random.default_rng(0)
    times = np.random.default_rng(1)
    rows = []
    for user in range(N_USERS):
        liked = rng.permutation(np.arange(user % 2, N_ITEMS, 2))
        # The liked items beyond these are in no split at all: a good list holds them, though nothing counts them.
        splits = ["valid"] * 4 + ["test"] * 4 + ["train"] * (len(liked) - N_UNSEEN)
        rows += [
            (user, int(item), 5.0, int(times.integers(10**8)), split)
            for item, split in zip(liked, splits, strict=False)
        ]
    interactions = pl.DataFrame(rows, schema=INTERACTIONS, orient="row").sort("user_id", "item_id")

    def embeddings(id_column: str, n: int, width: int) -> pl.DataFrame:
        vectors = rng.normal(scale=0.3, size=(n, width)).astype(np.float32)
        vectors[:, 0] += np.where(np.arange(n) % 2, 1.0, -1.0)
        return pl.DataFrame(
            {id_column: np.arange(n, dtype=np.int32), "embedding": vectors, "present": np.ones(n, dtype=bool)}
        )

    text, image = embeddings("item_id", N_ITEMS, 6), embeddings("item_id", N_ITEMS, 10)
    profiles = embeddings("user_id", N_USERS, 6)
    added = [(user, (user + 2) % N_ITEMS, 0.1) for user in range(N_USERS)]
    train = interactions.filter(pl.col("split") == "train")
    augmented = pl.DataFrame(added, schema={"user_id": pl.Int32, "item_id": pl.Int32, "mass": pl.Float64}, orient="row")
    return Checkerboard(
        interactions=interactions,
        tables={
            "item_text_embeddings": text,
            "item_image_embeddings": image,
            "user_text_embeddings": profiles,
            "item_text_knn": knn_table(text["embedding"].to_numpy(), 5),
            "item_image_knn": knn_table(image["embedding"].to_numpy(), 5),
            "user_knn": knn_table(profiles["embedding"].to_numpy(), 5),
            "augmented_interactions": augmented.join(train, on=["user_id", "item_id"], how="anti"),
        },
        users=pl.DataFrame(
            {"user_id": np.arange(N_USERS, dtype=np.int32), "reviewer_id": [f"R{user}" for user in range(N_USERS)]}
        ),
        items=pl.DataFrame(
            {"item_id": np.arange(N_ITEMS, dtype=np.int32), "asin": [f"B{item:03}" for item in range(N_ITEMS)]}
        ),
    )
