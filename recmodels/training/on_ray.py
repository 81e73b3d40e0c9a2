"""
The processes of a training on the machines of a Ray cluster, by Ray Train: started, and started again when one is lost.

What they do is `recmodels.training.launch`'s. Their state lies in the state directory, which all machines must see.
"""

import contextlib
import tempfile
from collections.abc import Generator, Iterator
from dataclasses import replace
from typing import Any

from recmodels.compute.on_ray import TRIES, OnRay
from recmodels.errors import InputError, TransientFailure
from recmodels.training.launch import LONGEST_WAIT, Columns, Job, train_part

_STARTED = "started"
_ENDING_SECONDS = 60.0
"""For Ray Train to end once all processes have told what they had to."""


@contextlib.contextmanager
def started(compute: OnRay, job: Job, initial: list[Columns]) -> Generator[Iterator[object]]:
    """
    Start a process of one CPU for each cut, or one of one GPU where the job names that device.

    Raises
    ------
    InputError
        If the cluster has fewer of them: the processes would wait for each other.
    TransientFailure
        If processes were lost too often.
    """
    ray = compute.connected()
    from ray.util.queue import Queue
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    resource = "GPU" if job.config.training.device == "cuda" else "CPU"
    if (found := compute.living(resource)) < len(initial):
        raise InputError(
            "training.shards",
            expected=f"at most as many as the cluster has {resource}s, {found}",
            found=f"{len(initial)}",
        )
    # Beside the process that asks, and gone with it.
    here: dict[str, Any] = {
        "num_cpus": 0,
        "scheduling_strategy": NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False),
    }
    inbox = Queue(actor_options=here)
    launcher = ray.remote(**here)(_Launcher).remote()
    with tempfile.TemporaryDirectory() as folder:
        given = {
            "job": ray.put(replace(job, deciding_threads=1)),
            "initial": [ray.put(cut) for cut in initial],
            "inbox": inbox,
        }
        training = launcher.fit.remote(given, len(initial), resource == "GPU", folder)
        try:
            yield _told(compute, inbox, training)
            # Ray Train gives its processors back as it ends; killed, it leaves them taken until the run is over.
            ray.wait([training], timeout=_ENDING_SECONDS)
        finally:
            ray.kill(launcher)
            inbox.shutdown(force=True)


class _Launcher:
    """Owns the processes in the place of the one that asks: they end when this is ended."""

    def fit(self, given: dict[str, Any], shards: int, use_gpu: bool, folder: str) -> None:
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer

        TorchTrainer(
            _process,
            train_loop_config=given,
            torch_config=TorchConfig(backend="gloo", timeout_s=int(LONGEST_WAIT.total_seconds())),
            scaling_config=ScalingConfig(num_workers=shards, use_gpu=use_gpu),
            run_config=RunConfig(storage_path=folder, failure_config=FailureConfig(max_failures=TRIES - 1)),
        ).fit()


def _process(given: dict[str, Any]) -> None:
    """Run in each of the processes, which are a group of torch's already."""
    import ray
    import torch.distributed as dist

    rank = dist.get_rank()
    if rank == 0:
        given["inbox"].put(_STARTED)
    train_part(ray.get(given["job"]), ray.get(given["initial"][rank]), given["inbox"].put)


def _told(compute: OnRay, inbox: Any, training: Any) -> Iterator[object]:
    ray = compute.connected()
    from ray.util.queue import Empty

    starts = 0
    while True:
        # Before what they told is read: what they told before they ended counts.
        over, _ = ray.wait([training], timeout=0)
        try:
            try:
                message = inbox.get(timeout=1)
            except Empty:
                if ray.get(over):
                    raise TransientFailure("training on a cluster: it ended, and not all processes told how") from None
                continue
        except ray.exceptions.RayError as error:
            last = str(error).strip().splitlines()[-1]
            raise TransientFailure(f"training on a cluster, its processes started {starts} times: {last}") from error
        if message == _STARTED:
            starts += 1
            if starts > 1:
                compute.count_repeated()
        else:
            yield message
