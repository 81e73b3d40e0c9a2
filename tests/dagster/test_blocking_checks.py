"""
Every blocking check of the real graph stops what is downstream of its asset, in the same run and under automation.

The assets and checks here are stand-ins that do nothing, with the keys, dependencies, partitions, conditions and steps
of the real ones, so that each check can be broken in turn; `test_pipeline.py` breaks one of them by its content.
"""

from collections.abc import Callable, Iterable, Iterator

import dagster as dg
import pytest

from assets.support.lineage import settings_metadata
from assets.support.partitions import entry_of
from assets.support.stage import declaration
from pipelines.definitions import build_definitions
from pipelines.jobs import evaluate, prepare, study, train, tune
from recmodels.settings import Settings

REAL = build_definitions()
GRAPH = REAL.resolve_asset_graph()


def _variants_like_others() -> set[str]:
    """Return the variants that read the same tables as one before them: one of a kind stands for a hundred."""
    checkpoints = [key for key in sorted(GRAPH.get_all_asset_keys()) if key.path[0] == "checkpoint"]
    kinds: dict[frozenset[object], list[str]] = {}
    for key in checkpoints:
        if (node := GRAPH.get(key)).group_name == "variants":
            parents = frozenset(one.path[0] if one.path[0] == "positives" else one for one in node.parent_keys)
            kinds.setdefault(parents, []).append(key.path[-1])
    return {name for names in kinds.values() for name in names[1:]}


LEFT_OUT = _variants_like_others()
BLOCKING = sorted(
    key for key in GRAPH.asset_check_keys if GRAPH.get(key).blocking and key.asset_key.path[-1] not in LEFT_OUT
)
END_PRODUCTS = {
    "pipeline_status": "read by whoever looks after the pipeline",
    "study": "read by people",
    "tuning": "read by variants with the settings that a search chose, of which the package has none",
}
"""What no asset reads, so that its schema can only turn its own run red."""

CHECKS: dict[str, dict[str, set[dg.AssetCheckKey]]] = {}
for _key in BLOCKING:
    if _key.asset_key.path[0] not in END_PRODUCTS:
        CHECKS.setdefault(_key.asset_key.path[0], {}).setdefault(_key.name, set()).add(_key)
"""Blocking checks by kind of asset, then by name: what every model has is broken for all models at once."""

DATASET = "demo"
SEEDED = dg.MultiPartitionKey({"dataset": DATASET, "seed": "0"})
STAGES = (
    (prepare.name, DATASET),
    (study.name, DATASET),  # what variants read
    (tune.name, DATASET),
    (train.name, SEEDED),
    (evaluate.name, DATASET),
    (study.name, DATASET),  # the tables of what was trained
)
"""The jobs of a full run, in order, with the partition they are run for."""


def _definitions(of_asset: Callable[[dg.AssetKey], str], fails: Callable[[dg.AssetCheckKey], bool]) -> dg.Definitions:
    def stand_in(real: dg.AssetsDefinition) -> dg.AssetsDefinition:
        @dg.multi_asset(name=real.op.name, specs=list(real.specs), partitions_def=real.partitions_def)
        def made() -> Iterator[dg.MaterializeResult[None]]:
            for key in sorted(real.keys):
                declared = declaration(key)
                settings = declared.settings(entry_of(DATASET)) if declared else Settings({})
                yield dg.MaterializeResult(
                    asset_key=key,
                    data_version=dg.DataVersion(of_asset(key)),
                    metadata=settings_metadata(settings, settings),
                )

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
        assets=[
            stand_in(asset)
            for asset in REAL.assets or ()
            if isinstance(asset, dg.AssetsDefinition) and not LEFT_OUT & {key.path[-1] for key in asset.keys}
        ],
        asset_checks=[
            stand_in_check(spec)
            for checks in REAL.asset_checks or ()
            for spec in checks.check_specs
            if spec.asset_key.path[-1] not in LEFT_OUT
        ],
        jobs=[prepare, study, tune, train, evaluate],
        resources=dict.fromkeys(("parquet_io", "directory_io", "document_io"), dg.mem_io_manager),
    )


