"""What the commands of the command line do."""

import argparse
import os
import sys
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
from rich.console import Console
from rich.table import Table

from assets.checks.declare import read_table
from assets.evaluation import HEADLINE
from assets.io_managers import stored_path
from assets.partitions import seed_keys
from assets.profiles import CACHE as PROFILE_CACHE
from assets.profiles import ProfilesConfig
from assets.raw import RawDumpsConfig
from assets.resources import DataRoot
from pipelines.doctor import examine, show
from pipelines.instance import end_lost_runs, open_instance, prepare_home, process_tag
from pipelines.jobs import assets_of_models
from pipelines.logs import wants_json
from pipelines.progress import ProgressDisplay
from recmodels.data.catalogue import load_catalogue
from recmodels.errors import InputError
from recmodels.models.registry import DEFAULT_MODELS, MODELS
from recmodels.profiles.config import resolve_profile_config
from recmodels.profiles.write import Estimate, estimate_item_profiles, estimate_user_profiles
from recmodels.storage import data_root


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


def run(options: argparse.Namespace, console: Console) -> int:
    """Materialise every asset of one data set and print the leaderboard."""
    (dataset,) = _choice("--dataset", options.dataset, list(load_catalogue())) or ["demo"]
    models = list(MODELS) if options.models == "all" else _choice("--models", options.models, list(MODELS))
    seeds = _choice("--seeds", options.seeds, seed_keys())
    started = time.monotonic()
    prepare_home()
    console.print(f"[bold]recmodels[/]: data set [bold]{dataset}[/], everything under {data_root()}", soft_wrap=True)
    raw_dir = str(options.raw_dir.resolve()) if options.raw_dir else ""
    profiles = ProfilesConfig(backend=options.profiles, settings=_profile_settings(options))
    prepare_config = {
        "raw_dumps": RawDumpsConfig(raw_dir=raw_dir, download=not options.no_download),
        "item_profiles": profiles,
        "user_profiles": profiles,
    }
    train_assets = assets_of_models(models or DEFAULT_MODELS)
    steps: list[_Step] = [_Step("prepare", dataset, configs=prepare_config)]
    steps += [_Step("train", dg.MultiPartitionKey({"dataset": dataset, "seed": s}), train_assets) for s in seeds]
    steps += [_Step("evaluate", dataset), _Step("status", None)]
    with open_instance() as instance:
        if not _executed(steps, instance, console):
            return 1
        board = read_table(instance, DataRoot(), "leaderboard", dataset)
    _print_outcome(console, dataset, board, time.monotonic() - started)
    return 0


@dataclass(frozen=True)
class _Step:
    """A job to execute: of which partition, which of its assets (None for all), and their configuration."""

    job: str
    partition: str | None
    selection: Sequence[dg.AssetKey] | None = None
    configs: Mapping[str, Any] = field(default_factory=dict[str, Any])


def _executed(steps: Sequence[_Step], instance: dg.DagsterInstance, console: Console) -> bool:
    """Execute jobs one after the other, up to the first that fails; tell whether all succeeded."""
    from pipelines.definitions import defs

    loggers: dict[str, Any] = {"progress": {}} | ({"console": {}} if wants_json() else {})
    with ProgressDisplay(console) as progress:
        for lost in end_lost_runs(instance):
            console.print(f"run {lost[:8]} was killed earlier; this one goes on where it stopped")
        for step in steps:
            console.print(f"[bold]{step.job}[/] {step.partition or 'of everything'}")
            result = defs.resolve_job_def(step.job).execute_in_process(
                run_config=dg.RunConfig(ops=dict(step.configs), loggers=loggers),
                instance=instance,
                partition_key=step.partition,
                asset_selection=step.selection,
                raise_on_error=False,
                tags=process_tag(),
            )
            if not result.success:
                for failure in progress.failures:
                    console.print(f"error: {failure}", style="red", markup=False, soft_wrap=True)
                console.print("What was materialised before is intact; run the same command again to go on.")
                return False
    return True


def _print_outcome(console: Console, dataset: str, board: pl.DataFrame, seconds: float) -> None:
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
    report = stored_path(root, "documents", dg.AssetKey("report"), dataset, ".html")
    console.print(f"recommendations  {root / 'tables' / 'recommendations'}", soft_wrap=True)
    console.print(f"report           {report}", soft_wrap=True)
    console.print(f"user interface   make dev, then http://127.0.0.1:3000   ({seconds:.0f} s in all)", soft_wrap=True)


def _plain_table(title: str) -> Table:
    return Table(title=title, box=None, pad_edge=False, padding=(0, 2, 0, 0))


def _mean_and_spread(cell: dict[str, float | None]) -> str:
    return f"{cell['mean']:.4f}" + ("" if cell["std"] is None else f"±{cell['std']:.4f}")


def estimate(options: argparse.Namespace, console: Console) -> int:
    """Say what profiles would take and cost, without a call."""
    (dataset,) = _choice("--dataset", options.dataset, list(load_catalogue()))
    entry, root = load_catalogue()[dataset], DataRoot()
    names = ("items", "users", "reviews", "interactions")
    with open_instance() as instance:
        items, users, reviews, interactions = (read_table(instance, root, name, dataset) for name in names)
    config = resolve_profile_config(
        entry.profiles, {"backend": options.profiles} if options.profiles else {}, _profile_settings(options)
    )
    shared: dict[str, Any] = {"domain": entry.domain, "config": config, "cache_path": root.cache(PROFILE_CACHE)}
    estimates = {
        "items": estimate_item_profiles(items, reviews, interactions, **shared),
        "users": estimate_user_profiles(items, None, reviews, interactions, n_users=users.height, **shared),
    }
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
    (dataset,) = _choice("--dataset", options.dataset, list(catalogue))
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
    "estimate": estimate,
    "doctor": doctor,
    "dev": dev,
}
