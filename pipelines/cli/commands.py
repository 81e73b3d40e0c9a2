"""What the commands of the command line do."""

import argparse
import json
import os
import sys
import time
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from assets.evaluation import HEADLINE
from assets.profiles import CACHE as PROFILE_CACHE
from assets.profiles import ProfilesConfig, run_settings
from assets.raw import FOLDER, RawDumpsConfig
from assets.support.dagster_internals import AssetGraph
from assets.support.io_managers import read_table, recorded_path
from assets.support.partitions import seed_keys
from assets.support.resources import DataRoot
from assets.support.staleness import PartitionStatus, survey
from pipelines.cli.doctor import examine, show
from pipelines.instance import end_lost_runs, open_instance, prepare_home, process_tag
from pipelines.jobs import assets_of_models, evaluate, prepare
from pipelines.logs import wants_json
from pipelines.plan import Step, Target, next_round
from pipelines.progress import ProgressDisplay
from recmodels.catalogue.entries import load_catalogue
from recmodels.errors import InputError
from recmodels.io.files import data_root
from recmodels.models.registry import DEFAULT_MODELS, MODELS
from recmodels.profiles.config import resolve_profile_config
from recmodels.profiles.write import Estimate, item_task, user_task
from recmodels.profiles.write import estimate as estimate_profiles
from recmodels.settings import profile_settings


def _profile_settings(options: argparse.Namespace) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for text in options.profile_setting:
        name, _, value = text.partition("=")
        try:
            settings[name.strip()] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            settings[name.strip()] = value
    return settings


def _choice(kind: str, text: str, known: Sequence[str]) -> list[str]:
    chosen = [part.strip() for part in text.split(",") if part.strip()]
    for name in chosen:
        if name not in known:
            raise InputError(kind, expected=f"one of {', '.join(known)}", found=repr(name))
    return chosen


def _one_data_set(text: str) -> str:
    chosen = _choice("--dataset", text, list(load_catalogue()))
    if len(chosen) != 1:
        raise InputError(
            "--dataset", expected=f"one of {', '.join(load_catalogue())}", found=repr(text), action="Name one data set."
        )
    return chosen[0]


def run(options: argparse.Namespace, console: Console) -> int:
    """Materialise every asset of one data set that is not up to date, and print the leaderboard."""
    from pipelines.definitions import defs

    dataset = _one_data_set(options.dataset)
    models = list(MODELS) if options.models == "all" else _choice("--models", options.models, list(MODELS))
    seeds = _choice("--seeds", options.seeds, seed_keys())
    started = time.monotonic()
    prepare_home()
    console.print(f"[bold]recmodels[/]: data set [bold]{dataset}[/], everything under {data_root()}", soft_wrap=True)
    raw_dir = str(options.raw_dir.resolve()) if options.raw_dir else ""
    profiles = ProfilesConfig(backend=options.profiles, settings=_profile_settings(options))
    run_settings(profiles)
    graph = defs.resolve_asset_graph()
    trained = assets_of_models(models or DEFAULT_MODELS)
    steps = [
        Step(
            "prepare",
            dataset,
            keys=sorted(prepare.selection.resolve(graph)),
            configs={
                "raw_dumps": RawDumpsConfig(raw_dir=raw_dir, download=not options.no_download),
                "item_profiles": profiles,
                "user_profiles": profiles,
            },
        ),
        *(Step("train", dg.MultiPartitionKey({"dataset": dataset, "seed": s}), trained) for s in seeds),
        Step("evaluate", dataset, keys=sorted(evaluate.selection.resolve(graph))),
    ]
    wanted = _Wanted(dataset, options, raw_dir)
    with open_instance() as instance:
        for lost in end_lost_runs(instance):
            console.print(f"run {lost[:8]} was killed earlier; this one goes on where it stopped")
        if not _made_up_to_date(steps, instance, graph, console, wanted):
            return 1
        board = read_table(instance, DataRoot(), "leaderboard", dataset)
        report = recorded_path(instance, DataRoot(), dg.AssetKey("report"), dataset)
    _print_outcome(console, dataset, board, report, time.monotonic() - started)
    return 0


