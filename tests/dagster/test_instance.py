"""The instance of the command line."""

import multiprocessing
from multiprocessing.synchronize import Barrier

import dagster as dg

from pipelines.instance import open_instance
from recmodels.io.files import DATA_ROOT_VARIABLE


def open_it(barrier: Barrier) -> None:
    barrier.wait()
    with open_instance() as instance:
        instance.get_runs_count()


def test_several_processes_create_one_instance(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv(DATA_ROOT_VARIABLE, str(tmp_path))
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    forking = multiprocessing.get_context("fork")
    barrier = forking.Barrier(6)
    processes = [forking.Process(target=open_it, args=(barrier,)) for _ in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 6
    with dg.DagsterInstance.from_config(str(tmp_path / "dagster")) as instance:
        assert instance.get_runs_count() == 0
