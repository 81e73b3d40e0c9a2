"""
A Ray cluster in this machine for the tests of this folder: a head without processors and two nodes with one each.

Nodes are real raylets with processes of their own; they are ended by process id, as a machine that dies.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from recmodels.compute import on_ray
from recmodels.compute.on_ray import OnRay

NODES = 2
_AT_REST = ("ray::IDLE", "ray::DashboardAgent", "ray::RuntimeEnvAgent")


class LocalCluster:
    """The cluster, and how its machines die."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self._cluster: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        self.restore()

    @property
    def address(self) -> str:
        """What `OnRay` and RAY_ADDRESS take."""
        return self._cluster.address

    def compute(self) -> OnRay:
        """Return a place to compute that has counted nothing yet."""
        return OnRay(self.address)

    def undisturbed(self) -> OnRay:
        """Return such a place once no node counts any more that died in another test."""
        compute = self.compute()
        compute.connected()
        end = time.monotonic() + 60
        while compute.living("CPU") != NODES:
            assert time.monotonic() < end
            time.sleep(0.1)
        return compute

    def restore(self) -> None:
        """Start nodes for those that died."""
        while len(self._cluster.worker_nodes) < NODES:
            self._cluster.add_node(num_cpus=1)

    def kill_a_working_node(self, seconds: float = 120.0) -> None:
        """Wait until a node works on something, and end all its processes."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for node in self._cluster.worker_nodes:
                (raylet,) = node.all_processes["raylet"]
                workers = _children(raylet.process.pid)
                if any(title.startswith("ray::") and not title.startswith(_AT_REST) for title in workers.values()):
                    self._cluster.remove_node(node, allow_graceful=False)
                    for worker in workers:
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(worker, signal.SIGKILL)
                    return
            time.sleep(0.01)
        raise TimeoutError(f"no node worked on anything for {seconds} seconds")

    def close(self) -> None:
        """End the nodes and the head."""
        self._cluster.shutdown()


def _children(parent: int) -> dict[int, str]:
    """Return the titles of the processes that a process started, by their ids."""
    found: dict[int, str] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                found[int(folder.name)] = (folder / "cmdline").read_text()
    return found


@pytest.fixture(scope="session")
def _machines() -> Iterator[LocalCluster]:
    import ray

    handler = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch:
        # Other processes find the functions of test modules where this one does.
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        # A crowded machine is no reason to end a worker, or to let it wait behind all else.
        patch.setenv("RAY_memory_monitor_refresh_ms", "0")
        patch.setenv("RAY_worker_niceness", "0")
        # A machine is dead when it has not answered for five seconds, in place of fifteen and more.
        patch.setenv("RAY_health_check_initial_delay_ms", "1000")
        patch.setenv("RAY_health_check_period_ms", "1000")
        patch.setenv("RAY_health_check_timeout_ms", "3000")
        machines = LocalCluster()
        signal.signal(signal.SIGTERM, handler)
        yield machines
        ray.shutdown()
        machines.close()


@pytest.fixture
def cluster(_machines: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> LocalCluster:
    """The cluster with all its nodes; a group does not wait long for a node that is gone."""
    monkeypatch.setattr(on_ray, "_JOINING_SECONDS", 8.0)
    _machines.restore()
    return _machines


@pytest.fixture
def kill_one_node_after(cluster: LocalCluster) -> Iterator[Callable[[float], threading.Thread]]:
    """Have a node that works on something die after so many seconds; the thread that does it ends when it is dead."""
    started: list[threading.Thread] = []

    def start(seconds: float = 0.0) -> threading.Thread:
        def kill() -> None:
            time.sleep(seconds)
            cluster.kill_a_working_node()

        started.append(threading.Thread(target=kill, daemon=True))
        started[-1].start()
        return started[-1]

    yield start
    for thread in started:
        thread.join()
