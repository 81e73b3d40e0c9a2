"""
What Dagster's own work costs: the start of the code server, the sensors at the size of a team, a run, and the UI.

The event log holds a materialisation of every asset and a result of every check for 50 data sets and 5 seeds, with all
models of the registry. A tick is that of the sensor that takes longest; the first one of a process, which reads the
whole log, is told apart. Starts of Python take turns with those that import Dagster alone.

The overhead of a run is its time without that of the functions that make the assets; what remains is Dagster's, the
checks and the reading and writing of tables. The page of an asset is opened once in headless Chromium, which tells
what it asks of the server; these requests are then sent again, all at once as the page does, without the browser.
"""

import contextlib
import functools
import inspect
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx

from benchmarks.asset_page import requests_of_page, webserver
from benchmarks.harness import Report, parse_arguments, time_in_turns

TICK_SHARE = 3
TICKS = 3
VERSION = "1"
PAGE_ASSET = "item_profiles"
PAGE_EVENTS = 1000
MODEL = "bpr"
PAGE_QUERY = "AssetViewDefinitionQuery"
SHELL_QUERY = "LocationWorkspaceAssetsQuery"


def main() -> None:
    arguments = parse_arguments(__doc__)
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as the command line does
    n_datasets, n_seeds = (6, 2) if arguments.quick else (50, 5)
    rounds = 1 if arguments.quick else 5
    report = Report("Orchestration")
    starts = time_in_turns(
        {"ours": lambda: start("pipelines.definitions"), "theirs": lambda: start("dagster")}, rounds=rounds
    )
    report.compare("import_vs_dagster", **starts, what="import dagster", goal="at most 1.5", faster=False)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        # The catalogue and the seeds are read when the definitions are imported.
        os.environ["RECMODELS_CATALOGUE"] = str(write_catalogue(root, n_datasets))
        os.environ["RECMODELS_SEEDS"] = ",".join(map(str, range(n_seeds)))
        bodies = time_bodies()
        measure_sensors(report, root, rounds)
        measure_page(report, root, rounds)
        measure_run(report, root / "demo", bodies)
    report.finish(arguments.json)


def start(module: str) -> None:
    subprocess.run([sys.executable, "-W", "ignore", "-c", f"import {module}"], check=True)  # noqa: S603 our own interpreter


def write_catalogue(root: Path, n_datasets: int) -> Path:
    """Add data sets to the packaged ones, each with files of its own."""
    from recmodels.catalogue.entries import load_catalogue

    names = [f"made_up_{i}" for i in range(n_datasets - len(load_catalogue()))]
    for name in names:
        (root / "raw" / name).mkdir(parents=True)
        for file in ("reviews.json.gz", "meta.json.gz"):
            (root / "raw" / name / file).write_bytes(b"content is never looked at")
    path = root / "catalogue.toml"
    files = '{ reviews = "reviews.json.gz", metadata = "meta.json.gz" }'
    entries = [
        f'[{name}]\ntitle = "{name}"\ndomain = "things"\n[{name}.sources.amazon2014]\nfiles = {files}\n'
        for name in names
    ]
    path.write_text("\n".join(entries))
    return path


def measure_sensors(report: Report, root: Path, rounds: int) -> None:
    import dagster as dg

    from assets.support.resources import DataRoot
    from pipelines.definitions import build_definitions
    from pipelines.sensors import TICK_SECONDS, cheap_automation, model_automation, profile_automation, raw_files

    data_root = DataRoot(path=str(root))
    definitions = build_definitions({"data_root": data_root})
    with dg.DagsterInstance.local_temp(str(root)) as instance:
        cursor = ""

        def look() -> None:
            nonlocal cursor
            context = dg.build_sensor_context(instance, cursor=cursor, resources={"data_root": data_root})
            cursor = raw_files(context).cursor

        report.add("sensor_s", time_in_turns({"look": look}, rounds=rounds)["look"], unit="s", goal="at most 1")
        n_events = fill(instance, [*events_of_everything(definitions), *page_events(definitions, PAGE_EVENTS)])
        first: dict[str, float] = {}
        later: dict[str, float] = {}
        for sensor in (cheap_automation, profile_automation, model_automation):
            tick = ticks(definitions, instance, sensor.asset_selection).__next__
            first |= time_in_turns({sensor.name: tick}, rounds=1, warm_up=False)
            later |= time_in_turns({sensor.name: tick}, rounds=min(rounds, TICKS), warm_up=False)
        slowest = max(later, key=lambda name: later[name])
        what = f"{slowest}; the interval is {TICK_SECONDS} s; {n_events:,} events"
        goal = f"at most {TICK_SECONDS / TICK_SHARE:.0f}"
        report.add("tick_s", later[slowest], unit="s", baseline=what, goal=goal)
        report.add("first_tick_s", max(first.values()), unit="s", baseline="the first of a process")


