"""A finished demo of twelve users in a moment: tables, checkpoints and a report with their records, made by hand."""

from pathlib import Path

import dagster as dg
import numpy as np
import polars as pl
import torch
from scipy import sparse

from assets.serving import seed_partition
from assets.support.io_managers import STORED_AT, STORED_BYTES, STORED_SHA256
from assets.support.resources import DataRoot
from assets.training import checkpoint_key
from recmodels.checkpoints.store import Checkpoint, write_checkpoint
from recmodels.graphs.matrices import interaction_matrix
from recmodels.io.files import MANIFEST, Content, store_by_content
from recmodels.models.example import N_ITEMS, N_USERS, example_data, example_tables
from recmodels.models.registry import build_model, resolve_config
from recmodels.ranking.calibrated import CalibratedRanker, Evidence
from recmodels.ranking.ranker import EmbeddingScorer, Ranker
from recmodels.schemas.tables import INTERACTIONS, ITEM_PROFILES, ITEMS, KNN, LEADERBOARD, REVIEWS, USER_PROFILES

ATTACK = "<img src=x onerror=document.title='attacked'><script>document.title='attacked'</script>"
TURNED = "turned \N{RIGHT-TO-LEFT OVERRIDE}round"
PICTURE = "https://pictures.example.com/1.jpg"
PRIVATE_PICTURE = "http://192.168.0.1/off"
COLD = "cold"
"""A user without training rows."""


def tables() -> dict[str, pl.DataFrame]:
    """Return the tables of the demo: users like items of their parity; one more user has a test row alone."""
    made = example_tables()
    pairs = made["interactions"].select("user_id", "item_id", "timestamp", "split")
    pairs = pl.concat([pairs, pl.DataFrame([(N_USERS, 0, 5, "test")], schema=pairs.schema, orient="row")])
    titles = [f"item {item}" for item in range(N_ITEMS)]
    titles[0], titles[1], titles[2], titles[3] = ATTACK, TURNED, "W" * 200, ""
    users = [*made["users"].rows(), (N_USERS, COLD)]
    ranks = range(3)
    # Each item beside the next two of its parity: neighbours say what the data say.
    edges = [(item, (item + 2 * rank) % N_ITEMS, rank, 1 - rank / 4) for item in range(N_ITEMS) for rank in ranks]
    review = "It is <b>loud</b>, which my neighbours like. Batteries were missing."
    return {
        "interactions": pairs.select("user_id", "item_id", "timestamp", "split", rating=pl.lit(4.0, pl.Float32)).cast(
            dict(INTERACTIONS)
        )[list(INTERACTIONS)],
        "users": pl.DataFrame(users, schema=made["users"].schema, orient="row"),
        "item_ids": made["item_ids"],
        "items": pl.DataFrame(
            [
                (item, f"B{item}", title, f"Description of {item}.", "", [], None, _picture(item))
                for item, title in enumerate(titles)
            ],
            schema=ITEMS,
            orient="row",
        ),
        "reviews": pl.DataFrame([(0, 4, 4.0, 1, "Loud", review)], schema=REVIEWS, orient="row"),
        "item_profiles": pl.DataFrame(
            [(item, f"profile of {item} {ATTACK}", "extractive") for item in range(N_ITEMS)],
            ITEM_PROFILES,
            orient="row",
        ),
        "user_profiles": pl.DataFrame(
            [(user, f"likes {user}", "extractive") for user, _ in users], USER_PROFILES, orient="row"
        ),
        "item_text_knn": pl.DataFrame(edges, schema=KNN, orient="row"),
        "item_image_knn": pl.DataFrame(schema=KNN),
        "leaderboard": pl.DataFrame(
            [("ease", "p", "recall", 20, 1, 0.75, None), ("bpr", "p", "recall", 20, 1, 0.5, None)],
            LEADERBOARD,
            orient="row",
        ),
    }


