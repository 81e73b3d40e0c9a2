"""The Dagster instance of this machine: it lives under the data root, so that the UI shows what `make run` did."""

import fcntl
import os
import socket
from importlib.resources import files
from pathlib import Path

import dagster as dg
import psutil

from assets.support.dagster_internals import free_pool_slots
from recmodels.errors import InputError
from recmodels.io.files import atomic_file, data_root
from recmodels.io.processes import has_ended

PROCESS_TAG = "recmodels/process"
UNFINISHED = (dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING)
"""States of a run that has a process."""


def prepare_home() -> Path:
    """
    Create the instance's directory and point ``DAGSTER_HOME`` at it, unless that variable is set already.

    Raises
    ------
    InputError
        If the data root cannot be written.
    """
    root = data_root()
    home = Path(os.environ.get("DAGSTER_HOME") or root / "dagster")
    try:
        home.mkdir(parents=True, exist_ok=True)
        settings = home / "dagster.yaml"
        if not settings.exists():
            with atomic_file(settings) as temporary:
                temporary.write_bytes(files("pipelines").joinpath("local_dagster.yaml").read_bytes())
    except OSError as error:
        raise InputError(
            f"data root {root}",
            expected="a directory that can be written",
            found=error.strerror or str(error),
            action="Name another with RECMODELS_DATA.",
        ) from error
    if not os.access(root, os.W_OK) or not os.access(home, os.W_OK):
        raise InputError(f"data root {root}", expected="a directory that can be written", found="a read-only one")
    os.environ["DAGSTER_HOME"] = str(home)
    return home


def open_instance() -> dg.DagsterInstance:
    """
    Return the persistent instance, created on first use.

    One process at a time: Dagster's own creation notes the schema's version twice if two create the same database at
    once, and refuses to open it ever after.
    """
    with (prepare_home() / ".creation.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return dg.DagsterInstance.get()


def process_tag() -> dict[str, str]:
    """Return the tag of a run that this process executes itself, by which `end_lost_runs` knows it again."""
    process = psutil.Process()
    return {PROCESS_TAG: f"{socket.gethostname()} {process.pid} {process.create_time():.0f}"}


def end_lost_runs(instance: dg.DagsterInstance) -> list[str]:
    """
    Mark the runs failed whose command line is gone, and free what they hold in the pools.

    A killed process cannot say that its run is over, and no daemon watches runs of the command line: without this the
    next run would wait for its pool slot for ever.

    Returns
    -------
    list of str
        Ids of those runs.
    """
    unfinished = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTING, *UNFINISHED]))
    lost = [run for run in unfinished if _is_lost(run.tags.get(PROCESS_TAG))]
    for run in lost:
        report_lost_run(instance, run, "The process that executed this run was killed.")
        free_pool_slots(instance, run.run_id)
    return [run.run_id for run in lost]


def _is_lost(process: str | None) -> bool:
    host, pid, created = process.split() if process else ("", "", "")
    if host != socket.gethostname():
        return False
    return has_ended(int(pid), float(created))


def report_lost_run(instance: dg.DagsterInstance, run: dg.DagsterRun, message: str) -> None:
    """Say that a run has ended of which there is no process any more: cancelled if that was asked for, else failed."""
    if run.status == dg.DagsterRunStatus.CANCELING:
        instance.report_run_canceled(run, message)
    else:
        instance.report_run_failed(run, message)
