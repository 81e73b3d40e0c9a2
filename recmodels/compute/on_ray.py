"""
On the machines of a Ray cluster, or on the cores of this one through Ray: blocks as tasks, parts in actors.

Machines may die: their blocks are computed again, and a group is built anew. Errors of the functions come as
themselves, and are not tried again. Ray is imported when the first block or part is asked for, and nowhere else.
"""

import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from recmodels.compute.base import Block, Compute, Group, Result
from recmodels.errors import InputError, TransientFailure

TRIES = 5
"""How often a block, or a call of a group, is tried where machines die."""
_JOINING_SECONDS = 30.0
"""How long hosts of a group may take to start beside the first; those that do not are done without."""
_ANSWER_SECONDS = 10.0
_BLOCKS_A_CPU = 2
"""Blocks that are under way for each living processor: one that is computed, and one that is sent."""


class OnRay(Compute):
    """
    A Ray cluster.

    Parameters
    ----------
    address
        Of its head, ``host:port``; empty to start Ray in this machine with all its cores. A process that is connected
        already, as one that Ray started, stays with its cluster.
    """

    engine = "ray"

    def __init__(self, address: str = "") -> None:
        self.address = address
        self._counts = {"nodes": 0, "blocks": 0, "repeated": 0}

    def map(
        self, function: Callable[[Any, Block], Result], blocks: Iterable[Block], *, shared: Any = None, gpus: float = 0
    ) -> Iterator[Result]:
        """Yield the result of every block in order; about two blocks a living processor are under way."""
        ray = self.connected()
        if gpus and not _living("GPU", self._counts):
            raise InputError(
                "device of a stage", expected="a GPU in the cluster", found="none", action="Set the device to cpu."
            )
        task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=0)(_call)
        given = ray.put(shared)
        todo = iter(blocks)
        running: dict[Any, tuple[int, Block, int]] = {}
        done: dict[int, tuple[Result | None, BaseException | None]] = {}
        taken = following = 0
        more = True
        try:
            while True:
                most = _BLOCKS_A_CPU * max(1, _living("CPU", self._counts))
                while more and len(running) + len(done) < most:
                    try:
                        block = next(todo)
                    except StopIteration:
                        more = False
                        continue
                    except Exception as error:  # raised when the blocks before it are done, as in one process
                        done[taken] = None, error
                        more = False
                        continue
                    running[task.remote(function, given, block)] = taken, block, 1
                    taken += 1
                if following in done:
                    result, error = done.pop(following)
                    if error is not None:
                        raise error
                    following += 1
                    self._counts["blocks"] += 1
                    yield result  # pyright: ignore[reportReturnType] there is one where there is no error
                    continue
                if not running:
                    return
                (ready,), _ = ray.wait(list(running), num_returns=1)
                number, block, tries = running.pop(ready)
                try:
                    done[number] = ray.get(ready), None
                except _lost() as error:
                    if tries == TRIES:
                        done[number] = None, _given_up(f"block {number}", error)
                    else:
                        self._counts["repeated"] += 1
                        running[task.remote(function, given, block)] = number, block, tries + 1
                except ray.exceptions.RayTaskError as error:
                    done[number] = None, _cause(error)
        finally:
            for unfinished in running:
                ray.cancel(unfinished)

    def group(self, factory: Callable[[Any, Block], Any], parts: Iterable[Block], *, shared: Any = None) -> Group:
        """Make every part in actors, at most one a living processor."""
        self.connected()
        return _RayGroup(factory, list(parts), shared, self._counts)

    def record(self) -> dict[str, int | str]:
        """Return the engine, and of this object's work the most nodes at once, the blocks, and what was repeated."""
        return {"engine": self.engine, **self._counts}

    def living(self, resource: str) -> int:
        """Return how much of a resource, such as ``CPU``, the living machines have."""
        return _living(resource, self._counts)

    def count_repeated(self) -> None:
        """Count work that was done again because a machine died, beside that of this object's own methods."""
        self._counts["repeated"] += 1

    def connected(self) -> Any:
        """Return the module of Ray, connected to the cluster."""
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        import ray

        if not ray.is_initialized():
            # Ray takes the handler of SIGTERM for itself.
            handler = signal.getsignal(signal.SIGTERM)
            try:
                self._reach()
                ray.init(
                    self.address or "local", include_dashboard=False, log_to_driver=False, logging_level=logging.WARNING
                )
            except (OSError, RuntimeError) as error:
                raise InputError(
                    f"Ray at {self.address or 'this machine'}",
                    expected=f"a head of Ray {ray.__version__} that answers",
                    found=str(error),
                    action="Check the address and that the cluster runs the same versions of Python and Ray.",
                ) from error
            finally:
                if threading.current_thread() is threading.main_thread() and handler is not None:
                    signal.signal(signal.SIGTERM, handler)
        return ray

    def _reach(self) -> None:
        """Raise OSError where nothing answers at the address; Ray itself would ask for many minutes."""
        host, _, port = self.address.rpartition(":")
        if port.isdecimal():
            socket.create_connection((host, int(port)), _ANSWER_SECONDS).close()


