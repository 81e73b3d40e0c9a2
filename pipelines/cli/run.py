"""`recmodels run`: one data set from its raw files to the report."""

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from pipelines.cli.interrupts import ending_orderly, raise_if_interrupted
from pipelines.cli.options import Dataset, Profiles, ProfileSetting, choices, data_set, model_names, profile_overrides
from pipelines.cli.output import CONSOLE, print_error
from pipelines.cli.rows import say, show_rows
from recmodels.errors import InputError
from recmodels.models.registry import DEFAULT_MODELS, MODELS

if TYPE_CHECKING:
    import dagster as dg
    import polars as pl

    from pipelines.plan import Plan, Step
    from pipelines.progress import ProgressDisplay

AGAIN = "run the same command again to go on."


def run(
    dataset: Dataset = "demo",
    raw_dir: Annotated[
        Path | None, typer.Option(help="Folder with the raw files.", show_default="<data root>/raw/<data set>")
    ] = None,
    models: Annotated[
        str,
        typer.Option(
            help="Comma-separated models and variants, calibrated/<name> for a calibrated form, or 'all' models "
            "that the data allow.",
            show_default=",".join(DEFAULT_MODELS),
        ),
    ] = "",
    seeds: Annotated[str, typer.Option(help="Comma-separated seeds.")] = "0,1,2",
    no_download: Annotated[
        bool, typer.Option("--no-download", help="Fail where raw files are missing instead of fetching them.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Make everything anew, also what is up to date.")] = False,
    profiles: Profiles = "",
    profile_setting: ProfileSetting = None,
) -> None:
    """Make one data set up to date and print the leaderboard."""
    import dagster as dg

    from assets.profiles import ProfilesConfig, run_settings
    from assets.raw import RawDumpsConfig
    from assets.support.io_managers import read_table, recorded_path
    from assets.support.partitions import seed_keys
    from assets.support.resources import ComputeResource, DataRoot
    from pipelines.cli.examples import print_examples
    from pipelines.definitions import defs
    from pipelines.instance import open_instance, prepare_home
    from pipelines.lost_runs import end_lost_runs
    from pipelines.plan import Plan, Request
    from recmodels.data.raw_files import named_folder
    from recmodels.io.files import data_root
    from recmodels.settings import profile_config

    entry = data_set(dataset)
    request = Request(
        entry,
        models=list(MODELS) if models == "all" else choices("--models", models, model_names()) or DEFAULT_MODELS,
        seeds=choices("--seeds", seeds, seed_keys(), "RECMODELS_SEEDS=0,1,...,9 makes others known."),
        raw_dumps=RawDumpsConfig(raw_dir=str(named_folder(raw_dir)) if raw_dir else "", download=not no_download),
        profiles=ProfilesConfig(backend=profiles, settings=profile_overrides("", profile_setting)),
        anew=force,
    )
    if not request.seeds:
        raise InputError("--seeds", expected="at least one seed", found=repr(seeds), action="Try --seeds 0.")
    profile_config(entry, *run_settings(request.profiles))
    engine = ComputeResource().open().engine
    started = time.monotonic()
    prepare_home()
    CONSOLE.print(
        f"[bold]recmodels[/]: data set [bold]{entry.key}[/], everything under {escape(str(data_root()))}",
        soft_wrap=True,
    )
    if engine != "local":
        CONSOLE.print(f"large stages are computed by [bold]{engine}[/]")
    with ending_orderly(), open_instance() as instance:
        for lost in end_lost_runs(instance):
            CONSOLE.print(f"run {lost[:8]} was killed earlier; this one goes on where it stopped")
        if not make_up_to_date(Plan(request, defs.resolve_asset_graph()), instance, named=models != "all"):
            raise typer.Exit(1)
        board = read_table(instance, DataRoot(), "leaderboard", entry.key)
        report = recorded_path(instance, DataRoot(), dg.AssetKey("report"), entry.key)
    _print_outcome(entry.key, board, report, time.monotonic() - started)
    print_examples(entry.key, board)


