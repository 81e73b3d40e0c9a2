"""
What is asked of finished results: which checkpoint is current, opened for answers by name.

Nothing here is an asset, and nothing is written.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from assets.evaluation import TITLES
from assets.support.io_managers import read_table, recorded_path
from assets.support.partitions import DATASETS
from assets.support.resources import DataRoot
from assets.support.staleness import survey
from assets.training import checkpoint_key
from recmodels.errors import InputError, MissingObject
from recmodels.io.files import instance_home
from recmodels.models.registry import NON_PERSONALISED
from recmodels.validation import require_known

if TYPE_CHECKING:
    import polars as pl

    from assets.support.dagster_internals import AssetGraph
    from recmodels.serving.recommender import Recommender


def open_recommender(
    dataset: str,
    model: str,
    seed: int = 0,
    *,
    instance: dg.DagsterInstance | None = None,
    data_root: DataRoot | None = None,
) -> "Recommender":
    """
    Open the current checkpoint of a model, with the titles of the items.

    Parameters
    ----------
    dataset
        A key of the catalogue.
    model
        A name of `recmodels models`; ``calibrated/<model>`` for a calibrated form.
    seed
        Which training of it.
    instance
        Where the records are; that of ``DAGSTER_HOME``, or else of the data root, by default.
    data_root
        Where the files are; ``RECMODELS_DATA``, or else ``./data``, by default.

    Raises
    ------
    InputError
        If the data set or the model is unknown, or was not trained with this seed: what there is is listed.
    MissingObject
        If the checkpoint is gone or damaged.
    """
    from recmodels.serving.recommender import Recommender

    root = data_root or DataRoot()
    if instance is None:
        with _current_instance(root.root) as opened:
            return open_recommender(dataset, model, seed, instance=opened, data_root=root)
    path = current_checkpoint(instance, root, dataset, model, seed)
    try:
        items = read_table(instance, root, "items", dataset)
    except MissingObject:
        items = None
    return Recommender.load(path, items=items)


def current_checkpoint(instance: dg.DagsterInstance, data_root: DataRoot, dataset: str, model: str, seed: int) -> Path:
    """Return the folder of the current checkpoint of a model; raises as `open_recommender`."""
    require_data_set(dataset)
    require_known("model", model, TITLES)
    seeds = trained_seeds(instance, dataset, model)
    if seed not in seeds:
        others = [other for other in TITLES if trained_seeds(instance, dataset, other)]
        raise InputError(
            f"checkpoint of {model} for {dataset}",
            expected=f"one of seed {seed!r}",
            found=f"seeds {', '.join(map(str, seeds))}" if seeds else "none",
            action=f"Trained are {', '.join(others)}." if others else f"Run `recmodels run --dataset {dataset}` first.",
        )
    return recorded_path(instance, data_root, checkpoint_key(model), seed_partition(dataset, seed))


def require_data_set(dataset: str) -> None:
    """Raise InputError, which tells the nearest one, for what is no key of the catalogue."""
    require_known("data set", dataset, DATASETS.get_partition_keys())


def stale_checkpoints(
    instance: dg.DagsterInstance, graph: "AssetGraph", dataset: str, models: Sequence[str]
) -> dict[tuple[str, int], list[str]]:
    """Return the checkpoints, by model and seed, that a run would make anew or cannot vouch for, and why."""
    found = survey(instance, graph, [checkpoint_key(model) for model in models])
    return {
        (model, status.partition.seed): [*status.changes, *status.waits]
        for model in models
        for status in found.statuses[checkpoint_key(model)].values()
        if status.partition.dataset == dataset and status.partition.seed is not None and status.is_stale
    }


def trained_seeds(instance: dg.DagsterInstance, dataset: str, model: str) -> list[int]:
    """Return the seeds that there is a checkpoint of, ascending."""
    return recorded_seeds(instance, checkpoint_key(model), dataset)


def recorded_seeds(instance: dg.DagsterInstance, key: dg.AssetKey, dataset: str) -> list[int]:
    """Return the seeds of a data set that there is a record of an asset for, ascending."""
    partitions = (name.rpartition("|") for name in instance.get_materialized_partitions(key))
    return sorted(int(seed) for of, _, seed in partitions if of == dataset)


def seed_partition(dataset: str, seed: int) -> dg.MultiPartitionKey:
    """Return the partition of a data set and a seed."""
    return dg.MultiPartitionKey({"dataset": dataset, "seed": str(seed)})


def best_model(board: "pl.DataFrame") -> str | None:
    """Return the best trained model of a leaderboard, None where only baselines are on it."""
    # Where there are several of a name, the digits of its provenance stand behind it.
    names = (name.partition(" ")[0] for name in board["model"].unique(maintain_order=True))
    return next((name for name in names if name not in NON_PERSONALISED), None)


def _current_instance(root: Path) -> dg.DagsterInstance:
    home = instance_home(root)
    if not home.is_dir():
        raise InputError(
            f"Dagster's records {home}",
            expected="those of a finished run",
            found="none",
            action="Run `recmodels run` first, or name the data root with RECMODELS_DATA.",
        )
    return dg.DagsterInstance.from_config(str(home))