def ticks(definitions: Any, instance: Any, selection: Any) -> Iterator[None]:
    """Look as an automation sensor does, each time with the cursor of the last."""
    import dagster as dg

    cursor = None
    while True:
        result = dg.evaluate_automation_conditions(definitions, instance, asset_selection=selection, cursor=cursor)
        assert result.total_requested == 0, "everything is up to date"
        cursor = result.cursor
        yield


def fill(instance: Any, events: Sequence[Any]) -> int:
    """
    Record events in an instance's log, which must be new.

    They are recorded in memory and copied: on disk, each would wait for it several times.
    """
    import dagster as dg

    target = instance.event_log_storage.path_for_shard("index")
    copied = f"{target}.copy"
    with dg.DagsterInstance.ephemeral() as memory:
        for event in events:
            memory.report_runless_asset_event(event)
        storage = memory.event_log_storage
        with storage.index_connection() as connection, contextlib.closing(sqlite3.connect(copied)) as copy:
            connection.connection.driver_connection.backup(copy)
    with contextlib.closing(sqlite3.connect(target)) as database:
        database.execute("ATTACH ? AS memory", (copied,))
        with database:
            for table in ("event_logs", "asset_keys", "asset_event_tags", "asset_check_executions"):
                database.execute(f"INSERT INTO main.{table} SELECT * FROM memory.{table}")  # noqa: S608 names above
    Path(copied).unlink()
    return len(events)


def events_of_everything(definitions: Any) -> Iterator[Any]:
    import dagster as dg

    from assets.support.lineage import settings_metadata
    from assets.support.partitions import entry_of, seed_keys
    from assets.support.stage import declaration
    from assets.support.staleness import is_followed

    graph = definitions.resolve_asset_graph()
    for key in filter(lambda key: is_followed(graph.get(key)), graph.toposorted_asset_keys):
        node = graph.get(key)
        seeded = isinstance(node.partitions_def, dg.MultiPartitionsDefinition)
        tags = {"dagster/data_version": VERSION, "dagster/code_version": node.code_version}
        for parent in node.parent_keys:
            over_seeds = not seeded and isinstance(graph.get(parent).partitions_def, dg.MultiPartitionsDefinition)
            read = VERSION * (len(seed_keys()) if over_seeds else 1)
            tags[f"dagster/input_data_version/{parent.to_user_string()}"] = sha256(read.encode()).hexdigest()
        for partition in node.partitions_def.get_partition_keys():
            settings = declaration(key).settings(entry_of(partition))
            yield dg.AssetMaterialization(
                key, partition=partition, tags=tags, metadata=settings_metadata(settings, settings)
            )
            for check in graph.get_check_keys_for_assets({key}):
                yield dg.AssetCheckEvaluation(key, check_name=check.name, passed=True, partition=partition)


def page_events(definitions: Any, n: int) -> list[Any]:
    """Return materialisations of one asset, over its partitions in turn, with the metadata that a table has."""
    import dagster as dg
    import polars as pl

    from assets.support.lineage import table_metadata

    node = definitions.resolve_asset_graph().get(dg.AssetKey(PAGE_ASSET))
    partitions = node.partitions_def.get_partition_keys()
    frame = pl.DataFrame({"item_id": range(5), "profile": ["A profile of some length. " * 8] * 5})
    tags = {"dagster/data_version": VERSION, "dagster/code_version": node.code_version}
    return [
        dg.AssetMaterialization(
            node.key, partition=partitions[i % len(partitions)], metadata=table_metadata(frame), tags=tags
        )
        for i in range(n)
    ]