class _Wanted:
    """What the options ask to make anew although it is up to date by the catalogue."""

    def __init__(self, dataset: str, options: argparse.Namespace, raw_dir: str) -> None:
        self._everything = options.force
        self._folder = raw_dir
        self._overrides: dict[str, Any] | None = None
        if options.profiles or options.profile_setting:
            entry = load_catalogue()[dataset]
            backend = {"backend": options.profiles} if options.profiles else {}
            used = profile_settings(entry, backend, _profile_settings(options))
            self._overrides = used.overrides(profile_settings(entry))

    def __call__(self, status: PartitionStatus) -> bool:
        """Tell whether a partition is to be made however it stands."""
        name, record = status.key.to_user_string(), status.record
        if self._everything or record is None:
            return self._everything
        if name == "raw_dumps" and self._folder:
            return record.texts.get(FOLDER) != self._folder
        return name in ("item_profiles", "user_profiles") and self._overrides not in (None, record.overrides)


def _made_up_to_date(
    steps: Sequence[Step], instance: dg.DagsterInstance, graph: AssetGraph, console: Console, wanted: _Wanted
) -> bool:
    """Execute what has to be made, up to the first job that fails; tell whether all succeeded."""
    made: set[Target] = set()
    told: set[Target] = set()
    with ProgressDisplay(console) as progress:
        while True:
            found = survey(instance, graph)
            upcoming = {(step.job, step.partition): step for step in next_round(found, graph, steps, made, wanted)}
            for step in steps:
                now = upcoming.get((step.job, step.partition))
                settled = [
                    (key, step.partition)
                    for key in step.keys or ()
                    if step.partition
                    and (key, step.partition) not in made | told
                    and found.statuses[key][step.partition].state == "up_to_date"
                    and (not upcoming or (now is not None and key not in (now.keys or ())))
                ]
                if now or settled:
                    console.print(f"[bold]{step.job}[/] {step.partition}")
                for key, _ in settled:
                    console.print(f"  - {escape(key.to_user_string()):<28}     up to date")
                told.update(settled)
                if now is None:
                    continue
                if not _executed(now, instance, console, progress):
                    return False
                made.update((key, str(now.partition)) for key in now.keys or ())
            if not upcoming:
                break
        if made:
            console.print("[bold]status[/] of everything")
            return _executed(Step("status", None), instance, console, progress)
    return True


def _executed(step: Step, instance: dg.DagsterInstance, console: Console, progress: ProgressDisplay) -> bool:
    """Execute a step and tell whether it succeeded."""
    from pipelines.definitions import defs

    loggers: dict[str, Any] = {"progress": {}} | ({"console": {}} if wants_json() else {})
    result = defs.resolve_job_def(step.job).execute_in_process(
        run_config=dg.RunConfig(ops=dict(step.configs), loggers=loggers),
        instance=instance,
        partition_key=step.partition,
        asset_selection=step.keys,
        raise_on_error=False,
        tags=process_tag(),
    )
    if not result.success:
        for failure in progress.failures:
            console.print(f"error: {failure}", style="red", markup=False, soft_wrap=True)
        console.print("What was materialised before is intact; run the same command again to go on.")
    return result.success


def status(options: argparse.Namespace, console: Console) -> int:
    """Print how every asset partition stands; 1 if something that exists is stale or failed."""
    from pipelines.definitions import defs

    chosen = [_one_data_set(options.dataset)] if options.dataset else list(load_catalogue())
    with open_instance() as instance:
        end_lost_runs(instance)
        found = survey(instance, defs.resolve_asset_graph())
    statuses = sorted(
        (status for status in found if status.partition.dataset in chosen),
        key=lambda status: chosen.index(status.partition.dataset),
    )
    if options.json:
        print(json.dumps([_as_json(status) for status in statuses], indent=2))
    else:
        _print_statuses(console, statuses, named=bool(options.dataset))
    return int(any(status.state in ("stale", "failed") for status in statuses))


def _as_json(status: PartitionStatus) -> dict[str, Any]:
    return {
        "asset": status.key.to_user_string(),
        "partition": str(status.partition.key),
        "state": status.state,
        "reasons": list(status.reasons),
    }


def _print_statuses(console: Console, statuses: Sequence[PartitionStatus], *, named: bool) -> None:
    """Print a line for each partition; for data sets that nobody named and nothing was made of, one for all."""
    touched = {status.partition.dataset for status in statuses if status.state != "missing"}
    untouched: set[str] = set()
    for status in statuses:
        dataset = status.partition.dataset
        if dataset not in touched and not named:
            if dataset not in untouched:
                untouched.add(dataset)
                console.print(f"{'':<32}{dataset:<16}nothing was materialised yet", markup=False)
            continue
        line = f"{status.key.to_user_string():<32}{status.partition.key:<16}{status.state:<11}"
        console.print(f"{line} {'; '.join(status.reasons)}".rstrip(), markup=False, soft_wrap=True)


