"""Training in shards on a Ray cluster: the bytes of this machine, whatever dies."""

import pytest
import torch

from recmodels.errors import InputError
from recmodels.models.base import Model
from recmodels.models.example import example_data
from recmodels.models.registry import build_model, resolve_config
from recmodels.training.trainer import EpochRecord, fit

pytestmark = pytest.mark.slow


def lightgcn(shards: int, **training: object) -> Model:
    training = {"shards": shards, "device": "cpu", "batch_size": 1000, "patience": 10**6, **training}
    return build_model("lightgcn", resolve_config("lightgcn", {"embedding_size": 8, "training": training}), data, 0)


data = example_data()


def test_more_processes_than_processors_are_refused_and_do_not_wait(cluster) -> None:
    compute = cluster.undisturbed()
    with pytest.raises(InputError, match="at most as many as the cluster has CPUs, 2, found 4"):
        fit(lightgcn(4), data, seed=0, compute=compute)


def test_two_processes_of_a_cluster_train_what_two_of_this_machine_do_also_where_one_dies(cluster, tmp_path) -> None:
    settings = {"epochs": 300, "checkpoint_interval": 10}
    here, there = lightgcn(2, **settings), lightgcn(2, **settings)
    expected = fit(here, data, seed=0)
    lost: list[int] = []

    def disturb(record: EpochRecord) -> None:
        if record.epoch == 20:
            lost.append(record.epoch)
            cluster.kill_a_working_node()
            cluster.restore()

    compute = cluster.compute()
    found = fit(there, data, seed=0, on_epoch=[disturb], state_directory=tmp_path, compute=compute)
    assert lost == [20]
    assert int(compute.record()["repeated"]) >= 1
    assert torch.equal(here.state_dict()["nodes"], there.state_dict()["nodes"])
    times = ("training_seconds", "seconds")
    assert found.history.drop(times).equals(expected.history.drop(times))
