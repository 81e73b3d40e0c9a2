"""The entry points of docker/compose.yaml as plain processes against a real PostgreSQL."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest
import yaml
from deployment import REPOSITORY, Deployment, free_port, overlaps, with_quick_intervals
from postgres import Postgres, running_postgres

from recmodels.checkpoints.store import load_checkpoint
from recmodels.io.digest import frame_digest
from recmodels.raw.demo import write_demo_dump

DOCKER = REPOSITORY / "docker"
TABLES = ("items", "item_ids", "users", "reviews", "interactions", "rejects")
CATALOGUE = """
[demo.models.bpr.training]
epochs = 300
patience = 300
[demo.models.lightgcn.training]
epochs = 300
patience = 300
"""

pytestmark = pytest.mark.slow


class Team(Deployment):
    """The services of the Compose file, each started by its own command."""

    def command(self, service: str) -> list[str]:
        """Return the command of a service, with the paths and ports of this machine in place of the container's."""
        command = _compose()["services"][service].get("command") or _image_command()
        here = {
            "/opt/dagster/workspace.yaml": str(DOCKER / "workspace.yaml"),
            "0.0.0.0": "127.0.0.1",  # noqa: S104 what the containers listen on, replaced
            "3000": str(self.port),
            "3100": self.environment["RECMODELS_EXPLORER"].rpartition(":")[2],
            "4000": self.environment["RECMODELS_CODE_PORT"],
        }
        return [here.get(word, word) for word in command]

    def start_service(self, name: str) -> None:
        """Start a service as Compose does; `restart: unless-stopped` does the same after its end."""
        self.start(name, self.command(name))


def _stored_version(root: Path, table: str) -> str:
    (path,) = (root / "tables" / table / "demo").glob("*.parquet")  # equal tables are stored once
    return frame_digest(pl.read_parquet(path))


def _compose() -> dict[str, Any]:
    return yaml.safe_load((DOCKER / "compose.yaml").read_text())


def _image_command() -> list[str]:
    (line,) = [line for line in (DOCKER / "Dockerfile").read_text().splitlines() if line.startswith("CMD ")]
    return json.loads(line.removeprefix("CMD "))


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server."""
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data root, with a smaller demo than the usual."""
    root = tmp_path_factory.mktemp("data")
    write_demo_dump(root / "raw" / "demo", n_users=60, n_items=40)
    (root / "catalogue.toml").write_text(CATALOGUE)
    return root


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres, root: Path) -> Iterator[Team]:
    """The running deployment."""
    folder = tmp_path_factory.mktemp("team")
    home = folder / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text(with_quick_intervals((DOCKER / "dagster.yaml").read_text()))
    deployment = Team(
        folder,
        {
            "DAGSTER_HOME": str(home),
            "DAGSTER_FILES": str(root / "dagster"),
            "DAGSTER_POSTGRES_HOST": "127.0.0.1",
            "DAGSTER_POSTGRES_PORT": str(postgres.port),
            "DAGSTER_POSTGRES_USER": "dagster",
            "DAGSTER_POSTGRES_PASSWORD": postgres.password,
            "DAGSTER_POSTGRES_DB": "dagster",
            "RECMODELS_CODE_HOST": "127.0.0.1",
            "RECMODELS_CODE_PORT": str(free_port()),
            "RECMODELS_EXPLORER": f"http://127.0.0.1:{free_port()}",
            "RECMODELS_DATA": str(root),
            "RECMODELS_CATALOGUE": str(root / "catalogue.toml"),
        },
        location="recmodels",
        port=free_port(),
    )
    try:
        deployment.run(deployment.command("init"))
        for service in ("code", "webserver", "daemon", "explorer"):
            deployment.start_service(service)
        deployment.wait_until_ready()
        deployment.quiet()
        yield deployment
    finally:
        deployment.stop()


@pytest.fixture(scope="module")
def prepared(team: Team) -> str:
    """A run of the job `prepare` that succeeded."""
    run = team.launch_run("demo", job="prepare")
    assert team.wait_for_run(run) == "SUCCESS", team.messages(run)
    return run


