"""
What Dagster's own work costs: the start of the code server, and the sensors at the size of a team.

The event log holds a materialisation of every asset and a result of every check for 50 data sets and 5 seeds, with all
models of the registry. A tick is that of the sensor that takes longest; the first one of a process, which reads the
whole log, is told apart. Starts of Python take turns with those that import Dagster alone.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

from harness import Report, parse_arguments, time_in_turns

TICK_SHARE = 3
VERSION = "1"


def main() -> None:
    arguments = parse_arguments(__doc__)
    n_datasets, n_seeds = (6, 2) if arguments.quick else (50, 5)
    rounds = 1 if arguments.quick else 5
    report = Report("Orchestration")
    starts = time_in_turns(
        {module: lambda module=module: start(module) for module in ("dagster", "pipelines.definitions")}, rounds=rounds
    )
    report.add(
        "import_vs_dagster",
        starts["pipelines.definitions"] / starts["dagster"],
        baseline=f"import dagster: {starts['dagster']:.2f} s",
        goal="at most 1.5",
    )
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        # The catalogue and the seeds are read when the definitions are imported.
        os.environ["RECMODELS_CATALOGUE"] = str(write_catalogue(root, n_datasets))
        os.environ["RECMODELS_SEEDS"] = ",".join(map(str, range(n_seeds)))
        measure_sensors(report, root, rounds)
    report.finish(arguments.json)


def start(module: str) -> None:
    subprocess.run([sys.executable, "-W", "ignore", "-c", f"import {module}"], check=True)  # noqa: S603 our own interpreter


def write_catalogue(root: Path, n_datasets: int) -> Path:
    """Add data sets to the packaged ones, each with files of its own."""
    from recmodels.data.catalogue import load_catalogue

    names = [f"made_up_{i}" for i in range(n_datasets - len(load_catalogue()))]
    for name in names:
        (root / "raw" / name).mkdir(parents=True)
        for file in ("reviews.json.gz", "meta.json.gz"):
            (root / "raw" / name / file).write_bytes(b"content is never looked at")
    path = root / "catalogue.toml"
    path.write_text("\n".join(catalogue_entry(name) for name in names))
    return path


def catalogue_entry(name: str) -> str:
    files = '{ reviews = "reviews.json.gz", metadata = "meta.json.gz" }'
    return f'[{name}]\ntitle = "{name}"\ndomain = "things"\n[{name}.sources.amazon2014]\nfiles = {files}\n'


def measure_sensors(report: Report, root: Path, rounds: int) -> None:
    import dagster as dg

    from assets.resources import DataRoot
    from pipelines.definitions import build_definitions
    from pipelines.sensors import (
        TICK_SECONDS,
        cheap_automation,
        model_automation,
        profile_automation,
        raw_files,
    )

    data_root = DataRoot(path=str(root))
    definitions = build_definitions({"data_root": data_root})
    with dg.DagsterInstance.local_temp(str(root)) as instance:
        cursor = ""

        def look() -> None:
            nonlocal cursor
            context = dg.build_sensor_context(instance, cursor=cursor, resources={"data_root": data_root})
            cursor = raw_files(context).cursor

        report.add("sensor_s", time_in_turns({"look": look}, rounds=rounds)["look"], unit="s", goal="at most 1")
        n_events = fill(instance, definitions)
        first: dict[str, float] = {}
        later: dict[str, float] = {}
        for sensor in (cheap_automation, profile_automation, model_automation):
            ticks = Ticks(definitions, instance, sensor.asset_selection)
            began = time.perf_counter()
            ticks.tick()
            first[sensor.name] = time.perf_counter() - began
            later |= time_in_turns({sensor.name: ticks.tick}, rounds=rounds, warm_up=False)
        slowest = max(later, key=lambda name: later[name])
        report.add(
            "tick_s",
            later[slowest],
            unit="s",
            baseline=f"{slowest}; the interval is {TICK_SECONDS} s; {n_events:,} events",
            goal=f"at most {TICK_SECONDS / TICK_SHARE:.0f}",
        )
        report.add("first_tick_s", max(first.values()), unit="s", baseline="the first of a process")


class Ticks:
    """Ticks of one automation sensor, with its cursor."""

    def __init__(self, definitions: Any, instance: Any, selection: Any) -> None:
        self.definitions, self.instance, self.selection, self.cursor = definitions, instance, selection, None

    def tick(self) -> None:
        import dagster as dg

        result = dg.evaluate_automation_conditions(
            self.definitions, self.instance, asset_selection=self.selection, cursor=self.cursor
        )
        assert result.total_requested == 0, "everything is up to date"
        self.cursor = result.cursor


def fill(instance: Any, definitions: Any) -> int:
    """Record a materialisation of every partition with the tags of a real run, and a pass of every check."""
    events = list(events_of_everything(definitions))
    for event in events:
        instance.report_runless_asset_event(event)
    return len(events)


def events_of_everything(definitions: Any) -> Iterator[Any]:
    import dagster as dg

    from assets.partitions import seed_keys

    graph = definitions.resolve_asset_graph()
    for key in graph.toposorted_asset_keys:
        node = graph.get(key)
        seeded = isinstance(node.partitions_def, dg.MultiPartitionsDefinition)
        tags = {"dagster/data_version": VERSION, "dagster/code_version": node.code_version}
        for parent in node.parent_keys:
            over_seeds = not seeded and isinstance(graph.get(parent).partitions_def, dg.MultiPartitionsDefinition)
            read = VERSION * (len(seed_keys()) if over_seeds else 1)
            tags[f"dagster/input_data_version/{parent.to_user_string()}"] = sha256(read.encode()).hexdigest()
        for partition in node.partitions_def.get_partition_keys():
            yield dg.AssetMaterialization(key, partition=partition, tags=tags)
            for check in graph.get_check_keys_for_assets({key}):
                yield dg.AssetCheckEvaluation(key, check_name=check.name, passed=True, partition=partition)


if __name__ == "__main__":
    main()
