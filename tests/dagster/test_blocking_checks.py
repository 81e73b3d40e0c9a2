"""
Every blocking check of the real graph stops what is downstream of its asset, in the same run and under automation.

The assets and checks here are stand-ins that do nothing, with the keys, dependencies, partitions, conditions and steps
of the real ones, so that each check can be broken in turn; `test_pipeline.py` breaks one of them by its content.
"""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg
import pytest

from pipelines.definitions import build_definitions
from pipelines.jobs import evaluate, prepare, train

REAL = build_definitions()
GRAPH = REAL.resolve_asset_graph()
BLOCKING = sorted(key for key in GRAPH.asset_check_keys if GRAPH.get(key).blocking)
END_PRODUCTS = {
    "user_metrics": "read by whoever tests whether two models differ, outside the graph",
    "rejects": "read by whoever corrects a raw file",
    "pipeline_status": "read by whoever looks after the pipeline",
}
"""What no asset reads, so that its check can only turn its own run red."""

DATASET = "demo"
SEEDED = dg.MultiPartitionKey({"dataset": DATASET, "seed": "0"})
STAGES = ((prepare.name, DATASET), (train.name, SEEDED), (evaluate.name, DATASET))
"""The jobs of a full run, in order, with the partition they are run for."""


def _definitions(of_asset: Callable[[dg.AssetKey], str], fails: Callable[[dg.AssetCheckKey], bool]) -> dg.Definitions:
    def stand_in(real: dg.AssetsDefinition) -> dg.AssetsDefinition:
        @dg.multi_asset(name=real.op.name, specs=list(real.specs), partitions_def=real.partitions_def)
        def made() -> Iterator[dg.MaterializeResult[None]]:
            for key in sorted(real.keys):
                yield dg.MaterializeResult(asset_key=key, data_version=dg.DataVersion(of_asset(key)))

        return made

    def stand_in_check(spec: dg.AssetCheckSpec) -> dg.AssetChecksDefinition:
        @dg.asset_check(
            asset=spec.asset_key,
            name=spec.name,
            blocking=spec.blocking,
            partitions_def=spec.partitions_def,
            additional_deps=[dep.asset_key for dep in spec.additional_deps],
        )
        def check() -> dg.AssetCheckResult:
            return dg.AssetCheckResult(passed=not fails(spec.key))

        return check

    return dg.Definitions(
        assets=[stand_in(asset) for asset in REAL.assets or () if isinstance(asset, dg.AssetsDefinition)],
        asset_checks=[stand_in_check(spec) for checks in REAL.asset_checks or () for spec in checks.check_specs],
        jobs=[prepare, train, evaluate],
        resources=dict.fromkeys(("parquet_io", "directory_io", "document_io"), dg.mem_io_manager),
    )


@dataclass
class World:
    """The stand-ins, what they make now and which checks fail now."""

    instance: dg.DagsterInstance | None = None
    content: dict[dg.AssetKey, str] = field(default_factory=dict)
    failing: set[dg.AssetCheckKey] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.definitions = _definitions(lambda key: self.content.get(key, "1"), lambda key: key in self.failing)

    def run(self, job: str, partition: str, keys: set[dg.AssetKey] | None = None) -> dg.ExecuteInProcessResult:
        return self.definitions.resolve_job_def(job).execute_in_process(
            instance=self.instance,
            partition_key=partition,
            asset_selection=None if keys is None else sorted(keys),
            raise_on_error=False,
        )

    def requested(self) -> set[dg.AssetKey]:
        """Return the assets that automation asks for in this data set."""
        assert self.instance
        result = dg.evaluate_automation_conditions(self.definitions, self.instance)
        keys = GRAPH.get_all_asset_keys()
        return {key for key in keys if {DATASET, SEEDED} & set(result.get_requested_partitions(key))}


WORLD = World()


@pytest.fixture(scope="module")
def everything_made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An instance where everything was made and every check has passed."""
    home = tmp_path_factory.mktemp("made")
    with dg.DagsterInstance.local_temp(str(home)) as WORLD.instance:
        for job, partition in STAGES:
            assert WORLD.run(job, partition).success
        assert WORLD.requested() == set()
    return home


@pytest.fixture
def world(everything_made: Path, tmp_path: Path) -> Iterator[World]:
    """A copy of it that a test may change."""
    shutil.copytree(everything_made, tmp_path / "home")
    with dg.DagsterInstance.local_temp(str(tmp_path / "home")) as WORLD.instance:
        WORLD.content, WORLD.failing = {}, set()
        yield WORLD


def _job_of(key: dg.AssetKey) -> tuple[str, str, set[dg.AssetKey]]:
    """Return the job that makes an asset, its partition, and everything that it makes."""
    for job, partition in STAGES:
        made = REAL.resolve_job_def(job).asset_layer.executable_asset_keys
        if key in made:
            return job, partition, set(made)
    raise AssertionError(key)


def _downstream(key: dg.AssetKey) -> set[dg.AssetKey]:
    children = GRAPH.get(key).child_keys
    return set(children).union(*(_downstream(child) for child in children))


def _made(result: dg.ExecuteInProcessResult) -> set[dg.AssetKey]:
    return {event.asset_key for event in result.get_asset_materialization_events() if event.asset_key}


def test_a_blocking_check_hangs_on_what_others_read_or_on_an_end_product() -> None:
    unread = {key.asset_key.path[0] for key in BLOCKING if not GRAPH.get(key.asset_key).child_keys}
    assert unread == END_PRODUCTS.keys()
    assert len(BLOCKING) > len(GRAPH.get_all_asset_keys()) / 2


def test_what_is_made_from_the_raw_tables_waits_for_few_rejects() -> None:
    waiting = {key.asset_key for key in BLOCKING if key.name == "few_rejects"}
    downstream = set().union(*(_downstream(key) for key in waiting))
    raw_tables = {key for key in GRAPH.get_all_asset_keys() if GRAPH.get(key).group_name == "interactions"}
    reads_them = set().union(*(_downstream(key) for key in raw_tables))
    assert reads_them <= downstream
    assert len(reads_them) > 20


@pytest.mark.parametrize("check", [key for key in BLOCKING if key.asset_key.path[0] not in END_PRODUCTS], ids=str)
def test_nothing_downstream_of_a_failed_check_is_made(world: World, check: dg.AssetCheckKey) -> None:
    asset = check.asset_key
    job, partition, makes = _job_of(asset)
    together = {key for assets in REAL.assets or () if asset in assets.keys for key in assets.keys}
    downstream = _downstream(asset)

    world.content, world.failing = {asset: "2"}, {check}
    result = world.run(job, partition, (together | downstream) & makes)
    assert not result.success
    assert _made(result) == together
    assert world.requested() & downstream == set()

    world.failing = set()
    assert world.run(job, partition, together).success
    assert world.requested() & downstream & GRAPH.get(asset).child_keys
