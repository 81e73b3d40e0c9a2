"""Deployments made of plain processes on loopback, driven as users drive them: through GraphQL."""

import contextlib
import functools
import itertools
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import httpx
import psutil
import pytest
import yaml

from recmodels.raw.demo import IMAGE_FEATURES_NAME, METADATA_NAME, REVIEWS_NAME, write_demo_dump

REPOSITORY = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
MARK = "RECMODELS_TEST_DEPLOYMENT"
SERVICES_REQUIRED = "RECMODELS_REQUIRE_SERVICES"
FINISHED = {"SUCCESS", "FAILURE", "CANCELED"}
SENSORS = ("raw_files", "automate_preparation")

PATIENCE = 400
"""Seconds to wait for anything: on a busy machine a run takes half a minute to import its libraries."""
POOLED_CONNECTIONS = 20
"""Each connection that the webserver keeps open fails once after a restart of the database."""

QUICK: dict[str, dict[str, Any]] = {
    "run_queue": {"dequeue_interval_seconds": 1},
    "run_monitoring": {
        "poll_interval_seconds": 1,
        "free_slots_after_run_end_seconds": 1,
        "start_timeout_seconds": 60,
    },
}
"""Settings laid over those that are shipped: the same watching, at shorter intervals."""

# Dagster looks at backfills every 30 seconds, and no setting says otherwise.
EAGER_DAEMON = """
import sys
if any("dagster-daemon" in word or "dagster._daemon" in word for word in sys.orig_argv):
    import dagster._daemon.controller
    dagster._daemon.controller.DEFAULT_DAEMON_INTERVAL_SECONDS = 3
"""


