"""What is relied on of Dagster although it does not promise it, one by one: a failing name says what has changed."""

import os
import re
import time
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.events import EngineEventData
from dagster._core.execution.backfill import PartitionBackfill
from dagster._core.test_utils import create_run_for_test

from assets.support import dagster_internals as internals
from assets.support.partitions import ALL_SEEDS, DATASET_SEEDS, DATASETS

SEEDS = ("0", "1")


@dg.asset(partitions_def=DATASETS, code_version="7")
def table() -> dg.MaterializeResult[None]:
    return dg.MaterializeResult(data_version=dg.DataVersion("of the table"))


@dg.asset(partitions_def=DATASET_SEEDS, deps=[table])
def model(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
    seed = context.partition_key.keys_by_dimension["seed"]  # type: ignore[attr-defined]
    return dg.MaterializeResult(data_version=dg.DataVersion(f"of seed {seed}"))


@dg.asset(partitions_def=DATASETS, deps=[dg.AssetDep(model, partition_mapping=ALL_SEEDS)])
def board() -> None: ...


@dg.asset_check(asset=table, blocking=True, partitions_def=DATASETS)
def sound(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=not context.run.tags.get("unsound"))


@dg.asset_check(asset=table, partitions_def=DATASETS)
def pretty() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=True)


DEFINITIONS = dg.Definitions(assets=[table, model, board], asset_checks=[sound, pretty])
GRAPH = DEFINITIONS.resolve_asset_graph()


def make(instance: dg.DagsterInstance, asset: dg.AssetsDefinition, partition: str, **tags: str) -> None:
    job = DEFINITIONS.resolve_implicit_job_def_def_for_assets([asset.key])
    assert job is not None
    job.execute_in_process(
        instance=instance, partition_key=partition, asset_selection=[asset.key], raise_on_error=False, tags=tags
    )


def tags_of(instance: dg.DagsterInstance, asset: dg.AssetsDefinition, partition: str) -> dict[str, str]:
    (record,) = instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=asset.key, asset_partitions=[partition]), limit=1
    ).records
    assert record.asset_materialization
    return dict(record.asset_materialization.tags or {})


@pytest.fixture
def made(instance: dg.DagsterInstance) -> dg.DagsterInstance:
    """An instance in which everything was made for two seeds."""
    make(instance, table, "demo")
    for seed in SEEDS:
        make(instance, model, dg.MultiPartitionKey({"dataset": "demo", "seed": seed}))
    make(instance, board, "demo")
    return instance


def test_tags_hold_data_and_code_version_and_the_versions_of_inputs(made: dg.DagsterInstance) -> None:
    tags = tags_of(made, table, "demo")
    assert tags[internals.DATA_VERSION_TAG] == "of the table"
    assert tags[internals.CODE_VERSION_TAG] == "7"
    read = internals.input_versions(tags_of(made, model, "demo|0"))
    assert read == {"table": internals.version_of_many(["of the table"])}


def test_of_an_input_over_partitions_one_digest_of_their_versions_is_recorded(made: dg.DagsterInstance) -> None:
    read = internals.input_versions(tags_of(made, board, "demo"))
    assert read == {"model": internals.version_of_many(["of seed 0", "of seed 1"])}


def test_the_newest_materialisation_of_each_partition_has_a_storage_id(made: dg.DagsterInstance) -> None:
    before = internals.newest_storage_ids(made, model.key)
    assert before.keys() == {"demo|0", "demo|1"}
    make(made, model, dg.MultiPartitionKey({"dataset": "demo", "seed": "1"}))
    after = internals.newest_storage_ids(made, model.key)
    assert after["demo|0"] == before["demo|0"]
    assert after["demo|1"] > before["demo|1"]


def test_a_run_that_was_to_make_something_and_did_not_is_known(made: dg.DagsterInstance) -> None:
    assert internals.attempts_without_result(made, table.key) == {}

    @dg.asset(key=table.key, partitions_def=DATASETS)
    def broken() -> None:
        raise dg.Failure("broken", allow_retries=False)

    result = dg.materialize([broken], partition_key="demo", instance=made, raise_on_error=False)
    assert internals.attempts_without_result(made, table.key) == {"demo": result.run_id}


