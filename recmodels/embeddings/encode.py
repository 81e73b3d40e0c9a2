"""Sentence embeddings of texts, each distinct text encoded once, ever."""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from recmodels.embeddings.config import EncoderConfig
from recmodels.embeddings.encoder import load_encoder
from recmodels.embeddings.store import VectorStore
from recmodels.schemas.tables import embedding_schema


@dataclass(frozen=True)
class EmbeddingResult:
    """
    A finished embedding table, `embedding_schema` of the id column and the encoder's width, in id order.

    `present` is false for a row without text, whose vector is that of the empty string. `stats` are flat counts and
    labels for metadata: ``rows``, ``empty``, ``distinct = encoded + reused``, width, norms and the encoder.
    """

    table: pl.DataFrame
    stats: dict[str, float | int | str]


def embed_table(
    table: pl.DataFrame,
    *,
    id_column: str,
    text_column: str,
    config: EncoderConfig,
    store_path: Path,
    progress: Callable[[int, int], None] | None = None,
) -> EmbeddingResult:
    """
    Embed one text column.

    Parameters
    ----------
    table
        A frame with the two columns.
    id_column, text_column
        Int32 ids, distinct; texts, null counts as empty.
    config
        The encoder.
    store_path
        SQLite file of vectors already encoded, made if missing. Keyed by the digest of the encoder's files and the
        text, so that every table and data set may share it. Only texts that it lacks are encoded.
    progress
        Called with (texts encoded, texts to encode).

    Raises
    ------
    InputError
        If the encoder cannot be found, or gives vectors that are not finite or have no length.
    """
    started = time.perf_counter()
    table = table.sort(id_column)
    texts = [text.strip() for text in table[text_column].fill_null("").to_list()]
    vectors, stats = encode_texts(texts, config, store_path, progress)
    present = [bool(text) for text in texts]
    schema = embedding_schema(id_column, vectors.shape[1])
    frame = pl.DataFrame({id_column: table[id_column], "embedding": vectors, "present": present}, schema=schema)
    stats |= {"rows": frame.height, "empty": present.count(False), "seconds": time.perf_counter() - started}
    return EmbeddingResult(frame, stats)


def encode_texts(
    texts: Sequence[str],
    config: EncoderConfig,
    store_path: Path,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[npt.NDArray[np.float32], dict[str, float | int | str]]:
    """
    Return the vectors of the texts, (n, width) float32 in the order given, and counts.

    Distinct texts are encoded once, the longest first; batches are kept in the store as they finish, so that an
    interrupted run goes on where it stopped. What else is encoded does not change a vector (`Encoder.encode`), so
    neither does what the store had before.
    """
    encoder = load_encoder(config.model, device=config.device, precision=config.precision, max_tokens=config.max_tokens)
    rows: dict[str, int] = {}
    index = np.array([rows.setdefault(text, len(rows)) for text in texts], dtype=np.int64)
    distinct = list(rows)
    keys = [hashlib.sha256(text.encode()).digest() for text in distinct]
    vectors = np.empty((len(distinct), encoder.width), dtype=np.float32)
    with VectorStore(store_path, encoder.digest, encoder.width) as store:
        missing = store.load(keys, vectors)
        missing.sort(key=lambda row: (-len(distinct[row]), distinct[row]))
        chunk = 32 * config.batch_size
        for start in range(0, len(missing), chunk):
            part = missing[start : start + chunk]
            encoded = encoder.encode([distinct[row] for row in part], config.batch_size)
            store.save([keys[row] for row in part], encoded)
            vectors[part] = encoded
            if progress:
                progress(start + len(part), len(missing))
    norms = np.linalg.norm(vectors, axis=1)
    stats: dict[str, float | int | str] = {
        "distinct": len(distinct),
        "encoded": len(missing),
        "reused": len(distinct) - len(missing),
        "width": encoder.width,
        "norm_min": float(norms.min(initial=np.inf)) if len(distinct) else 0.0,
        "norm_max": float(norms.max(initial=0.0)),
        "encoder": config.model,
        "encoder_digest": encoder.digest,
        "device": encoder.device,
        "precision": encoder.precision,
    }
    return vectors[index], stats
