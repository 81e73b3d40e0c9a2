"""Ticks of the automation, by what they ask for."""

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from assets.support.partitions import ALL_SEEDS, DATASET_SEEDS, DATASETS
from pipelines.automation import follow_inputs

ROOT = "files"
SEEDED = dg.MultiPartitionKey({"dataset": "demo", "seed": "0"})
Requests = dict[str, set[str]]


@dataclass
class World:
    """
    Stand-ins for the stages, whose content a test sets by hand.

    files -> tables -> profiles -> vectors -> model -> scores -> board; vectors and the model read tables, too, so that
    there are short ways round every stage; two seeds of the model meet again in the board.
    """

    instance: dg.DagsterInstance
    content: dict[str, str] = field(default_factory=dict)
    code: dict[str, str] = field(default_factory=dict)
    failing: set[str] = field(default_factory=set)
    rejected: set[str] = field(default_factory=set)
    during: dict[str, Callable[[], object]] = field(default_factory=dict)
    cursor: Any = None
    built: dict[str, dg.Definitions] = field(default_factory=dict)

    def asset(self, name: str, deps: Iterable[str], partitions: dg.PartitionsDefinition[Any]) -> dg.AssetsDefinition:
        over_seeds = partitions is DATASETS
        ins = {
            dep: dg.AssetIn(dep, dagster_type=dg.Nothing, partition_mapping=ALL_SEEDS)
            if over_seeds and dep in {"model", "scores"}
            else dg.AssetIn(dep, dagster_type=dg.Nothing)
            for dep in deps
        }

        @dg.asset(name=name, ins=ins, partitions_def=partitions, code_version=self.code.get(name, "1"))
        def stand_in(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
            self.during.pop(name, lambda: None)()
            if name in self.failing:
                raise dg.Failure(f"{name} fails", allow_retries=False)
            version = self.content.get(name, self.content.get(f"{name}/{context.partition_key}", "1"))
            return dg.MaterializeResult(data_version=dg.DataVersion(version))

        return stand_in

    @property
    def definitions(self) -> dg.Definitions:
        """The stand-ins as they are with the code versions of the moment."""
        version = str(self.code)
        if version not in self.built:
            self.built[version] = self._build()
        return self.built[version]

    def _build(self) -> dg.Definitions:
        @dg.asset_check(asset="tables", blocking=True, partitions_def=DATASETS)
        def tables_are_sound() -> dg.AssetCheckResult:
            return dg.AssetCheckResult(passed="tables" not in self.rejected)

        stages = [
            self.asset(ROOT, [], DATASETS),
            self.asset("tables", [ROOT], DATASETS),
            self.asset("profiles", ["tables"], DATASETS),
            self.asset("vectors", [ROOT, "tables", "profiles"], DATASETS),
            self.asset("model", ["tables", "vectors"], DATASET_SEEDS),
            self.asset("scores", ["tables", "model"], DATASET_SEEDS),
            self.asset("board", ["tables", "scores"], DATASETS),
        ]
        return dg.Definitions(assets=follow_inputs(stages), asset_checks=[tables_are_sound])

    def make(self, names: str, partition: str = "demo") -> dg.ExecuteInProcessResult:
        """Materialise assets in one run, with their checks."""
        keys = [dg.AssetKey(name) for name in names.split()]
        job = self.definitions.resolve_implicit_job_def_def_for_assets(keys)
        assert job is not None
        return job.execute_in_process(
            instance=self.instance,
            partition_key=partition,
            asset_selection=keys,
            raise_on_error=False,
        )

    def tick(self, *only: str) -> Requests:
        """Evaluate the conditions once and return the partitions that are asked for, by asset."""
        selection = dg.AssetSelection.assets(*only) if only else None
        result = dg.evaluate_automation_conditions(
            self.definitions, self.instance, asset_selection=selection, cursor=self.cursor
        )
        self.cursor = result.cursor
        names = [key.to_user_string() for key in self.definitions.resolve_asset_graph().get_all_asset_keys()]
        requested = {name: set(result.get_requested_partitions(dg.AssetKey(name))) for name in names}
        return {name: {str(p) for p in partitions} for name, partitions in requested.items() if partitions}

    def settle(self, *only: str) -> list[Requests]:
        """Tick and run what is asked for until nothing is; return the requests of each tick."""
        ticks: list[Requests] = []
        while requests := self.tick(*only):
            ticks.append(requests)
            assert len(ticks) < 20, ticks
            for name, partitions in requests.items():
                for partition in sorted(partitions):
                    self.make(name, _key(partition))
        return ticks


def _key(partition: str) -> str:
    dataset, _, seed = partition.partition("|")
    return dg.MultiPartitionKey({"dataset": dataset, "seed": seed}) if seed else partition


def _times_made(ticks: list[Requests]) -> Mapping[str, list[str]]:
    made: dict[str, list[str]] = {}
    for requests in ticks:
        for name, partitions in requests.items():
            made.setdefault(name, []).extend(sorted(partitions))
    return made


@pytest.fixture(scope="module")
def everything_made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two data sets with everything made; of the model, one seed of the one and two of the other."""
    home = tmp_path_factory.mktemp("made")
    with dg.DagsterInstance.local_temp(str(home)) as instance:
        world = World(instance)
        for dataset, seeds in (("demo", "01"), ("baby", "0")):
            assert world.make("files tables profiles vectors", dataset).success
            for seed in seeds:
                assert world.make("model scores", dg.MultiPartitionKey({"dataset": dataset, "seed": seed})).success
            assert world.make("board", dataset).success
    return home


@pytest.fixture
def world(everything_made: Path, tmp_path: Path) -> Iterator[World]:
    """A copy of it that a test may change."""
    shutil.copytree(everything_made, tmp_path / "home")
    with dg.DagsterInstance.local_temp(str(tmp_path / "home")) as instance:
        yield World(instance)


def test_nothing_changed_asks_for_nothing_in_200_ticks(world: World) -> None:
    assert [world.tick() for _ in range(200)] == [{}] * 200


def test_a_changed_file_runs_the_chain_of_its_data_set_once(world: World) -> None:
    assert world.tick() == {}
    world.content = dict.fromkeys(("files", "tables", "profiles", "vectors", "model", "scores", "board"), "2")
    assert world.make("files").success
    assert _times_made(world.settle()) == {
        "tables": ["demo"],
        "profiles": ["demo"],
        "vectors": ["demo"],
        "model": ["demo|0", "demo|1"],
        "scores": ["demo|0", "demo|1"],
        "board": ["demo"],
    }


def test_the_chain_stops_where_the_content_is_the_same_again(world: World) -> None:
    world.content = {"files": "2", "tables": "2"}
    assert world.make("files").success
    assert _times_made(world.settle()) == {
        "tables": ["demo"],
        "profiles": ["demo"],
        "vectors": ["demo"],
        "model": ["demo|0", "demo|1"],
        "scores": ["demo|0", "demo|1"],
        "board": ["demo"],
    }
    world.content = {"files": "3", "tables": "2"}
    assert world.make("files").success
    assert _times_made(world.settle()) == {"tables": ["demo"], "vectors": ["demo"]}


@pytest.mark.parametrize("name", ["files", "tables", "vectors"])
def test_the_same_version_once_more_asks_for_nothing(world: World, name: str) -> None:
    world.tick()
    assert world.make(name).success
    assert world.tick() == {}


def test_a_first_file_makes_everything_but_untrained_seeds(instance: dg.DagsterInstance) -> None:
    world = World(instance)
    assert world.tick() == {}
    assert world.make("files", "sports").success
    assert _times_made(world.settle()) == {"tables": ["sports"], "profiles": ["sports"], "vectors": ["sports"]}
    assert world.make("model", dg.MultiPartitionKey({"dataset": "sports", "seed": "3"})).success
    assert _times_made(world.settle()) == {"scores": ["sports|3"], "board": ["sports"]}


def test_an_update_during_a_run_is_not_lost(world: World) -> None:
    world.content = {"files": "2", "tables": "2"}
    world.make("files")
    assert world.tick() == {"tables": {"demo"}}

    def replace_the_files() -> None:
        world.content["files"] = "3"
        world.make("files")

    world.during["tables"] = replace_the_files
    assert world.make("tables").success
    assert world.tick() == {"tables": {"demo"}}
    world.make("tables")
    assert "tables" not in _times_made(world.settle())


def test_an_update_between_a_request_and_the_next_tick_is_not_lost(world: World) -> None:
    world.content = {"files": "2"}
    world.make("files")
    assert world.tick() == {"tables": {"demo"}}
    world.make("tables")
    world.content = {"files": "3"}
    world.make("files")
    assert world.tick() == {"tables": {"demo"}}


def test_an_update_while_the_sensor_was_off_is_not_lost(world: World) -> None:
    world.content = {"files": "2"}
    world.make("files")
    assert world.cursor is None
    assert world.tick() == {"tables": {"demo"}}


def test_a_failed_stage_stops_what_follows_and_is_not_repeated(world: World) -> None:
    world.content = {"files": "2"}
    world.failing = {"tables"}
    world.make("files")
    assert world.tick() == {"tables": {"demo"}}
    assert not world.make("tables").success
    assert [world.tick() for _ in range(5)] == [{}] * 5
    world.failing = set()
    world.content = {"files": "3", "tables": "3"}
    world.make("files")
    assert _times_made(world.settle())["board"] == ["demo"]


def test_a_failed_stage_is_asked_for_again_when_its_code_changes(world: World) -> None:
    world.content = {"files": "2"}
    world.failing = {"tables"}
    world.make("files")
    world.settle()
    world.code = {"tables": "2"}
    assert world.tick() == {"tables": {"baby", "demo"}}


def test_a_failed_blocking_check_stops_what_follows(world: World) -> None:
    world.content = {"files": "2", "tables": "2"}
    world.rejected = {"tables"}
    world.make("files")
    assert [requests for requests in world.settle() if "tables" not in requests] == []
    assert [world.tick() for _ in range(5)] == [{}] * 5
    world.rejected = set()
    world.make("tables")
    assert _times_made(world.settle()).keys() == {"profiles", "vectors", "model", "scores", "board"}


def test_a_new_code_version_runs_what_it_touches(world: World) -> None:
    world.tick()
    world.code = {"vectors": "2"}
    world.content = {"vectors": "2"}
    made = _times_made(world.settle())
    assert made == {
        "vectors": ["baby", "demo"],
        "model": ["baby|0", "demo|0", "demo|1"],
    }


def test_stages_wait_for_one_that_is_not_automated(world: World) -> None:
    automated = ("tables", "vectors", "board")
    world.content = dict.fromkeys(("files", "tables", "profiles", "vectors"), "2")
    world.make("files")
    assert _times_made(world.settle(*automated)) == {"tables": ["demo"]}
    world.make("profiles")
    assert _times_made(world.settle(*automated)) == {"vectors": ["demo"]}


def test_what_is_being_made_now_is_not_asked_for(world: World) -> None:
    world.content = {"files": "2", "tables": "2"}
    world.make("files")
    seen: list[Requests] = []
    world.during["tables"] = lambda: seen.append(world.tick())
    assert world.make("tables").success
    assert seen == [{}]


def test_the_board_waits_for_a_seed_that_is_being_evaluated_for_the_first_time(world: World) -> None:
    world.content = {"files": "2", "tables": "2"}
    new = dg.MultiPartitionKey({"dataset": "demo", "seed": "2"})
    assert world.make("model", new).success
    assert world.tick() == {"scores": {"demo|2"}}
    world.content = {"scores/demo|0": "2"}
    assert world.make("scores", SEEDED).success
    seen: list[Requests] = []
    world.during["scores"] = lambda: seen.append(world.tick())
    assert world.make("scores", new).success
    assert seen == [{}]
    assert world.tick() == {"board": {"demo"}}
