"""Sentence embeddings of texts, each distinct text encoded once, ever."""

import hashlib
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from recmodels.compute.base import Compute
from recmodels.compute.local import LOCAL
from recmodels.embeddings.config import EncoderConfig
from recmodels.embeddings.encoder import Encoder, load_encoder
from recmodels.embeddings.store import VectorStore
from recmodels.errors import InputError
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
    compute: Compute = LOCAL,
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
    compute
        Where texts are encoded. The store is read and written by this process alone.

    Raises
    ------
    InputError
        If the encoder cannot be found, or gives vectors that are not finite or have no length; if another machine has
        other weights under its name.
    """
    started = time.perf_counter()
    table = table.sort(id_column)
    texts = [text.strip() for text in table[text_column].fill_null("").to_list()]
    vectors, stats = encode_texts(texts, config, store_path, progress, compute)
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
    compute: Compute = LOCAL,
) -> tuple[npt.NDArray[np.float32], dict[str, float | int | str]]:
    """
    Return the vectors of the texts, (n, width) float32 in the order given, and counts.

    Distinct texts are encoded once, the longest first; batches are kept in the store as they finish, so that an
    interrupted run goes on where it stopped. What else is encoded does not change a vector (`Encoder.encode`), so
    neither does what the store had before.
    """
    encoder = _load(config)
    rows: dict[str, int] = {}
    index = np.array([rows.setdefault(text, len(rows)) for text in texts], dtype=np.int64)
    distinct = list(rows)
    keys = [hashlib.sha256(text.encode()).digest() for text in distinct]
    vectors = np.empty((len(distinct), encoder.width), dtype=np.float32)
    with VectorStore(store_path, encoder.digest, encoder.width) as store:
        missing = store.load(keys, vectors)
        missing.sort(key=lambda row: (-len(distinct[row]), distinct[row]))
        chunk = 32 * config.batch_size
        parts = [missing[start : start + chunk] for start in range(0, len(missing), chunk)]
        here = config.model_copy(update={"device": encoder.device, "precision": encoder.precision})
        results = compute.map(
            _encoded,
            ([distinct[row] for row in part] for part in parts),
            shared=_Shared(here, encoder.digest, encoder),
            gpus=float(encoder.device == "cuda"),
        )
        done = 0
        for part, encoded in zip(parts, results, strict=True):
            store.save([keys[row] for row in part], encoded)
            vectors[part] = encoded
            done += len(part)
            if progress:
                progress(done, len(missing))
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


@dataclass(frozen=True)
class _Shared:
    """An encoder for all blocks; other processes get its name alone, load it themselves and compare its digest."""

    config: EncoderConfig
    digest: str
    encoder: Encoder | None

    def __getstate__(self) -> dict[str, Any]:
        return {"config": self.config, "digest": self.digest, "encoder": None}


def _encoded(shared: _Shared, texts: list[str]) -> npt.NDArray[np.float32]:
    encoder = shared.encoder or _load(shared.config, _load_once)
    if encoder.digest != shared.digest:
        raise InputError(
            f"text encoder {shared.config.model!r} on {socket.gethostname()}",
            expected=f"the weights that the run has, digest {shared.digest}",
            found=encoder.digest,
            action="Give every machine of the cluster the same files under this name.",
        )
    return encoder.encode(texts, shared.config.batch_size)


def _load(config: EncoderConfig, load: Callable[..., Encoder] = load_encoder) -> Encoder:
    return load(config.model, device=config.device, precision=config.precision, max_tokens=config.max_tokens)


_load_once = lru_cache(maxsize=1)(load_encoder)