class _RayGroup(Group):
    """Hosts in the cluster, each with several parts round robin; all are given up when one of them dies."""

    def __init__(
        self, factory: Callable[[Any, Any], Any], parts: list[Any], shared: Any, counts: dict[str, int]
    ) -> None:
        import ray

        self._ray: Any = ray
        self._factory = factory
        # Kept here, where they outlive every other machine.
        self._parts = [ray.put(part) for part in parts]
        self._shared = ray.put(shared)
        self._counts = counts
        self._hosts: list[Any] = []
        self._try(self._build)

    def call(self, method: str, *arguments: Any, each: Sequence[Any] | None = None) -> list[Any]:
        """Call a method of every part; where a host dies meanwhile, build the group anew and ask all of them again."""
        if each is not None and len(each) != len(self._parts):
            raise ValueError(f"{len(each)} values for {len(self._parts)} parts")
        given = self._ray.put(arguments)

        def ask() -> list[Any]:
            if not self._hosts:
                self._build()
            count = len(self._hosts)
            answers = [
                host.call.remote(method, given, None if each is None else list(each[index::count]))
                for index, host in enumerate(self._hosts)
            ]
            in_order: list[Any] = [None] * len(self._parts)
            for index, of_host in enumerate(self._ray.get(answers)):
                in_order[index::count] = of_host
            return in_order

        return self._try(ask)

    def __exit__(self, *exception: object) -> None:
        """Free the processors and the memory that the parts hold."""
        self._give_up()
        self._parts = []

    def _try(self, work: Callable[[], Result]) -> Result:
        for attempt in range(TRIES):
            try:
                return work()
            except _lost() as error:
                # The survivors hold processors that the new hosts need.
                self._give_up()
                if attempt + 1 == TRIES:
                    raise _given_up("group", error) from error
                self._counts["repeated"] += 1
            except self._ray.exceptions.RayTaskError as error:
                self._give_up()
                raise _cause(error) from None
        raise AssertionError

    def _build(self) -> None:
        ray = self._ray
        host_class = ray.remote(num_cpus=1, max_restarts=0)(_Host)
        # The dead count as living for a while, and others may hold processors.
        most = max(1, _living("CPU", self._counts))
        self._hosts = [host_class.remote() for _ in range(min(len(self._parts), most))]
        ready = {host.ready.remote(): host for host in self._hosts}
        ray.wait(list(ready), num_returns=1)
        there, late = ray.wait(list(ready), num_returns=len(ready), timeout=_JOINING_SECONDS)
        self._hosts = [ready[answer] for answer in there]
        for answer in late:
            ray.kill(ready[answer])
        count = len(self._hosts)
        # One that was placed on a machine that is dying looks ready until it is asked.
        ray.get(there)
        ray.get(
            [
                host.make.remote(self._factory, self._shared, *self._parts[index::count])
                for index, host in enumerate(self._hosts)
            ]
        )

    def _give_up(self) -> None:
        for host in self._hosts:
            self._ray.kill(host)
        self._hosts = []


class _Host:
    """Where several parts of a group live."""

    def __init__(self) -> None:
        self._parts: list[Any] = []

    def ready(self) -> bool:
        return True

    def make(self, factory: Callable[[Any, Any], Any], shared: Any, *parts: Any) -> None:
        self._parts = [factory(shared, part) for part in parts]

    def call(self, method: str, arguments: tuple[Any, ...], each: list[Any] | None) -> list[Any]:
        if each is None:
            return [getattr(part, method)(*arguments) for part in self._parts]
        return [getattr(part, method)(own, *arguments) for part, own in zip(self._parts, each, strict=True)]


def _call(function: Callable[[Any, Any], Any], shared: Any, block: Any) -> Any:
    return function(shared, block)


def _living(resource: str, counts: dict[str, int]) -> int:
    """Return how much of a resource the living nodes have, and count these."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    counts["nodes"] = max(counts["nodes"], len(nodes))
    return int(sum(resources.get(resource, 0) for resources in nodes))


def _lost() -> tuple[type[Exception], ...]:
    """Return the errors of machines and processes, not of functions."""
    from ray.exceptions import NodeDiedError, ObjectLostError, OutOfMemoryError, RayActorError, WorkerCrashedError

    return RayActorError, WorkerCrashedError, NodeDiedError, ObjectLostError, OutOfMemoryError


def _cause(error: Any) -> BaseException:
    """Return what a function raised, with what Ray says of where as its cause."""
    cause = error.cause
    cause.__cause__ = error
    return cause


def _given_up(what: str, error: Exception) -> TransientFailure:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return TransientFailure(f"{what}: its machine or process ended {TRIES} times, the last time: {lines[0]}")