class World:
    """The stand-ins, all made once, with what they make now and which checks fail now."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self.instance = instance
        self.content: dict[dg.AssetKey, str] = {}
        self.failing: set[dg.AssetCheckKey] = set()
        self.definitions = _definitions(lambda key: self.content.get(key, "1"), lambda key: key in self.failing)

    def run(self, job: str, partition: str, keys: set[dg.AssetKey] | None = None) -> dg.ExecuteInProcessResult:
        return self.definitions.resolve_job_def(job).execute_in_process(
            instance=self.instance,
            partition_key=partition,
            asset_selection=None if keys is None else sorted(keys),
            raise_on_error=False,
        )

    def requested(self, keys: set[dg.AssetKey]) -> set[dg.AssetKey]:
        """Return which of some assets automation asks for in this data set."""
        result = dg.evaluate_automation_conditions(
            self.definitions, self.instance, asset_selection=dg.AssetSelection.assets(*keys)
        )
        return {key for key in keys if {DATASET, SEEDED} & set(result.get_requested_partitions(key))}


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """Everything made, and every check passed; a test leaves it like that."""
    with dg.DagsterInstance.ephemeral() as instance:
        world = World(instance)
        for job, partition in STAGES:
            assert world.run(job, partition).success
        yield world


def _job_of(assets: set[dg.AssetKey]) -> tuple[str, str, set[dg.AssetKey]]:
    """
    Return the job that makes some assets, its partition, and everything that it makes in one run.

    Tables of studies are made in a run of their own: between what variants read and them, the variants are trained.
    """
    made = {stage: REAL.resolve_job_def(stage[0]).asset_layer.executable_asset_keys for stage in STAGES}
    ((job, partition),) = [stage for stage, keys in made.items() if assets <= keys]
    return job, partition, _known(key for key in made[job, partition] if GRAPH.get(key).group_name != "studies")


def _known(keys: Iterable[dg.AssetKey]) -> set[dg.AssetKey]:
    return {key for key in keys if key.path[-1] not in LEFT_OUT}


def _downstream(key: dg.AssetKey) -> set[dg.AssetKey]:
    children = _known(GRAPH.get(key).child_keys)
    return children.union(*(_downstream(child) for child in children))


def _made(result: dg.ExecuteInProcessResult) -> set[dg.AssetKey]:
    return {event.asset_key for event in result.get_asset_materialization_events() if event.asset_key}


def test_a_blocking_check_hangs_on_what_others_read_or_on_an_end_product() -> None:
    unread = {(key.asset_key.path[0], key.name) for key in BLOCKING if not GRAPH.get(key.asset_key).child_keys}
    assert unread == {(name, "schema") for name in END_PRODUCTS}
    assert len(BLOCKING) > len(_known(GRAPH.get_all_asset_keys())) / 2


def test_what_is_made_from_the_raw_tables_waits_for_few_rejects() -> None:
    waiting = {key.asset_key for key in BLOCKING if key.name == "few_rejects"}
    downstream = set().union(*(_downstream(key) for key in waiting))
    raw_tables = {key for key in GRAPH.get_all_asset_keys() if GRAPH.get(key).group_name == "interactions"}
    reads_them = set().union(*(_downstream(key) for key in raw_tables))
    assert reads_them <= downstream
    assert len(reads_them) > 20


@pytest.mark.parametrize("kind", CHECKS)
def test_nothing_downstream_of_a_failed_check_is_made(world: World, kind: str) -> None:
    assets = {check.asset_key for checks in CHECKS[kind].values() for check in checks}
    job, partition, makes = _job_of(assets)
    together = {key for made in REAL.assets or () if assets & set(made.keys) for key in made.keys}
    downstream = set().union(*(_downstream(asset) for asset in assets))
    selected = (together | downstream) & makes
    assert not downstream & together
    assert world.requested(downstream) == set()

    world.content = dict.fromkeys(assets, "2")
    for checks in CHECKS[kind].values():
        world.failing = checks
        result = world.run(job, partition, selected)
        assert {e.asset_check_key for e in result.get_asset_check_evaluations() if not e.passed} == checks
        assert not result.success
        assert _made(result) == together
        assert world.requested(downstream) == set()

    world.failing = set()
    assert world.run(job, partition, together).success
    requested = world.requested(downstream)
    assert [asset for asset in assets if not requested & GRAPH.get(asset).child_keys] == []

    world.content = {}
    assert world.run(job, partition, selected).success
