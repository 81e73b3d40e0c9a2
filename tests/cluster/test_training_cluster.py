"""Training in shards on a Ray cluster of three machines of one processor: the bytes of this machine, whatever dies."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from recmodels.compute.on_ray import OnRay
from recmodels.errors import InputError
from recmodels.models.base import Model
from recmodels.models.example import example_data
from recmodels.models.registry import build_model, resolve_config
from recmodels.training.trainer import EpochRecord, fit

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def machines() -> Iterator[Any]:
    """A head and two more, whose processes find the package that is tested."""
    import ray
    from ray.cluster_utils import Cluster

    with mock.patch.dict(os.environ, {"PYTHONPATH": os.pathsep.join(sys.path), "RAY_USAGE_STATS_ENABLED": "0"}):
        found = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        for _ in range(2):
            found.add_node(num_cpus=1)
    yield found
    ray.shutdown()
    found.shutdown()


def lightgcn(shards: int, **training: object) -> Model:
    training = {"shards": shards, "device": "cpu", "batch_size": 1000, "patience": 10**6, **training}
    return build_model("lightgcn", resolve_config("lightgcn", {"embedding_size": 8, "training": training}), data, 0)


data = example_data()


def test_more_processes_than_processors_are_refused_and_do_not_wait(machines) -> None:
    with pytest.raises(InputError, match="at most as many as the cluster has CPUs, 3, found 4"):
        fit(lightgcn(4), data, seed=0, compute=OnRay(machines.address))


def test_two_processes_of_a_cluster_train_what_two_of_this_machine_do_also_where_one_dies(machines, tmp_path) -> None:
    from ray.util import placement_group_table

    settings = {"epochs": 300, "checkpoint_interval": 10}
    here, there = lightgcn(2, **settings), lightgcn(2, **settings)
    expected = fit(here, data, seed=0)
    lost: list[str] = []

    def disturb(record: EpochRecord) -> None:
        if record.epoch < 20 or lost:
            return
        (used,) = (
            set(table["bundles_to_node_id"].values())
            for table in placement_group_table().values()
            if table["state"] == "CREATED"
        )
        victim = next(node for node in machines.list_all_nodes() if not node.head and node.node_id in used)
        lost.append(victim.node_id)
        machines.remove_node(victim, allow_graceful=False)

    compute = OnRay(machines.address)
    found = fit(there, data, seed=0, on_epoch=[disturb], state_directory=Path(tmp_path), compute=compute)
    assert lost
    assert compute.record()["repeated"] == 1
    assert torch.equal(here.state_dict()["nodes"], there.state_dict()["nodes"])
    times = ("training_seconds", "seconds")
    assert found.history.drop(times).equals(expected.history.drop(times))