def make_up_to_date(plan: "Plan", instance: "dg.DagsterInstance", *, named: bool = True) -> bool:
    """
    Execute what a plan has to make, up to the first job that fails; tell whether all succeeded.

    Models that need the times of rows without any are left out, unless somebody `named` them: then nothing is trained.
    """
    from assets.support.staleness import survey
    from pipelines.definitions import defs
    from pipelines.jobs import status, train
    from pipelines.plan import Step
    from pipelines.progress import ProgressDisplay

    graph = defs.resolve_asset_graph()
    with ProgressDisplay(CONSOLE) as progress:
        more = True
        while more:
            steps = plan.next_round(survey(instance, graph))
            for step in steps:
                raise_if_interrupted()
                CONSOLE.print(f"[bold]{step.job}[/] {step.partition}")
                for key in step.up_to_date:
                    CONSOLE.print(f"  - {escape(key.to_user_string()):<28}     up to date")
                if step.job == train.name and step.keys:
                    step = _trainable(step, instance, named=named)
                progress.starting(step.job)
                if step.keys and not _executed(step, instance, progress):
                    return False
            more = any(step.keys for step in steps)
        if plan.made:
            CONSOLE.print("[bold]status[/] of everything")
            progress.starting(status.name)
            return _executed(Step(status.name, None), instance, progress)
    return True


def _trainable(step: "Step", instance: "dg.DagsterInstance", *, named: bool) -> "Step":
    """Return what can be trained of a step; raise InputError where that is not all, and all of it was named."""
    import dagster as dg
    import polars as pl

    from assets.support.io_managers import read_table
    from assets.support.partitions import dataset_of
    from assets.support.resources import DataRoot

    timed = {key.path[-1] for key in step.keys or ()} & {name for name, spec in MODELS.items() if spec.reads_times}
    if not timed or step.partition is None:
        return step
    dataset = dataset_of(step.partition)
    rows = read_table(instance, DataRoot(), dg.AssetKey("interactions"), dataset).filter(pl.col("split") == "train")
    if not (untimed := rows["timestamp"].null_count()):
        return step
    if named:
        raise InputError(
            "--models",
            expected=f"models that can be trained on {dataset}",
            found=f"{', '.join(sorted(timed))}, which needs the time of every training row, and {untimed:,} of "
            f"{len(rows):,} rows without",
            action="Leave it out.",
        )
    CONSOLE.print(f"  - {', '.join(sorted(timed)):<28}     left out: {dataset} has training rows without a time")
    return replace(step, keys=[key for key in step.keys or () if key.path[-1] not in timed])


def _executed(step: "Step", instance: "dg.DagsterInstance", progress: "ProgressDisplay") -> bool:
    """Execute a step and tell whether it succeeded."""
    import dagster as dg

    from pipelines.definitions import defs
    from pipelines.logs import wants_json
    from pipelines.lost_runs import process_tag

    loggers: dict[str, Any] = {"progress": {}} | ({"console": {}} if wants_json() else {})
    result = defs.resolve_job_def(step.job).execute_in_process(
        run_config=dg.RunConfig(ops=dict(step.configs), loggers=loggers),
        instance=instance,
        partition_key=step.partition,
        asset_selection=step.keys,
        raise_on_error=False,
        tags=process_tag(),
    )
    raise_if_interrupted()
    if not result.success:
        for failure in progress.failures:
            print_error(failure)
        again = "mend what is said above, then run the same command again." if progress.permanent else AGAIN
        CONSOLE.print(f"What was materialised before is intact; {again}", soft_wrap=True)
    return result.success


def _print_outcome(dataset: str, board: "pl.DataFrame", report: Path, seconds: float) -> None:
    from recmodels.io.files import data_root
    from recmodels.reporting.tables import leaderboard_figures

    root = data_root()
    say(f"{dataset}: test rows, mean ± standard deviation over seeds where there are several")
    show_rows(leaderboard_figures(board).to_dicts(), as_json=False)
    say(f"recommendations  {root / 'tables' / 'recommendations'}")
    say(f"report           {report}")
    explorer = "make explore" if dataset == "demo" else f"make explore DATASET={dataset}"
    say(f"explorer         {explorer}, then http://127.0.0.1:3100/?dataset={dataset}")
    say(f"user interface   make dev, then http://127.0.0.1:3000   ({seconds:.0f} s in all)")
