"""
Whatever a small data set looks like, `recmodels run` ends with every figure defined, or refuses it before training.

A handful of data sets that are always the same, drawn once; with ``--hypothesis-profile=thorough`` many more, others
each time, with further models and their calibrated forms.
"""

import gzip
import json
import re
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from forked_runs import forking_server
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_bert import write_tiny_bert

from pipelines.cli.main import main
from recmodels.models.registry import MODELS, NON_PERSONALISED
from recmodels.raw.formats.image_features import WIDTH
from recmodels.schemas.results import LIST_LENGTHS, SYSTEM_METRICS, USER_METRICS

pytestmark = pytest.mark.slow

THOROUGH = settings.get_current_profile_name() == "thorough"
FIGURES = {(metric, k) for metric in USER_METRICS + SYSTEM_METRICS for k in LIST_LENGTHS}
SPLITS = ("train", "valid", "test")

TITLES: dict[str, Callable[[int], str]] = {
    "none": lambda _: "",
    "one for all": lambda _: "Teapot",
    "own": lambda item: f"Teapot of {item} cups",
    "markup": lambda item: "<span class='a" if item % 2 else f"<b>Kanne</b> Nr. {item} für Tee ☕",
}


@dataclass(frozen=True)
class Shop:
    """
    A data set to write: which pairs it has, and what beside them.

    Attributes
    ----------
    raw_format
        `table` or `amazon2014`.
    titles
        Which titles the metadata has; None for no metadata.
    images
        The share of the items with image features; None for no file of them.
    texts
        Whether the reviews say anything.
    times
        Whether rows have a time: each its own, all the same, or none.
    """

    raw_format: str
    n_users: int
    n_items: int
    density: float
    repeated: float
    k_core: int
    split: str
    titles: str | None
    images: float | None
    texts: bool
    times: str
    seed: int
    models: tuple[str, ...] = ("blast",)

    def pairs(self) -> list[tuple[int, int]]:
        """Return the pairs, some of them twice, in no order."""
        rng = np.random.default_rng(self.seed)
        cells = np.argwhere(rng.random((self.n_users, self.n_items)) < self.density)
        cells = np.concatenate([cells, cells[rng.random(len(cells)) < self.repeated]])
        return [(int(user), int(item)) for user, item in rng.permutation(cells)] or [(0, 0)]

    def write(self, folder: Path, encoder: Path, key: str = "small") -> Path:
        """Write the raw files and a catalogue with their entry, and return the catalogue."""
        files = (self._table if self.raw_format == "table" else self._reviews)(folder)
        listed = ", ".join(f'{role} = "{name}"' for role, name in files.items())
        catalogue = folder / "catalogue.toml"
        catalogue.write_text(
            f'[{key}]\ntitle = "Small"\ndomain = "teapots"\nencoder = "{encoder}"\n'
            f"training = {{ epochs = 2 }}\n"
            f"[{key}.sources.{self.raw_format}]\nfiles = {{ {listed} }}\n"
            f'k_core = {self.k_core}\nsplit = "{self.split}"\nsplit_seed = {self.seed}\n'
        )
        return catalogue

    def _time(self, place: int) -> int | None:
        return {"own": 1_500_000_000 + 1000 * place, "one": 1_500_000_000, "none": None}[self.times]

    def _text(self, item: int) -> str:
        return f"Pours well into {item} cups. The handle broke." if self.texts else ""

    def _table(self, folder: Path) -> dict[str, str]:
        pairs = self.pairs()
        labels = np.random.default_rng(self.seed + 1).choice(SPLITS, len(pairs), p=(0.7, 0.15, 0.15))
        rows = pl.DataFrame(
            {
                "user": [f"u {user}" for user, _ in pairs],
                "item": [f"{item}" for _, item in pairs],
                "timestamp": pl.Series([self._time(place) for place in range(len(pairs))], dtype=pl.Int64),
                "rating": [1.0 + item % 5 for _, item in pairs],
                "text": [self._text(item) for _, item in pairs],
                "split": labels,
            }
        )
        absent = [*(["timestamp"] if self.times == "none" else []), *([] if self.texts else ["text"])]
        rows.drop(absent, *([] if self.split == "published" else ["split"])).write_csv(folder / "rows.csv")
        files = {"interactions": "rows.csv"}
        if self.titles is not None:
            named = TITLES[self.titles]
            items = pl.DataFrame({"item": range(self.n_items), "title": [named(item) for item in range(self.n_items)]})
            items.write_parquet(folder / "items.parquet")
            files["items"] = "items.parquet"
            if self.images is not None:
                np.save(folder / "images.npy", self._vectors(6))
                files["image_features"] = "images.npy"
        return files

    def _reviews(self, folder: Path) -> dict[str, str]:
        lines = [
            {
                "reviewerID": f"U{user}",
                "asin": f"B{item:09}",
                "overall": 1.0 + item % 5,
                "unixReviewTime": self._time(place) or 1_500_000_000,
                "reviewText": self._text(item),
                "summary": "",
            }
            for place, (user, item) in enumerate(self.pairs())
        ]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / "reviews.json.gz").write_bytes(gzip.compress(text.encode()))
        files = {"reviews": "reviews.json.gz"}
        if self.titles is not None:
            named = TITLES[self.titles]
            items = [{"asin": f"B{item:09}", "title": named(item)} for item in range(self.n_items)]
            (folder / "meta.json").write_text("".join(f"{item!r}\n" for item in items))
            files["metadata"] = "meta.json"
        if self.images is not None:
            features = enumerate(self._vectors(WIDTH))
            records = [f"B{item:09}".encode() + vector.tobytes() for item, vector in features if vector.any()]
            (folder / "images.b").write_bytes(b"".join(records))
            files["image_features"] = "images.b"
        return files

    def _vectors(self, width: int) -> np.ndarray:
        rng = np.random.default_rng(self.seed + 2)
        vectors = rng.normal(size=(self.n_items, width)).astype("<f4")
        vectors[rng.random(self.n_items) >= (self.images or 0)] = 0
        return vectors