def measure_page(report: Report, root: Path, rounds: int) -> None:
    try:
        with webserver(root) as address:
            asked = requests_of_page(f"{address}/assets/{PAGE_ASSET}", PAGE_QUERY)
            everywhere = set(requests_of_page(f"{address}/settings", SHELL_QUERY))
            pages = {"page": [body for body in asked if body not in everywhere], "all": asked}
            with httpx.Client(timeout=60) as client, ThreadPoolExecutor(len(asked)) as pool:

                def send(body: str) -> None:
                    answer = client.post(
                        f"{address}/graphql", content=body, headers={"Content-Type": "application/json"}
                    )
                    assert "errors" not in answer.raise_for_status().json()

                seconds = time_in_turns(
                    {name: lambda bodies=bodies: list(pool.map(send, bodies)) for name, bodies in pages.items()},
                    rounds=rounds,
                )
    except FileNotFoundError as error:
        report.skip("ui_asset_page_s", f"{error}: `make services` installs it")
        return
    what = f"{PAGE_EVENTS:,} materialisations; its own {len(pages['page'])} GraphQL requests at once"
    report.add("ui_asset_page_s", seconds["page"], unit="s", baseline=what, goal="at most 1")
    what = f"all {len(asked)}, with those that the first page of a visit makes whichever it is"
    report.add("ui_first_page_s", seconds["all"], unit="s", baseline=what)


def time_bodies() -> list[float]:
    """
    Have the time that each asset's function takes appended to the list that is returned.

    Must be called before the modules of the assets are imported. Time in which a generator waits is not its own.
    """
    from assets.support import stage

    seconds: list[float] = []
    original = stage._failing_as_dagster_does

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def run(*arguments: Any, **inputs: Any) -> Any:
            began = time.perf_counter()
            result = function(*arguments, **inputs)
            seconds.append(time.perf_counter() - began)
            return result

        return run

    def with_time(compute: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(compute)
        def iterate(*arguments: Any, **inputs: Any) -> Iterator[Any]:
            yield from iter(timed(functools.partial(next, compute(*arguments, **inputs), None)), None)

        return original(iterate if inspect.isgeneratorfunction(compute) else timed(compute))

    stage._failing_as_dagster_does = with_time
    return seconds


def measure_run(report: Report, root: Path, bodies: list[float]) -> None:
    """Run the jobs of `make run` for a tiny demo, one model and one seed, as it does: in this process, on SQLite."""
    import dagster as dg

    from assets.support.resources import DataRoot
    from pipelines.definitions import build_definitions
    from pipelines.jobs import assets_of_models
    from recmodels.raw.demo import write_demo_dump

    data_root = DataRoot(path=str(root))
    write_demo_dump(data_root.raw("demo"), n_users=60, n_items=40)
    definitions = build_definitions({"data_root": data_root})
    steps = [
        ("prepare", "demo", None),
        ("train", dg.MultiPartitionKey({"dataset": "demo", "seed": "0"}), assets_of_models([MODEL])),
        ("evaluate", "demo", None),
    ]
    bodies.clear()
    made = 0
    began = time.perf_counter()
    with dg.DagsterInstance.local_temp(str(root)) as instance:
        for job, partition, selection in steps:
            result = definitions.resolve_job_def(job).execute_in_process(
                run_config=dg.RunConfig(loggers={"progress": {}}),  # says nothing where no display listens
                instance=instance,
                partition_key=partition,
                asset_selection=selection,
            )
            made += sum(event.is_step_materialization for event in result.all_events)
    overhead = time.perf_counter() - began - sum(bodies)
    what = f"{made} assets of a tiny demo; their functions took {sum(bodies):.0f} s"
    report.add("asset_overhead_s", overhead / made, unit="s", baseline=what, goal="at most 2")


if __name__ == "__main__":
    main()