def test_blocking_checks_and_their_results_are_known(made: dg.DagsterInstance) -> None:
    (check,) = internals.blocking_checks(GRAPH, table.key)
    assert check == dg.AssetCheckKey(table.key, "sound")
    assert internals.check_results(made, [check]) == {(check, "demo"): True}
    make(made, table, "demo", unsound="yes")
    assert internals.check_results(made, [check]) == {(check, "demo"): False}
    made.report_runless_asset_event(dg.AssetMaterialization(table.key, partition="demo"))
    assert internals.check_results(made, [check]) == {(check, "demo"): None}


def test_of_a_check_that_was_planned_and_never_executed_the_last_result_counts(instance: dg.DagsterInstance) -> None:
    @dg.asset(partitions_def=DATASETS, deps=[table])
    def after() -> None: ...

    @dg.asset_check(asset=after, blocking=True, partitions_def=DATASETS)
    def fine() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=True)

    definitions = dg.Definitions(assets=[table, after], asset_checks=[sound, fine])
    (check,) = internals.blocking_checks(definitions.resolve_asset_graph(), after.key)
    job = definitions.resolve_implicit_job_def_def_for_assets([table.key, after.key])
    assert job is not None
    results: list[object] = []
    for tags in ({}, {"unsound": "yes"}):
        job.execute_in_process(instance=instance, partition_key="demo", raise_on_error=False, tags=tags)
        results.append(internals.check_results(instance, [check]))
    assert results == [{(check, "demo"): True}] * 2
    assert internals.attempts_without_result(instance, after.key).keys() == {"demo"}


def test_partitions_of_a_backfill_in_progress_are_known(instance: dg.DagsterInstance) -> None:
    assert internals.backfilling(instance, GRAPH) == {}
    backfill = PartitionBackfill.from_asset_partitions(
        backfill_id="some",
        asset_graph=GRAPH,
        partition_names=["demo", "baby"],
        asset_selection=[table.key],
        backfill_timestamp=time.time(),
        tags={},
        dynamic_partitions_store=instance,
        all_partitions=False,
        title=None,
        description=None,
        run_config=None,
    )
    instance.add_backfill(backfill)
    assert internals.backfilling(instance, GRAPH) == {table.key: frozenset({"demo", "baby"})}


def test_the_graph_tells_what_is_made_together_its_groups_and_its_parents() -> None:
    node = GRAPH.get(board.key)
    assert node.parent_keys == {model.key}
    assert node.execution_set_asset_keys == {board.key}
    assert node.group_name == "default"
    assert node.is_materializable
    assert GRAPH.get(table.key).code_version == "7"
    assert list(GRAPH.toposorted_asset_keys) == [table.key, model.key, board.key]


def test_a_run_says_which_process_it_started_in(instance: dg.DagsterInstance) -> None:
    run = create_run_for_test(instance)
    message = f"Started process for run (pid: {os.getpid()})."
    instance.report_engine_event(message, run, EngineEventData.in_process(os.getpid()))
    instance.report_engine_event("Something else", run, EngineEventData.in_process(os.getpid()))
    events = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)
    assert [internals.started_process(event) for event in events] == [os.getpid(), None]


def test_a_new_instance_needs_no_migration(tmp_path: Path) -> None:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as persistent:
        assert internals.is_migrated(persistent)


def test_nothing_else_reaches_into_dagster() -> None:
    repository = Path(internals.__file__).parents[2]
    private = re.compile(r"(from|import) dagster\._|event_log_storage|\.run_storage|\.schedule_storage")
    sources = [path for folder in ("assets", "pipelines", "recmodels") for path in (repository / folder).rglob("*.py")]
    reaching = {path.name for path in sources if private.search(path.read_text())}
    assert reaching == {Path(internals.__file__).name}
