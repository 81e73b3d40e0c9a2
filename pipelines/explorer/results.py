"""The current results of one instance, each opened once, and again when its record names another file."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import psutil

from assets.evaluation import TITLES
from assets.serving import current_checkpoint, require_data_set, stale_checkpoints, trained_seeds
from assets.support.io_managers import recorded_path
from assets.support.lineage import latest_materialization, settings_held
from assets.support.resources import DataRoot
from pipelines.explorer.fresh import Fresh
from recmodels.errors import MissingObject
from recmodels.io.tables import read_table
from recmodels.profiles.config import ProfileConfig
from recmodels.serving.data_set import DataSet, Written
from recmodels.serving.recommender import Recommender
from recmodels.validation import validated

SECONDS = 1.0
"""How old what is known of the records may be."""
STALE_SECONDS = 30.0
"""How old the answer may be to what is stale, which takes a second or two to find."""
SHARE_OF_MEMORY = 0.25
"""Of the machine's memory, how much the tensors of open checkpoints may take."""

_GRAPHS = {"text": "item_text_knn", "image": "item_image_knn"}


@dataclass(frozen=True, eq=False)
class _Opened:
    path: Path
    recommender: Recommender
    size: int


@dataclass(frozen=True, eq=False)
class _Read:
    paths: Mapping[str, Path]
    data_set: DataSet