def test_the_set_up_limits_the_pools(team: Team) -> None:
    limits = team.query("{ instance { concurrencyLimits { concurrencyKey slotCount } } }")["concurrencyLimits"]
    assert {limit["concurrencyKey"]: limit["slotCount"] for limit in limits} == {"gpu": 1, "llm": 1}


def test_the_demo_is_prepared_and_recorded_as_it_is_stored(team: Team, prepared: str, root: Path) -> None:
    for table in (*TABLES, "item_profiles", "item_text_knn", "augmented_interactions"):
        (record,) = team.materializations(table, "demo")
        assert record["run"] == prepared
        assert record["version"] == _stored_version(root, table)


def test_tables_materialised_by_two_runs_at_once_are_whole_and_truly_recorded(
    team: Team, prepared: str, root: Path
) -> None:
    runs = [team.launch_run("demo", assets=TABLES) for _ in range(2)]
    assert [team.wait_for_run(run) for run in runs] == ["SUCCESS", "SUCCESS"]
    for table in TABLES:
        newest, *_ = team.materializations(table, "demo")
        assert newest["run"] in runs
        assert newest["version"] == _stored_version(root, table)
    assert not [path for path in (root / "tables").rglob("*") if path.name.endswith(".tmp")]


def test_two_trainings_of_one_partition_at_once_leave_two_whole_checkpoints(
    team: Team, prepared: str, root: Path
) -> None:
    asset, partition = "checkpoint/bpr", "demo|4"
    team.limit_pool("gpu", 2)
    try:
        runs = [team.launch_run(partition, assets=[asset]) for _ in range(2)]
        for run in runs:
            team.wait_until("a training under way", lambda run=run: team.epochs_logged(run))
        assert [team.wait_for_run(run) for run in runs] == ["SUCCESS", "SUCCESS"], [*map(team.messages, runs)]
    finally:
        team.limit_pool("gpu", 1)

    first, second = (team.steps(run)["checkpoint__bpr"] for run in runs)
    assert overlaps([(step["startTime"], step["endTime"]) for step in (first, second)])
    records = team.materializations(asset, partition)
    assert {record["run"] for record in records} == set(runs)
    assert len({record["version"] for record in records}) == 1
    folder = root / "checkpoints" / "checkpoint" / "bpr" / "demo" / "4"
    one, other = (load_checkpoint(folder / run) for run in runs)
    assert one.ranker.user_embeddings.equal(other.ranker.user_embeddings)


def test_records_lead_to_the_explorer_which_shows_what_they_are_about(team: Team, prepared: str) -> None:
    partition = "demo|3"
    run = team.launch_run(partition, assets=["checkpoint/bpr", "recommendations/bpr"])
    assert team.wait_for_run(run) == "SUCCESS", team.messages(run)
    (record,) = team.materializations("recommendations/bpr", partition)
    link = record["links"]["explorer"]
    assert "<title>" in httpx.get(link).raise_for_status().text
    address, _, asked = link.partition("/?")
    user = httpx.get(f"{address}/api/any_user?dataset=demo", timeout=60).raise_for_status().json()["user"]
    shown = httpx.get(f"{address}/api/recommendations?{asked}&user={user}&n=5", timeout=60).raise_for_status().json()
    assert (shown["model"], shown["seed"], len(shown["rows"])) == ("bpr", 3, 5)


def test_a_training_survives_a_restart_of_the_database_or_can_be_executed_again(
    team: Team, postgres: Postgres, prepared: str
) -> None:
    asset, partition = "checkpoint/lightgcn", "demo|0"
    run = team.launch_run(partition, assets=[asset])
    team.wait_until("a training under way", lambda: team.epochs_logged(run))
    postgres.restart("fast")
    team.wait_until_ready()

    status = team.wait_for_run(run)
    if status == "FAILURE":
        told = " ".join(team.messages(run))
        assert "terminating connection" in told or "connection to server" in told or "process" in told
        run = team.reexecute_from_failure(run)
        assert team.wait_for_run(run) == "SUCCESS", team.messages(run)
    assert [record["run"] for record in team.materializations(asset, partition)] == [run]
    for table in TABLES:
        assert team.materializations(table, "demo")