def _picture(item: int) -> str:
    return {4: PRIVATE_PICTURE, 5: "javascript:alert(1)"}.get(item, PICTURE)


def rankers() -> dict[str, Ranker]:
    """Return a ranking whose scores are sums over the user's items, one that is not, and its calibrated form."""
    data = example_data()
    generator = torch.Generator().manual_seed(0)
    embeddings = EmbeddingScorer(
        torch.randn(N_USERS + 1, 4, generator=generator), torch.randn(N_ITEMS, 4, generator=generator)
    )
    solved = build_model("ease", resolve_config("ease"), data, 0).solve((10.0,))
    history = with_cold_user(data.train_matrix())
    return {
        "ease": type(solved)(history, solved.right),
        "bpr": embeddings,
        "calibrated/bpr": CalibratedRanker(
            embeddings, history, [Evidence("co_users", co_users(history), 0.5)], shortlist=10
        ),
    }


def with_cold_user(train: sparse.csr_array) -> sparse.csr_array:
    """Return the training pairs with a last row that is empty."""
    users, items = train.nonzero()
    return interaction_matrix(users, items, N_USERS + 1, N_ITEMS)


def co_users(history: sparse.csr_array) -> sparse.csr_array:
    """Return how many users two items have in common, without the diagonal."""
    shared = (history.T @ history).toarray()
    np.fill_diagonal(shared, 0)
    return sparse.csr_array(shared.astype(np.float32))


class Explored:
    """
    A data root with its instance, whose records are written by hand.

    Parameters
    ----------
    folder
        Empty; the instance is at ``data/dagster`` below it, where the command line looks for it.
    """

    def __init__(self, folder: Path, instance: dg.DagsterInstance) -> None:
        self.root = DataRoot(path=str(folder / "data"))
        self.instance = instance

    def store(self, name: str, table: pl.DataFrame) -> Path:
        """Store a table of the demo and record it."""
        path, content = store_by_content(
            self.root.root / "tables" / name / "demo", ".parquet", lambda path: table.write_parquet(path)
        )
        self._record(dg.AssetKey(name), "demo", path, content, settings={"domain": "things", "backend": "extractive"})
        return path

    def train(self, model: str, ranker: Ranker, seed: int = 0, *, run: str = "run") -> Path:
        """Store a checkpoint of the demo and record it."""
        made = tables()
        folder = self.root.root / "checkpoints" / model / "demo" / str(seed) / run
        folder.parent.mkdir(parents=True, exist_ok=True)
        seen = made["interactions"].filter(pl.col("split") != "test").select("user_id", "item_id", "split")
        name = model.rpartition("/")[2]
        stored = (
            name,
            resolve_config(name),
            seed,
            {},
            ranker,
            pl.DataFrame(),
            {},
            made["users"],
            made["item_ids"],
            seen,
        )
        write_checkpoint(folder, Checkpoint(*stored))
        key = checkpoint_key(model)
        self._record(key, seed_partition("demo", seed), folder, Content.of(folder / MANIFEST))
        return folder

    def publish(self, html: str) -> Path:
        """Store a report of the demo and record it."""
        path, content = store_by_content(
            self.root.root / "documents" / "report" / "demo", ".html", lambda path: path.write_text(html)
        )
        self._record(dg.AssetKey("report"), "demo", path, content)
        return path

    def everything(self) -> "Explored":
        """Store all there is, and return this."""
        for name, table in tables().items():
            self.store(name, table)
        for model, ranker in rankers().items():
            self.train(model, ranker)
        self.publish(
            "<!DOCTYPE html><html><head><style>p { color: red }</style></head><body><p>report</p></body></html>"
        )
        return self

    def _record(self, key: dg.AssetKey, partition: str, path: Path, content: Content, **metadata: object) -> None:
        entries = {
            STORED_AT: path.relative_to(self.root.root).as_posix(),
            STORED_BYTES: content.size,
            STORED_SHA256: content.sha256,
            **metadata,
        }
        self.instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=partition, metadata=entries))