class Results:
    """
    What is current in an instance; new results are seen within a second.

    The tensors of open checkpoints may take `memory` bytes together, by default `SHARE_OF_MEMORY`.
    """

    def __init__(self, instance: dg.DagsterInstance, data_root: DataRoot, *, memory: float | None = None) -> None:
        self._instance = instance
        self._root = data_root
        self._memory = SHARE_OF_MEMORY * psutil.virtual_memory().total if memory is None else memory
        self._lock = threading.Lock()
        self._recommenders: OrderedDict[tuple[str, str, int], Fresh[_Opened]] = OrderedDict()
        self._data_sets: dict[str, Fresh[_Read]] = {}
        self._trained: dict[str, Fresh[dict[str, list[int]]]] = {}
        self._stale: dict[str, Fresh[dict[tuple[str, int], list[str]]]] = {}
        self._prepared = Fresh[frozenset[str]](lambda _: self._look_for_data_sets(), SECONDS)

    def prepared(self) -> frozenset[str]:
        """Return the data sets whose tables are there."""
        return self._prepared.get()

    def trained(self, dataset: str) -> dict[str, list[int]]:
        """Return the seeds of each model that was trained, the models in the order of the leaderboard."""
        return self._fresh(self._trained, dataset, lambda _: self._look_for_models(dataset), SECONDS).get()

    def data_set(self, dataset: str) -> DataSet:
        """
        Return the tables of a data set.

        Raises
        ------
        InputError, MissingObject
            If there is no such data set, or its tables are missing.
        """
        return self._fresh(self._data_sets, dataset, partial(self._read, dataset), SECONDS).get().data_set

    def recommender(self, dataset: str, model: str, seed: int) -> Recommender:
        """Return the current checkpoint of a model, ready to recommend; raises as `open_recommender`."""
        key = (dataset, model, seed)
        with self._lock:
            if key not in self._recommenders:
                self._recommenders[key] = Fresh(partial(self._open, key), SECONDS)
            self._recommenders.move_to_end(key)
            fresh = self._recommenders[key]
        try:
            return fresh.get().recommender
        except Exception:
            with self._lock:
                self._recommenders.pop(key, None)
            raise

    def leaderboard(self, dataset: str) -> pl.DataFrame | None:
        """Return the leaderboard, None where there is none."""
        path = self._path("leaderboard", dataset)
        return None if path is None else read_table(path, "Run `recmodels run` again.")

    def report(self, dataset: str) -> Path:
        """
        Return the file of the report.

        Raises
        ------
        InputError, MissingObject
            If there is no such data set, or no report of it.
        """
        require_data_set(dataset)
        return recorded_path(self._instance, self._root, dg.AssetKey("report"), dataset)

    def has_report(self, dataset: str) -> bool:
        """Tell whether there is a record of a report."""
        return latest_materialization(self._instance, dg.AssetKey("report"), dataset) is not None

    def stale(self, dataset: str) -> dict[tuple[str, int], list[str]]:
        """Return the checkpoints, by model and seed, that are not what a run would make now, and why."""
        return self._fresh(self._stale, dataset, lambda _: self._look_for_stale(dataset), STALE_SECONDS).get()

    def _fresh(
        self, known: dict[str, Fresh[Any]], dataset: str, look_up: Callable[[Any], Any], seconds: float
    ) -> Fresh[Any]:
        if dataset not in known:
            require_data_set(dataset)
            with self._lock:
                known.setdefault(dataset, Fresh(look_up, seconds))
        return known[dataset]

    def _look_for_data_sets(self) -> frozenset[str]:
        return frozenset(self._instance.get_materialized_partitions(dg.AssetKey("interactions")))

    def _look_for_models(self, dataset: str) -> dict[str, list[int]]:
        found = {model: seeds for model in TITLES if (seeds := trained_seeds(self._instance, dataset, model))}
        board = self.leaderboard(dataset)
        # Where there are several of a name, the digits of its provenance stand behind it.
        ranked = [] if board is None else [name.partition(" ")[0] for name in board["model"]]
        return {model: found[model] for model in dict.fromkeys([*ranked, *found]) if model in found}

    def _look_for_stale(self, dataset: str) -> dict[tuple[str, int], list[str]]:
        from pipelines.definitions import defs

        return stale_checkpoints(self._instance, defs.resolve_asset_graph(), dataset, list(self.trained(dataset)))

    def _open(self, key: tuple[str, str, int], last: _Opened | None) -> _Opened:
        path = current_checkpoint(self._instance, self._root, *key)
        if last is not None and last.path == path:
            return last
        recommender = Recommender.load(path)
        size = sum(tensor.nbytes for tensor in recommender.checkpoint.ranker.tensors().values())
        self._make_room(size)
        return _Opened(path, recommender, size)

    def _make_room(self, size: int) -> None:
        """Close the checkpoints that nobody asked for longest, until another one of this size fits."""
        with self._lock:
            sizes = {key: fresh.last.size for key, fresh in self._recommenders.items() if fresh.last}
            left = sum(sizes.values()) + size - self._memory
            for key, freed in sizes.items():
                if left <= 0:
                    break
                del self._recommenders[key]
                left -= freed

    def _read(self, dataset: str, last: _Read | None) -> _Read:
        needed = ("interactions", "users", "items", "reviews")
        optional = ("item_profiles", "user_profiles", *_GRAPHS.values())
        paths = {name: recorded_path(self._instance, self._root, dg.AssetKey(name), dataset) for name in needed}
        paths |= {name: path for name in optional if (path := self._path(name, dataset)) is not None}
        if last is not None and last.paths == paths:
            return last
        tables = {name: read_table(path, f"Materialise {name} again.") for name, path in paths.items()}
        written = {
            name: Written(tables[name], self._profile_config(name, dataset))
            for name in ("item_profiles", "user_profiles")
            if name in tables
        }
        data_set = DataSet(
            tables["interactions"],
            tables["users"],
            tables["items"],
            tables["reviews"],
            item_profiles=written.get("item_profiles"),
            user_profiles=written.get("user_profiles"),
            graphs={name: tables[table] for name, table in _GRAPHS.items() if table in tables},
        )
        return _Read(paths, data_set)

    def _profile_config(self, asset: str, dataset: str) -> ProfileConfig:
        record = latest_materialization(self._instance, dg.AssetKey(asset), dataset)
        if record is None:
            raise MissingObject(f"{asset} of {dataset} was never materialised: materialise it first.")
        held = {name: value for name, value in settings_held(record).items() if name in ProfileConfig.model_fields}
        return validated(ProfileConfig, held, f"settings that {asset} recorded")

    def _path(self, asset: str, dataset: str) -> Path | None:
        """Return the stored file of an asset; None where it was never made."""
        key = dg.AssetKey(asset)
        if latest_materialization(self._instance, key, dataset) is None:
            return None
        return recorded_path(self._instance, self._root, key, dataset)