shops = st.builds(
    Shop,
    raw_format=st.sampled_from(["table", "amazon2014"]),
    n_users=st.integers(1, 50),
    n_items=st.integers(1, 50),
    density=st.floats(0.01, 1),
    repeated=st.sampled_from([0.0, 0.0, 0.3]),
    k_core=st.sampled_from([1, 1, 2, 5]),
    split=st.sampled_from(["random", "temporal", "leave_last_out", "published"]),
    titles=st.sampled_from([None, *TITLES]),
    images=st.sampled_from([None, 1.0, 0.5, 0.0]),
    texts=st.booleans(),
    times=st.sampled_from(["own", "own", "one", "none"]),
    seed=st.integers(0, 999),
    models=st.sampled_from([*MODELS, *(f"calibrated/{name}" for name in MODELS)]).map(lambda name: ("blast", name))
    if THOROUGH
    else st.sampled_from([("blast",), ("lightgcn", "freedom")]),
)

usual = partial(
    Shop,
    raw_format="table",
    n_users=20,
    n_items=15,
    density=0.4,
    repeated=0.0,
    k_core=1,
    split="random",
    titles="own",
    images=1.0,
    texts=True,
    times="own",
    seed=0,
)

Run = Callable[[Path, list[str], Path], int]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentence encoder that is fast."""
    return write_tiny_bert(tmp_path_factory.mktemp("encoder") / "bert")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """`recmodels` with a data root and the catalogue beside it; the status it ended with."""
    folder = tmp_path_factory.mktemp("server")
    base = folder / "catalogue.toml"
    base.write_text(
        '[small]\ntitle = "Small"\ndomain = "teapots"\n[small.sources.table]\nfiles = { interactions = "rows.csv" }\n'
    )
    with forking_server({"RECMODELS_CATALOGUE": str(base), "RECMODELS_SEEDS": "0"}) as runs:

        def execute(folder: Path, arguments: list[str], catalogue: Path) -> int:
            order: dict[str, Any] = {
                "arguments": arguments,
                "root": str(folder / "data"),
                "log": str(folder / "log"),
                "environment": {"RECMODELS_CATALOGUE": str(catalogue)},
            }
            (status,) = runs([order])
            return status

        yield execute


@contextmanager
def fast_folder() -> Generator[Path]:
    """Yield a folder in memory where there is one: a run writes thousands of small records."""
    memory = Path("/dev/shm")  # noqa: S108
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


def check(shop: Shop, run: Run, encoder: Path, folder: Path) -> str:
    """Run a data set; make sure that it is measured whole, or refused in `prepare`, and return what was printed."""
    catalogue = shop.write(folder, encoder)
    arguments = ["run", "--dataset", "small", "--raw-dir", str(folder), "--seeds", "0", "--no-download"]
    status = run(folder, [*arguments, "--models", ",".join(shop.models)], catalogue)
    told = (folder / "log").read_text()
    assert "Traceback" not in told, told
    if status:
        lines = [line for line in told.splitlines() if line.startswith("error: ")]
        assert status == 1, told
        assert len(lines) == 1, told
        assert "train small" not in told, told
        assert re.search(r": expected .+, found .+\. [A-Z][^.]+.*\.$", lines[0]), (
            told
        )  # the last of it says what to change
        return told
    tables = folder / "data" / "tables"
    for model in (*shop.models, *NON_PERSONALISED):
        (path,) = (tables / "metrics" / model / "small" / "0").iterdir()
        overall = pl.read_parquet(path).filter(pl.col("grouping") == "all")
        figures = {(metric, k): value for metric, k, value in overall.select("metric", "k", "value").iter_rows()}
        assert figures.keys() == FIGURES, told
        assert np.isfinite(list(figures.values())).all(), figures
    (path,) = (tables / "leaderboard" / "small").iterdir()
    board = pl.read_parquet(path)
    assert set(board["model"]) == {*shop.models, *NON_PERSONALISED}, told
    assert board["mean"].is_finite().all()
    assert list((folder / "data" / "documents" / "report" / "small").iterdir())
    assert "recommends:" in told
    return told


@settings(
    # A hundred examples are the usual number of a property that takes a moment; this one takes seconds.
    max_examples=settings.default.max_examples // 16,
    derandomize=not THOROUGH,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(shop=shops)
def test_any_small_data_set_is_measured_whole_or_refused_before_training(run: Run, encoder: Path, shop: Shop) -> None:
    with fast_folder() as folder:
        check(shop, run, encoder, folder)


def test_all_models_are_trained_but_those_that_need_times_which_rows_lack(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RECMODELS_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("RECMODELS_CATALOGUE", str(usual(times="none").write(tmp_path, encoder, key="demo")))
    monkeypatch.setenv("DAGSTER_HOME", "")
    monkeypatch.setattr("pipelines.cli.run.MODELS", {name: MODELS[name] for name in ("itemknn", "timemm")})
    arguments = ["run", "--dataset", "demo", "--raw-dir", str(tmp_path), "--seeds", "0", "--models"]

    assert main([*arguments, "itemknn,timemm"]) == 1
    told = " ".join(capsys.readouterr().out.split())
    assert "--models: expected models that can be trained on demo, found timemm, which needs the time of every" in told
    assert not (tmp_path / "data" / "checkpoints").exists()

    assert main([*arguments, "all"]) == 0
    assert "timemm left out: demo has training rows without a time" in " ".join(capsys.readouterr().out.split())
    (path,) = (tmp_path / "data" / "tables" / "leaderboard" / "demo").iterdir()
    assert set(pl.read_parquet(path)["model"]) == {"itemknn", *NON_PERSONALISED}
