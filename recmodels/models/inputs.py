"""What a model may see in training: pairs, features, neighbour tables. There is no place here for a test row."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from recmodels.errors import InputError
from recmodels.graphs.matrices import checked_pairs, interaction_matrix

Ids = NDArray[np.int64]
FeatureMatrix = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Training and validation pairs, and the side information of items and users."""

    n_users: int
    n_items: int
    """Sizes of the id spaces; ids run from 0."""
    train_users: Ids
    train_items: Ids
    """The training pairs, each (n_train,) int64, sorted by user and item, without repetition."""
    valid_users: Ids
    valid_items: Ids
    """The validation pairs, for early stopping alone."""
    item_text_features: FeatureMatrix | None = None
    item_image_features: FeatureMatrix | None = None
    user_features: FeatureMatrix | None = None
    """Features, (n_items, width) or (n_users, width) float32, or None where the modality is absent."""
    item_text_knn: pl.DataFrame | None = None
    item_image_knn: pl.DataFrame | None = None
    user_knn: pl.DataFrame | None = None
    """Neighbour tables (schema `KNN`), or None."""
    added_users: Ids | None = None
    added_items: Ids | None = None
    """The positives that the augmentation added, disjoint from the training pairs, or None where it was not run."""
    train_times: Ids | None = None
    """When the training pairs happened, (n_train,) int64 seconds since the epoch, or None where that is not known of
    every pair."""

    def __post_init__(self) -> None:
        if self.train_users.size == 0:
            raise InputError("training pairs", expected="at least one", found="none")
        if self.train_times is not None and self.train_times.shape != self.train_users.shape:
            raise InputError(
                "train_times",
                expected=f"one a training pair, {self.train_users.size}",
                found=str(self.train_times.size),
            )
        size = (self.n_users, self.n_items)
        checked_pairs(self.train_users, self.train_items, *size, "training pairs")
        checked_pairs(self.valid_users, self.valid_items, *size, "validation pairs")
        if self.added_users is not None:
            checked_pairs(self.added_users, self.added_items, *size, "added pairs")
        for name, features, n_rows in (
            ("item_text_features", self.item_text_features, self.n_items),
            ("item_image_features", self.item_image_features, self.n_items),
            ("user_features", self.user_features, self.n_users),
        ):
            if features is not None:
                if features.ndim != 2 or features.shape[0] != n_rows:
                    raise InputError(name, expected=f"a matrix of {n_rows} rows", found=f"shape {features.shape}")
                if not np.isfinite(features).all():
                    raise InputError(name, expected="finite values", found="NaN or infinity")
        for name, table, n in (
            ("item_text_knn", self.item_text_knn, self.n_items),
            ("item_image_knn", self.item_image_knn, self.n_items),
            ("user_knn", self.user_knn, self.n_users),
        ):
            if table is not None:
                checked_pairs(table["src"].to_numpy(), table["dst"].to_numpy(), n, n, name)

    @property
    def train_pairs(self) -> tuple[Ids, Ids]:
        """Users and items of the training pairs."""
        return self.train_users, self.train_items

    def train_matrix(self) -> sparse.csr_array:
        """Return the training pairs as a binary matrix, (n_users, n_items) float32."""
        return interaction_matrix(*self.train_pairs, self.n_users, self.n_items)

    def valid_matrix(self) -> sparse.csr_array:
        """Return the validation pairs likewise."""
        return interaction_matrix(self.valid_users, self.valid_items, self.n_users, self.n_items)

    @property
    def item_knn(self) -> dict[str, pl.DataFrame]:
        """The neighbour tables of the items that are present, by modality: ``image`` and ``text``."""
        tables = {"image": self.item_image_knn, "text": self.item_text_knn}
        return {modality: table for modality, table in tables.items() if table is not None}

    @property
    def item_features(self) -> dict[str, FeatureMatrix]:
        """The features of the items that are present, by modality: ``image`` and ``text``."""
        features = {"image": self.item_image_features, "text": self.item_text_features}
        return {modality: matrix for modality, matrix in features.items() if matrix is not None}


def training_data(
    interactions: pl.DataFrame,
    *,
    n_users: int,
    n_items: int,
    item_text_embeddings: pl.DataFrame | None = None,
    item_image_embeddings: pl.DataFrame | None = None,
    user_text_embeddings: pl.DataFrame | None = None,
    item_text_knn: pl.DataFrame | None = None,
    item_image_knn: pl.DataFrame | None = None,
    user_knn: pl.DataFrame | None = None,
    augmented_interactions: pl.DataFrame | None = None,
) -> TrainingData:
    """
    Assemble the training data from stored tables; the keywords are their asset names.

    Test rows of `interactions` (schema `INTERACTIONS`) are left out here and reach no model. An embedding or neighbour
    table without rows counts as an absent modality; an augmentation without rows is one that added nothing. Of a pair
    with several rows the newest one's time counts; where a training row has none, or the table no such column, no pair
    has.

    Raises
    ------
    InputError
        If ids are out of range, an embedding table does not hold every id in order, or a value is not finite.

    Examples
    --------
    >>> from recmodels.models.example import example_tables
    >>> data = training_data(example_tables()["interactions"], n_users=12, n_items=16)
    >>> data.train_users.size, data.valid_users.size, sorted(data.item_features)
    (72, 12, [])
    """
    if "timestamp" not in interactions.columns:
        interactions = interactions.with_columns(timestamp=pl.lit(None, pl.Int64))
    train = interactions.filter(pl.col("split") == "train").group_by("user_id", "item_id").agg(pl.max("timestamp"))
    train = train.sort("user_id", "item_id")
    valid = interactions.filter(pl.col("split") == "valid").select("user_id", "item_id").sort("user_id", "item_id")
    return TrainingData(
        n_users=n_users,
        n_items=n_items,
        train_users=_ids(train, "user_id"),
        train_items=_ids(train, "item_id"),
        valid_users=_ids(valid, "user_id"),
        valid_items=_ids(valid, "item_id"),
        item_text_features=_features(item_text_embeddings, "item_id", "item_text_embeddings"),
        item_image_features=_features(item_image_embeddings, "item_id", "item_image_embeddings"),
        user_features=_features(user_text_embeddings, "user_id", "user_text_embeddings"),
        item_text_knn=_rows(item_text_knn),
        item_image_knn=_rows(item_image_knn),
        user_knn=_rows(user_knn),
        added_users=None if augmented_interactions is None else _ids(augmented_interactions, "user_id"),
        added_items=None if augmented_interactions is None else _ids(augmented_interactions, "item_id"),
        train_times=None if train["timestamp"].null_count() else _ids(train, "timestamp"),
    )


def _ids(frame: pl.DataFrame, column: str) -> Ids:
    return np.array(frame[column].to_numpy(), dtype=np.int64)


def _rows(table: pl.DataFrame | None) -> pl.DataFrame | None:
    return None if table is None or table.is_empty() else table


def _features(table: pl.DataFrame | None, id_column: str, name: str) -> FeatureMatrix | None:
    if table is None or table.is_empty():
        return None
    if not np.array_equal(table[id_column].to_numpy(), np.arange(table.height)):
        raise InputError(f"table {name}", expected="every id once, in order from 0", found="other ids")
    # A copy: what polars hands out is read-only, and torch wants arrays that it may write to.
    return np.array(table["embedding"].to_numpy(), dtype=np.float32, order="C")