def _print_outcome(console: Console, dataset: str, board: pl.DataFrame, report: Path, seconds: float) -> None:
    root = data_root()
    table = _plain_table(f"{dataset}: test rows, mean ± standard deviation over seeds")
    table.add_column("model", no_wrap=True)
    table.add_column("seeds", justify="right", no_wrap=True)
    for metric, k in HEADLINE:
        table.add_column(f"{metric}@{k}", justify="right", no_wrap=True)
    for (model,), group in board.group_by("model", maintain_order=True):
        cells = {(row["metric"], row["k"]): row for row in group.iter_rows(named=True)}
        table.add_row(str(model), str(group["n_seeds"][0]), *(_mean_and_spread(cells[figure]) for figure in HEADLINE))
    console.print(table)
    console.print(f"recommendations  {root / 'tables' / 'recommendations'}", soft_wrap=True)
    console.print(f"report           {report}", soft_wrap=True)
    console.print(f"user interface   make dev, then http://127.0.0.1:3000   ({seconds:.0f} s in all)", soft_wrap=True)


def _plain_table(title: str) -> Table:
    return Table(title=title, box=None, pad_edge=False, padding=(0, 2, 0, 0))


def _mean_and_spread(cell: dict[str, float | None]) -> str:
    return f"{cell['mean']:.4f}" + ("" if cell["std"] is None else f"±{cell['std']:.4f}")


def estimate(options: argparse.Namespace, console: Console) -> int:
    """Say what profiles would take and cost, without a call."""
    dataset = _one_data_set(options.dataset)
    entry, root = load_catalogue()[dataset], DataRoot()
    names = ("items", "users", "reviews", "interactions")
    with open_instance() as instance:
        items, users, reviews, interactions = (read_table(instance, root, name, dataset) for name in names)
    config = resolve_profile_config(
        entry.profiles, {"backend": options.profiles} if options.profiles else {}, _profile_settings(options)
    )
    of_items = item_task(items, reviews, interactions, domain=entry.domain, config=config)
    of_users = user_task(items, None, reviews, interactions, n_users=users.height, domain=entry.domain, config=config)
    cache = root.cache(PROFILE_CACHE)
    estimates = {"items": estimate_profiles(of_items, cache), "users": estimate_profiles(of_users, cache)}
    table = _plain_table(f"{dataset}: profiles by {config.backend}, without a call")
    table.add_column("")
    for kind in estimates:
        table.add_column(kind, justify="right")
    for line in fields(Estimate):
        values = [getattr(each, line.name) for each in estimates.values()]
        table.add_row(line.name.replace("_", " "), *(_shown(value) for value in values))
    console.print(table)
    return 0


def _shown(value: float | bool | None) -> str:
    if value is None:
        return "unknown before a first run"
    return str(value) if isinstance(value, bool) else f"{value:,.2f}".removesuffix(".00")


def doctor(options: argparse.Namespace, console: Console) -> int:
    """Say what this machine has for a run, and what it lacks."""
    catalogue = load_catalogue()
    dataset = _one_data_set(options.dataset)
    entry = catalogue.pop(dataset)
    profiles = resolve_profile_config(
        entry.profiles, {"backend": options.profiles} if options.profiles else {}, _profile_settings(options)
    )
    return show(examine(entry, profiles, data_root(), list(catalogue.values())), console)


def dev(options: argparse.Namespace, _console: Console) -> int:
    """Become the Dagster UI with its daemon."""
    prepare_home()
    workspace = Path(__file__).resolve().parent.parent / "workspace.yaml"
    command = [str(Path(sys.executable).with_name("dagster")), "dev", "-w", str(workspace)]
    os.execv(command[0], [*command, "-h", "127.0.0.1", "-p", options.port])  # noqa: S606 the arguments are a list, no shell


COMMANDS: dict[str, Callable[[argparse.Namespace, Console], int]] = {
    "run": run,
    "status": status,
    "estimate": estimate,
    "doctor": doctor,
    "dev": dev,
}
