"""
The same code gives the same results: every asset of a small demo, and three epochs of every model, as they were stored.

`golden.json` holds, with its code version, what each asset came out as. A result that differs although its version does
not is a mistake, or a version that somebody forgot to raise. What has no floating-point arithmetic in it is compared by
its digest; the rest by a few figures within a tolerance, because another processor rounds differently. After a version
was raised, ``RECMODELS_WRITE_GOLDEN=1 pytest tests/dagster/test_golden.py`` stores what it gives now; what differs
without a new version it never stores.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import pytest
from graph_runs import failure_texts, runner

from assets.evaluation import TITLES
from assets.support.io_managers import recorded_path
from assets.support.resources import DataRoot
from assets.training import VARIANTS
from pipelines.definitions import build_definitions
from pipelines.jobs import assets_of_models
from recmodels.checkpoints.store import load_checkpoint
from recmodels.io.digest import digest_of, frame_digest
from recmodels.models.registry import MODELS
from recmodels.raw.demo import write_demo_dump

pytestmark = pytest.mark.slow

GOLDEN = Path(__file__).with_name("golden.json")
WRITE = "RECMODELS_WRITE_GOLDEN"
EXACT = {
    "raw_dumps", "items", "item_ids", "users", "reviews", "interactions", "rejects", "item_profiles", "user_profiles",
    "item_image_embeddings",
}  # fmt: skip
TOLERANCE = 0.02
"""Of a figure, as a share of the largest of the figures beside it."""
TOLERANCE_OF_RANKINGS = 0.1
"""Where a last bit can change the place of an item."""
RANKINGS = ("metrics", "user_metrics", "recommendations", "leaderboard")
OWN = [name for name in TITLES if name.removeprefix("calibrated/") not in VARIANTS]
"""Models and their calibrated forms; what a variant computes is what its model computes."""

Entry = dict[str, Any]


def figures(values: np.ndarray) -> list[float]:
    """Return the mean, the deviation and a weighted mean, which also tells the order, of an array."""
    flat = values.astype(np.float64).ravel()
    if not flat.size:
        return [0.0, 0.0, 0.0]
    weights = np.cos(np.arange(flat.size))
    return [float(f"{figure:.6g}") for figure in (flat.mean(), flat.std(), (flat * weights).mean())]


def of_table(table: pl.DataFrame) -> Entry:
    """Return the rows of a table, and figures of its numbers."""
    entry: Entry = {"rows": table.height}
    for name, column in table.to_dict().items():
        if isinstance(column.dtype, pl.Array) or column.dtype.is_numeric():
            entry[name] = figures(column.fill_null(0).to_numpy() if column.null_count() else column.to_numpy())
    return entry


def of_checkpoint(path: Path) -> Entry:
    """Return the course of a training, and figures of the parameters that came of it."""
    checkpoint = load_checkpoint(path)
    entry: Entry = {"rows": checkpoint.history.height}
    entry |= {f"valid_recall {row}": [value] for row, value in enumerate(checkpoint.history["valid_recall"].to_list())}
    for name, tensor in sorted(checkpoint.parameters.items()):
        if tensor.is_floating_point() and tensor.numel():
            entry[name] = figures(tensor.numpy())
    return entry


def of_asset(name: str, path: Path, data_version: str) -> Entry:
    """Return what is compared of an asset."""
    if name in EXACT:
        digest = data_version if name == "raw_dumps" else frame_digest(pl.read_parquet(path))
        return {"digest": digest}
    if name == "report":
        return {"digest": digest_of(*re.findall(r"</?[a-z0-9]+", re.sub(r"(?s)<svg.*?</svg>", "", path.read_text())))}
    return of_checkpoint(path) if path.is_dir() else of_table(pl.read_parquet(path))


def differences(expected: Mapping[str, Any], found: Mapping[str, Any], *, ranking: bool = False) -> list[str]:
    """Return the names of the entries that are not the same, or not within the tolerance."""
    different: list[str] = []
    for name in sorted({*expected, *found}):
        before, now = expected.get(name), found.get(name)
        if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
            tolerance = TOLERANCE_OF_RANKINGS if ranking or name.startswith("valid_recall") else TOLERANCE
            scale = tolerance * max(*map(abs, before), *map(abs, now), 1e-6)
            if all(abs(a - b) <= scale for a, b in zip(before, now, strict=True)):
                continue
        elif before == now:
            continue
        different.append(name)
    return different


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Entry]]:
    """What every asset comes out as today, with its code version."""
    folder = tmp_path_factory.mktemp("golden")
    write_demo_dump(folder / "raw", n_users=60, n_items=40)
    (folder / "home").mkdir()
    slow = "".join(f"demo.models.{model}.training.learning_rate = 1e-4\n" for model in ("timemm", "bridge"))
    (folder / "catalogue.toml").write_text(f"demo.sources.amazon2014.k_core = 2\ndemo.training.epochs = 3\n{slow}")
    with pytest.MonkeyPatch.context() as patch, dg.DagsterInstance.local_temp(str(folder / "home")) as instance:
        patch.setenv("RECMODELS_CATALOGUE", str(folder / "catalogue.toml"))
        data_root = DataRoot(path=str(folder / "data"))
        run = runner(data_root, instance)
        results = [
            run("prepare", config={"raw_dumps": {"config": {"raw_dir": str(folder / "raw")}}}),
            run("train", {"dataset": "demo", "seed": "0"}, assets=assets_of_models(OWN)),
            run("evaluate"),
        ]
        assert all(result.success for result in results), [failure_texts(result) for result in results]
        entries: dict[str, Entry] = {}
        for result in results:
            for event in result.get_asset_materialization_events():
                name, record = event.asset_key.to_user_string(), event.materialization
                tags = record.tags or {}
                path = recorded_path(instance, data_root, event.asset_key, record.partition)
                entries[name] = {
                    "code_version": tags["dagster/code_version"],
                    **of_asset(name, path, tags["dagster/data_version"]),
                }
        yield entries


def test_no_result_differs_without_a_raised_code_version(found: dict[str, Entry]) -> None:
    stored: dict[str, Entry] = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    wrong = [f"{name}: is in {GOLDEN.name} and not in the graph: take it out" for name in stored.keys() - found.keys()]
    for name, entry in found.items():
        version = entry["code_version"]
        if stored.get(name, {}).get("code_version") != version:
            stored[name] = entry
            if not os.environ.get(WRITE):
                wrong.append(f"{name}: {GOLDEN.name} has not its code version {version}: store it with {WRITE}=1")
        elif different := differences(stored[name], entry, ranking=name.startswith(RANKINGS)):
            wrong.append(f"{name}: raise its code version, now {version}: {', '.join(different)} differ")
    if os.environ.get(WRITE):
        lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in sorted(stored.items()))
        GOLDEN.write_text(f"{{\n{lines}\n}}\n")
    assert wrong == []


def test_every_asset_and_every_model_is_compared(found: dict[str, Entry]) -> None:
    graph = build_definitions().resolve_asset_graph()
    others = ("variants", "studies", "tuning")
    keys = [key for key in graph.get_all_asset_keys() if graph.get(key).group_name not in others]
    assert found.keys() | {"pipeline_status"} == {key.to_user_string() for key in keys}
    assert {f"checkpoint/{name}" for name in MODELS} <= found.keys()
    assert all(len(entry) > 1 for entry in found.values())


@pytest.mark.parametrize("name", ["interactions", "item_text_knn", "checkpoint/bpr", "metrics/blast"])
def test_a_changed_result_is_noticed(found: dict[str, Entry], name: str) -> None:
    before = found[name]
    assert differences(before, before) == []
    for entry, value in before.items():
        if isinstance(value, list):
            changed = [value[0] * 1.3 + 0.3, *value[1:]]
        else:
            changed = f"{value}x" if isinstance(value, str) else value + 1
        assert differences(before, {**before, entry: changed}) == [entry]
    assert differences(before, {name: value for name, value in before.items() if name != "rows"}) in ([], ["rows"])
