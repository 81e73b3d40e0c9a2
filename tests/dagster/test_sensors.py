"""Sensors and schedules of the real definitions: what they watch, what they ask for, and which of them are on."""

import os
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest
from graph_runs import Run

from assets.status import KEY as STATUS
from assets.support.resources import DataRoot
from pipelines.definitions import build_definitions
from pipelines.sensors import failure_line, raw_files
from recmodels.raw.demo import write_demo_dump

DEFINITIONS = build_definitions()
GRAPH = DEFINITIONS.resolve_asset_graph()
AUTOMATION = {
    "automate_preparation": dg.DefaultSensorStatus.RUNNING,
    "automate_profiles": dg.DefaultSensorStatus.STOPPED,
    "automate_training": dg.DefaultSensorStatus.STOPPED,
}


def _targets(name: str) -> set[dg.AssetKey]:
    sensor = DEFINITIONS.resolve_sensor_def(name)
    assert isinstance(sensor, dg.AutomationConditionSensorDefinition)
    return set(sensor.asset_selection.resolve(GRAPH))


def test_each_asset_follows_its_inputs_by_exactly_one_sensor() -> None:
    found = sorted(key for name in AUTOMATION for key in _targets(name))
    # The status has no inputs: it reads what the others record, and is made by the clock.
    assert found == sorted(GRAPH.get_all_asset_keys() - {STATUS})
    assert all(GRAPH.get(key).automation_condition is not None for key in found)


def test_no_other_sensor_evaluates_conditions() -> None:
    sensors = DEFINITIONS.get_repository_def().sensor_defs
    evaluating = [sensor.name for sensor in sensors if isinstance(sensor, dg.AutomationConditionSensorDefinition)]
    assert sorted(evaluating) == sorted(AUTOMATION)


@pytest.mark.parametrize(("name", "status"), AUTOMATION.items())
def test_what_costs_hours_or_money_is_off_by_default(name: str, status: dg.DefaultSensorStatus) -> None:
    assert DEFINITIONS.resolve_sensor_def(name).default_status == status


def test_language_models_and_training_belong_to_the_sensors_that_are_off() -> None:
    for key in _targets("automate_preparation"):
        assert GRAPH.get(key).pools == set()
    pools = {pool for name in AUTOMATION for key in _targets(name) for pool in GRAPH.get(key).pools}
    assert pools == {"llm", "gpu"}


class Watch:
    """The raw-file sensor with its cursor."""

    def __init__(self, data_root: DataRoot, instance: dg.DagsterInstance) -> None:
        self.data_root, self.instance, self.cursor = data_root, instance, ""

    def look(self) -> list[str | None]:
        context = dg.build_sensor_context(
            instance=self.instance, cursor=self.cursor, resources={"data_root": self.data_root}
        )
        result = raw_files(context)
        assert isinstance(result, dg.SensorResult)
        self.cursor = result.cursor or ""
        for request in result.run_requests or []:
            assert request.asset_selection == [dg.AssetKey("raw_dumps")]
        return [request.partition_key for request in result.run_requests or []]


@pytest.fixture
def watch(data_root: DataRoot, instance: dg.DagsterInstance) -> Watch:
    return Watch(data_root, instance)


def _verify(run: Run) -> None:
    assert run("prepare", assets=[dg.AssetKey("raw_dumps")]).success


def test_no_files_ask_for_nothing(watch: Watch) -> None:
    assert [watch.look() for _ in range(5)] == [[]] * 5


def test_new_files_are_asked_for_once_they_stand_still(watch: Watch, data_root: DataRoot, run: Run) -> None:
    folder = data_root.raw("demo")
    folder.mkdir(parents=True)
    write_demo_dump(folder)
    assert watch.look() == []
    _touch(folder)
    assert [watch.look() for _ in range(4)] == [[], ["demo"], [], []]
    _verify(run)
    assert [watch.look() for _ in range(3)] == [[]] * 3


def test_a_changed_file_asks_for_its_data_set_only_and_once(watch: Watch, data_root: DataRoot, run: Run) -> None:
    _verify(run)
    assert [watch.look() for _ in range(3)] == [[]] * 3
    _touch(data_root.raw("demo"))
    assert [watch.look() for _ in range(5)] == [[], ["demo"], [], [], []]
    _verify(run)
    assert watch.look() == []
    _touch(data_root.raw("demo"))
    assert [watch.look() for _ in range(3)] == [[], ["demo"], []]


def test_files_are_watched_where_they_were_last_found(watch: Watch, tmp_path: Path, run: Run) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    write_demo_dump(elsewhere)
    config = {"raw_dumps": {"config": {"raw_dir": str(elsewhere)}}}
    assert run("prepare", assets=[dg.AssetKey("raw_dumps")], config=config).success
    assert [watch.look() for _ in range(3)] == [[]] * 3
    _touch(elsewhere)
    assert [watch.look() for _ in range(3)] == [[], ["demo"], []]


def test_the_weekly_evaluation_takes_data_sets_that_were_evaluated(instance: dg.DagsterInstance) -> None:
    schedule = DEFINITIONS.resolve_schedule_def("weekly_evaluation")

    def requested() -> list[str | None]:
        context = dg.build_schedule_context(
            instance,
            scheduled_execution_time=datetime(2026, 1, 5, 5, tzinfo=UTC),
            repository_def=DEFINITIONS.get_repository_def(),
        )
        return [request.partition_key for request in schedule.evaluate_tick(context).run_requests or []]

    assert requested() == []
    instance.report_runless_asset_event(dg.AssetMaterialization("leaderboard", partition="demo"))
    assert requested() == ["demo"]


def _touch(folder: Path) -> None:
    path = sorted(file for file in folder.iterdir() if file.is_file())[0]
    later = path.stat().st_mtime_ns + 1_000_000_000
    os.utime(path, ns=(later, later))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (dg.Failure("first line\nsecond line", allow_retries=False), "first line second line"),
        (ValueError("not\ntoday"), "ValueError: not today"),
    ],
)
def test_a_failed_run_is_told_in_one_line(instance: dg.DagsterInstance, error: Exception, reason: str) -> None:
    @dg.op
    def breaks() -> None:
        raise error

    @dg.job
    def broken() -> None:
        breaks()

    result = broken.execute_in_process(instance=instance, raise_on_error=False, tags={"dagster/partition": "demo"})
    event = next(event for event in result.all_events if event.event_type == dg.DagsterEventType.RUN_FAILURE)
    context = dg.build_run_status_sensor_context(
        sensor_name="report_failures", dagster_event=event, dagster_instance=instance, dagster_run=result.dagster_run
    ).for_run_failure()
    assert failure_line(context) == f"run {result.run_id[:8]} of demo failed: breaks: {reason}"