def absent_service(reason: str) -> NoReturn:
    """End a test that needs a program which is not there: as failed where services are required, else as skipped."""
    if os.environ.get(SERVICES_REQUIRED) == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def free_port() -> int:
    """Return a port on loopback that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def tiny_datasets(root: Path, datasets: Iterable[str], training: str, more: str) -> Path:
    """Write a few dozen users and items as the raw files of each data set; return the catalogue that says so."""
    files = f'{{ reviews = "{REVIEWS_NAME}", metadata = "{METADATA_NAME}", image_features = "{IMAGE_FEATURES_NAME}" }}'
    entries: list[str] = []
    for seed, dataset in enumerate(datasets):
        write_demo_dump(root / "raw" / dataset, seed=seed, n_users=60, n_items=40)
        entries.append(f"[{dataset}.sources.amazon2014]\nfiles = {files}\n")
        entries.append(f"[{dataset}.training]\nbatch_size = 256\n{training}\n")
    path = root / "catalogue.toml"
    path.write_text("\n".join([*entries, more]))
    return path


def with_quick_intervals(settings: str) -> str:
    """Return a `dagster.yaml` with the intervals of `QUICK`."""
    shipped = yaml.safe_load(settings)
    return yaml.safe_dump(shipped | {name: shipped.get(name, {}) | quick for name, quick in QUICK.items()})


@dataclass
class Deployment:
    """
    The processes of a deployment and what one asks of it.

    Attributes
    ----------
    folder
        Where the services' logs lie.
    environment
        What the services see beside the environment of the tests.
    location
        Name of the code location.
    port
        Port of the user interface.
    """

    folder: Path
    environment: dict[str, str]
    location: str
    port: int
    services: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __post_init__(self) -> None:
        eager = self.folder / "eager"
        eager.mkdir()
        (eager / "sitecustomize.py").write_text(EAGER_DAEMON)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("DAGSTER", "RECMODELS"))}
        self.environment = {
            **inherited,
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "PYTHONPATH": str(eager),
            "OMP_NUM_THREADS": "1",
            "OMP_WAIT_POLICY": "passive",
            MARK: self.mark,
            **self.environment,
        }

    def start(self, name: str, command: Sequence[str]) -> None:
        """Start a service in a process group of its own."""
        with (self.folder / f"{name}.log").open("ab") as log:
            self.services[name] = subprocess.Popen(
                command,
                cwd=REPOSITORY,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def run(self, command: Sequence[str]) -> None:
        """Run a command that ends, in the services' environment."""
        done = subprocess.run(command, cwd=REPOSITORY, env=self.environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}{done.stderr}"

    def processes(self) -> list[psutil.Process]:
        """Return every process of this deployment, however it came to life."""
        found: list[psutil.Process] = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(MARK) == self.mark:
                    found.append(process)
        return found

    def kill_service(self, name: str) -> None:
        """Kill a service with everything below it, as the end of a container does."""
        service = psutil.Process(self.services.pop(name).pid)
        kill(service, *service.children(recursive=True))

    def stop(self) -> None:
        """Kill whatever is left of the deployment."""
        while left := self.processes():
            kill(*left)
        for service in self.services.values():
            service.wait()

    def logs(self) -> str:
        """Return the ends of the services' logs."""
        tails = [f"== {path.name}\n{path.read_text()[-3000:]}" for path in sorted(self.folder.glob("*.log"))]
        return "\n".join(tails)

    def wait_until(self, what: str, condition: Callable[[], Any], *, seconds: float = PATIENCE) -> Any:
        """Return the first true value of a condition; fail with the services' logs if there is none in time."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if value := condition():
                return value
            time.sleep(0.5)
        raise AssertionError(f"{what}: not within {seconds} seconds\n{self.logs()}")

    def query(self, text: str, **variables: Any) -> Any:
        """Return the one field that a GraphQL document asks for."""
        return self.post({"query": text, "variables": variables})

    def post(self, body: Mapping[str, Any]) -> Any:
        """Return the one field that a GraphQL request asks for."""
        for _ in range(POOLED_CONNECTIONS):
            answer = httpx.post(f"http://127.0.0.1:{self.port}/graphql", json=body, timeout=60).json()
            if "psycopg2.OperationalError" not in str(answer.get("errors")):
                break
        assert not answer.get("errors"), answer["errors"]
        (value,) = answer["data"].values()
        assert not (isinstance(value, dict) and value.get("__typename", "").endswith("Error")), value
        return value

    def wait_until_ready(self) -> None:
        """Wait for the definitions behind the user interface and for a daemon that is alive."""

        def ready() -> bool:
            with contextlib.suppress(httpx.HTTPError, AssertionError, KeyError):
                entries = self.query(
                    "{ workspaceOrError { ... on Workspace { locationEntries { name locationOrLoadError "
                    "{ __typename } } } } }"
                )["locationEntries"]
                health = self.query(
                    "{ instance { daemonHealth { allDaemonStatuses { daemonType required healthy } } } }"
                )["daemonHealth"]["allDaemonStatuses"]
                loaded = [entry["locationOrLoadError"] for entry in entries]
                return bool(loaded) and all(
                    [
                        *((one or {}).get("__typename") == "RepositoryLocation" for one in loaded),
                        *(one["healthy"] for one in health if one["required"]),
                    ]
                )
            return False

        self.wait_until("a deployment that is ready", ready)

    def quiet(self) -> None:
        """Turn off what would start runs by itself, asking again where a deployment that just started refuses."""

        def stopped(sensor: str) -> bool:
            with contextlib.suppress(AssertionError):
                self.query(
                    "mutation($id: String!) { stopSensor(id: $id) { __typename } }",
                    id=self.query(
                        "query($selector: SensorSelector!) { sensorOrError(sensorSelector: $selector) "
                        "{ ... on Sensor { id } } }",
                        selector={**self._repository(), "sensorName": sensor},
                    )["id"],
                )
                return True
            return False

        for sensor in SENSORS:
            self.wait_until(f"{sensor} turned off", functools.partial(stopped, sensor), seconds=60)

    def _repository(self) -> dict[str, str]:
        return {"repositoryName": "__repository__", "repositoryLocationName": self.location}

    def launch_backfill(self, assets: Iterable[str], partitions: Sequence[str]) -> str:
        """Launch a backfill over the asset graph; partitions are those of the assets at its root."""
        return self.query(
            LAUNCH_BACKFILL,
            params={"assetSelection": [asset_key(name) for name in assets], "partitionNames": list(partitions)},
        )["backfillId"]

    def backfill(self, backfill_id: str) -> dict[str, Any]:
        """Return status, error and runs of a backfill."""
        return self.query(
            "query($id: String!) { partitionBackfillOrError(backfillId: $id) { __typename ... on PartitionBackfill "
            "{ status error { message } runs { id status tags { key value } } } } }",
            id=backfill_id,
        )

    def run_partitions(self, backfill_id: str) -> dict[str, str]:
        """Return the runs of a backfill with the partition of each."""
        return {
            run["id"]: tag["value"]
            for run in self.backfill(backfill_id)["runs"]
            for tag in run["tags"]
            if tag["key"] == "dagster/partition"
        }

    def cancel_backfill(self, backfill_id: str) -> None:
        """Cancel a backfill and its runs."""
        self.query("mutation($id: String!) { cancelPartitionBackfill(backfillId: $id) { __typename } }", id=backfill_id)

    def resume_backfill(self, backfill_id: str) -> str:
        """Launch what an ended backfill did not materialise; return the id of the new one."""
        return self.query(
            "mutation($params: ReexecutionParams!) { reexecutePartitionBackfill(reexecutionParams: $params) "
            "{ __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }",
            params={"parentRunId": backfill_id, "strategy": "FROM_FAILURE"},
        )["backfillId"]

    def wait_for_backfill(self, backfill_id: str, *, seconds: float = PATIENCE) -> str:
        """Return the status with which a backfill ends."""
        ends = {"COMPLETED_SUCCESS", "COMPLETED_FAILED", "FAILED", "CANCELED"}
        return self.wait_until(
            f"end of backfill {backfill_id}",
            lambda: (status := self.backfill(backfill_id)["status"]) in ends and status,
            seconds=seconds,
        )

    def launch_run(
        self,
        partition: str | None,
        *,
        job: str = "__ASSET_JOB",
        assets: Iterable[str] = (),
        config: Mapping[str, Any] = {},
    ) -> str:
        """Launch a run of one partition, None for assets without any, and return its id."""
        tags = [{"key": "dagster/partition", "value": partition}] if partition else []
        if partition and "|" in partition:
            names = zip(("dataset", "seed"), partition.split("|"), strict=True)
            tags += [{"key": f"dagster/partition/{name}", "value": value} for name, value in names]
        selection = [asset_key(name) for name in assets] or None
        return self.query(
            "mutation($params: ExecutionParams!) { launchRun(executionParams: $params) { __typename "
            "... on LaunchRunSuccess { run { id } } ... on PythonError { message } "
            "... on RunConfigValidationInvalid { errors { message } } } }",
            params={
                "selector": {**self._repository(), "jobName": job, "assetSelection": selection},
                "runConfigData": dict(config),
                "executionMetadata": {"tags": tags},
            },
        )["run"]["id"]

    def reexecute_from_failure(self, run_id: str) -> str:
        """Run again what a failed run did not finish."""
        return self.query(
            "mutation($params: ReexecutionParams!) { launchRunReexecution(reexecutionParams: $params) { __typename "
            "... on LaunchRunSuccess { run { id } } ... on PythonError { message } } }",
            params={"parentRunId": run_id, "strategy": "FROM_FAILURE"},
        )["run"]["id"]

    def run_status(self, run_id: str) -> str:
        """Return the status of a run."""
        return self._run(run_id, "status")["status"]

    def wait_for_run(self, run_id: str, *, seconds: float = PATIENCE) -> str:
        """Return the status with which a run ends."""
        return self.wait_until(
            f"end of run {run_id}",
            lambda: (status := self.run_status(run_id)) in FINISHED and status,
            seconds=seconds,
        )

    def steps(self, run_id: str) -> dict[str, dict[str, Any]]:
        """Return status, start and end of the steps of a run, by step."""
        stats = self._run(run_id, "stepStats { stepKey status startTime endTime }")["stepStats"]
        return {step["stepKey"]: step for step in stats}

    def messages(self, run_id: str) -> list[str]:
        """Return the events of a run as texts, with the messages of the errors among them."""
        events = self._run(
            run_id,
            "eventConnection { events { ... on MessageEvent { message } "
            "... on ExecutionStepFailureEvent { error { message causes { message } } } "
            "... on RunFailureEvent { error { message } } } }",
        )["eventConnection"]["events"]
        return [f"{event.get('message')} {event.get('error') or ''}" for event in events]

    def epochs_logged(self, run_id: str) -> bool:
        """Tell whether a run has begun to train."""
        return any(message.startswith("epoch ") for message in self.messages(run_id))

    def process_of(self, run_id: str) -> psutil.Process:
        """Return the process of a run, which the steps' processes descend from."""
        started = "Started process for run (pid: "
        (line,) = [text for text in self.messages(run_id) if text.startswith(started)]
        return psutil.Process(int(line.removeprefix(started).split(")")[0]))

    def _run(self, run_id: str, fields: str) -> dict[str, Any]:
        return self.query(
            f"query($id: ID!) {{ runOrError(runId: $id) {{ __typename ... on Run {{ {fields} }} }} }}", id=run_id
        )

    def materializations(self, asset: str, partition: str) -> list[dict[str, Any]]:
        """Return the records of one partition of an asset, the newest first: run id, data version, links by label."""
        (node,) = self.query(
            "query($keys: [AssetKeyInput!]!, $partitions: [String!]) { assetNodes(assetKeys: $keys) "
            "{ assetMaterializations(partitions: $partitions) { runId tags { key value } "
            "metadataEntries { label ... on UrlMetadataEntry { url } } } } }",
            keys=[asset_key(asset)],
            partitions=[partition],
        )
        return [
            {
                "run": record["runId"],
                "version": tag["value"],
                "links": {entry["label"]: entry["url"] for entry in record["metadataEntries"] if "url" in entry},
            }
            for record in node["assetMaterializations"]
            for tag in record["tags"]
            if tag["key"] == "dagster/data_version"
        ]

    def limit_pool(self, pool: str, slots: int) -> None:
        """Set how many steps of a pool may run at once."""
        self.query(
            "mutation($pool: String!, $slots: Int!) { setConcurrencyLimit(concurrencyKey: $pool, limit: $slots) }",
            pool=pool,
            slots=slots,
        )

    def slots_taken(self, pool: str) -> list[str]:
        """Return the runs that hold a slot of a pool."""
        limit = self.query(
            "query($key: String!) { instance { concurrencyLimit(concurrencyKey: $key) { claimedSlots { runId } } } }",
            key=pool,
        )["concurrencyLimit"]
        return [slot["runId"] for slot in limit["claimedSlots"]]


