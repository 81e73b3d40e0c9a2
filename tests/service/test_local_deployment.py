"""Back-fills and killed processes in what `recmodels dev` starts."""

import json
from collections.abc import Iterator

import psutil
import pytest
from deployment import REPOSITORY, Deployment, kill, local_deployment, overlaps, start_local

DATASETS = ("baby", "sports", "clothing")
SEEDS = ("0", "1", "2")
TABLES = ("raw_dumps", "items", "item_ids", "users", "reviews", "interactions", "rejects")
# A few epochs where nothing happens to the training, enough of them to be interrupted where something does.
TRAINING = """
[baby.models.lightgcn.training]
epochs = 300
patience = 300
[sports.models.layergcn.training]
epochs = 600
patience = 600
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A running local deployment over three tiny data sets."""
    with local_deployment(tmp_path_factory.mktemp("local"), DATASETS, "epochs = 2", TRAINING) as deployment:
        yield deployment


@pytest.fixture(scope="module")
def backfilled(local: Deployment) -> str:
    """The backfill of docs/operating.md, from the raw files to the metrics of BPR, after its end."""
    body = (REPOSITORY / "docs" / "operating.md").read_text().split("```json\n")[1].split("```")[0]
    backfill = local.post(json.loads(body))["backfillId"]
    assert local.wait_for_backfill(backfill, seconds=1200) == "COMPLETED_SUCCESS", local.backfill(backfill)
    return backfill


@pytest.fixture(scope="module")
def tables(local: Deployment) -> None:
    """The tables that training reads, of all three data sets."""
    missing = [dataset for dataset in DATASETS if not local.materializations("interactions", dataset)]
    if missing:
        backfill = local.launch_backfill(TABLES, missing)
        assert local.wait_for_backfill(backfill) == "COMPLETED_SUCCESS", local.backfill(backfill)


def _partitions(dataset: str) -> list[str]:
    return [f"{dataset}|{seed}" for seed in SEEDS]


def test_a_backfill_over_three_data_sets_materialises_every_seed_and_trains_one_at_a_time(
    local: Deployment, backfilled: str
) -> None:
    for dataset in DATASETS:
        assert len(local.materializations("interactions", dataset)) == 1
        for partition in _partitions(dataset):
            assert len(local.materializations("checkpoint/bpr", partition)) == 1
            assert len(local.materializations("metrics/bpr", partition)) == 1

    steps = [local.steps(run) for run in local.run_partitions(backfilled)]
    trainings = [step["checkpoint__bpr"] for step in steps if "checkpoint__bpr" in step]
    assert len(trainings) == 9
    assert overlaps((step["startTime"], step["endTime"]) for step in trainings) == []
    assert local.slots_taken("gpu") == []


def test_a_cancelled_backfill_goes_on_with_what_is_missing(local: Deployment, tables: None) -> None:
    asset, partitions = "checkpoint/lightgcn", _partitions("baby")
    cancelled = local.launch_backfill([asset], partitions)

    def done() -> list[str]:
        return [partition for partition in partitions if local.materializations(asset, partition)]

    local.wait_until("a first checkpoint", done)
    local.cancel_backfill(cancelled)
    assert local.wait_for_backfill(cancelled) == "CANCELED"
    finished_before = done()
    assert 1 <= len(finished_before) < len(partitions)

    resumed = local.resume_backfill(cancelled)
    assert local.wait_for_backfill(resumed) == "COMPLETED_SUCCESS"
    assert sorted(local.run_partitions(resumed).values()) == sorted(set(partitions) - set(finished_before))
    for partition in partitions:
        assert len(local.materializations(asset, partition)) == 1


def test_a_training_that_is_killed_fails_clearly_gives_back_its_slot_and_can_be_executed_again(
    local: Deployment, tables: None
) -> None:
    asset, partition = "checkpoint/layergcn", "sports|0"
    run = local.launch_run(partition, assets=[asset])
    local.wait_until("a training under way", lambda: local.epochs_logged(run))
    assert local.slots_taken("gpu") == [run]
    kill(local.process_of(run))

    assert local.wait_for_run(run) == "FAILURE"
    assert any("terminated by signal 9 (SIGKILL)" in message for message in local.messages(run))
    local.wait_until("a free slot", lambda: not local.slots_taken("gpu"))
    again = local.reexecute_from_failure(run)
    assert local.wait_for_run(again) == "SUCCESS", local.messages(again)
    assert [record["run"] for record in local.materializations(asset, partition)] == [again]


def test_a_backfill_whose_code_server_and_daemon_die_is_completed_by_itself_or_by_resuming_it(
    local: Deployment, tables: None
) -> None:
    asset, partitions = "checkpoint/bpr", _partitions("clothing")
    before = {partition: len(local.materializations(asset, partition)) for partition in partitions}
    backfill = local.launch_backfill([asset], partitions)

    local.wait_until("a run", lambda: local.backfill(backfill)["runs"])
    kill(*_services(local, "code-server start", "api grpc"))
    local.wait_until("a first run that ended", lambda: _ended(local, backfill))
    kill(*_services(local, "dagster._daemon"))
    local.services.pop("dev").wait(timeout=90)
    start_local(local)

    # Runs that were just being launched fail; those that trained outlive the code server.
    if local.wait_for_backfill(backfill) != "COMPLETED_SUCCESS":
        resumed = local.resume_backfill(backfill)
        assert local.wait_for_backfill(resumed) == "COMPLETED_SUCCESS", local.backfill(resumed)
    after = {partition: len(local.materializations(asset, partition)) for partition in partitions}
    assert after == {partition: count + 1 for partition, count in before.items()}


def _ended(local: Deployment, backfill: str) -> list[str]:
    return [run["id"] for run in local.backfill(backfill)["runs"] if run["status"] in {"SUCCESS", "FAILURE"}]


def _services(local: Deployment, *commands: str) -> list[psutil.Process]:
    found = [one for one in local.processes() if any(command in " ".join(one.cmdline()) for command in commands)]
    assert found
    return found