LAUNCH_BACKFILL = """
mutation($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}
"""


def asset_key(name: str) -> dict[str, list[str]]:
    """Return an asset key as GraphQL wants it."""
    return {"path": name.split("/")}


def kill(*processes: psutil.Process) -> None:
    """Kill processes at once and wait until they are gone."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGKILL)
    psutil.wait_procs(list(processes), timeout=10)


def overlaps(spans: Iterable[tuple[float, float]]) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """Return the neighbours among time spans that overlap."""
    return [(one, next_) for one, next_ in itertools.pairwise(sorted(spans)) if next_[0] < one[1]]


@contextlib.contextmanager
def local_deployment(folder: Path, datasets: Iterable[str], training: str, more: str = "") -> Generator[Deployment]:
    """Yield what `recmodels dev` starts, over a data root with tiny data sets."""
    root = folder / "data"
    home = root / "dagster"
    home.mkdir(parents=True)
    (home / "dagster.yaml").write_text(
        with_quick_intervals((REPOSITORY / "pipelines" / "local_dagster.yaml").read_text())
    )
    deployment = Deployment(
        folder,
        {
            "RECMODELS_DATA": str(root),
            "RECMODELS_CATALOGUE": str(tiny_datasets(root, datasets, training, more)),
            "RECMODELS_SEEDS": "0,1,2",
        },
        location="pipelines.definitions",
        port=free_port(),
    )
    try:
        start_local(deployment)
        deployment.quiet()
        yield deployment
    finally:
        deployment.stop()


def start_local(deployment: Deployment) -> None:
    """Start `recmodels dev` and wait until it is ready."""
    deployment.start("dev", [str(BIN / "recmodels"), "dev", "--port", str(deployment.port)])
    deployment.wait_until_ready()
