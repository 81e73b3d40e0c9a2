"""`recmodels tune`: the search for the best settings of models."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.cli.interrupts import ending_orderly
from pipelines.cli.options import Dataset, choices, data_set
from pipelines.cli.output import beside_json
from pipelines.cli.rows import AsJson, say, show_rows
from pipelines.cli.run import make_up_to_date
from recmodels.errors import InputError
from recmodels.models.registry import MODELS

if TYPE_CHECKING:
    import dagster as dg
    import polars as pl

    from recmodels.catalogue.entries import DatasetEntry


def tune(
    models: Annotated[str, typer.Option(help="Comma-separated names.")],
    dataset: Dataset = "demo",
    trials: Annotated[int | None, typer.Option(min=1, help="Most tries of a model.", show_default="30")] = None,
    hours: Annotated[float | None, typer.Option(help="Most hours of a model's tries together.")] = None,
    patience: Annotated[
        int | None, typer.Option(min=0, help="Patience of every try.", show_default="as the model is trained")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be tried, and try nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """
    Search the settings of models on the validation rows: today's, then the published grid, then what looks promising.

    A search that was interrupted goes on, as does one that gets a larger budget. Nothing is trained with what is found:
    the last lines are what to write into the catalogue for that.
    """
    from recmodels.settings import tuning_config

    entry = data_set(dataset)
    chosen = choices("--models", models, MODELS)
    if not chosen:
        raise InputError("--models", expected="names of models", found=repr(models), action="See `recmodels models`.")
    named = {"trials": trials, "hours": hours, "patience": patience}
    overrides = {name: value for name, value in named.items() if value is not None}
    tuning_config(entry, overrides)
    if dry_run:
        show_rows(_planned(entry, chosen, overrides), as_json=as_json)
        return
    with beside_json(as_json):
        found = _searched(entry, chosen, overrides)
    show_rows([_row(model, tries) for model, tries in found.items()], as_json=as_json)
    if not as_json:
        say("settings for the catalogue (docs/tuning.md):")
        for model, tries in found.items():
            best = json.loads(tries.filter(chosen=True).row(0, named=True)["settings"])
            loop = {f"training.{name}": value for name, value in best.pop("training", {}).items()}
            for name, value in (best | loop).items():
                say(f"{entry.key}.models.{model}.{name} = {json.dumps(value)}")


def _searched(entry: "DatasetEntry", models: list[str], overrides: dict[str, Any]) -> "dict[str, pl.DataFrame]":
    """Make the tries of the models up to date and return them."""
    from assets.profiles import ProfilesConfig
    from assets.raw import RawDumpsConfig
    from assets.support.io_managers import read_table
    from assets.support.resources import DataRoot
    from assets.training import tuning_key
    from pipelines.definitions import defs
    from pipelines.instance import open_instance
    from pipelines.lost_runs import end_lost_runs
    from pipelines.plan import Plan, Request

    request = Request(entry, (), (), RawDumpsConfig(), ProfilesConfig(), tuned=models, tuning=overrides)
    with ending_orderly(), open_instance() as instance:
        end_lost_runs(instance)
        if not make_up_to_date(Plan(request, defs.resolve_asset_graph()), instance):
            raise typer.Exit(1)
        return {model: read_table(instance, DataRoot(), tuning_key(model), entry.key) for model in models}


def _planned(entry: "DatasetEntry", models: list[str], overrides: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a row a model: what is searched, how many tries of it are given, and how long they would take."""
    from pipelines.instance import open_instance
    from recmodels.settings import training_config, tuning_config
    from recmodels.tuning.spaces import first_tries, search_space

    tuning = tuning_config(entry, overrides)
    rows: list[dict[str, Any]] = []
    with open_instance() as instance:
        seconds = {model: _seconds_of_a_try(instance, entry.key, model) for model in models}
    for model in models:
        config = training_config(entry, model)
        space = search_space(model, config, tuning)
        expected = seconds[model]
        rows.append(
            {
                "model": model,
                "tries": tuning.trials,
                "hours": tuning.hours,
                "hours_expected": None if expected is None else tuning.trials * expected / 3600,
                "given": min(tuning.trials, len(first_tries(config, space))),
                "searched": [f"{name} {parameter.told}" for name, parameter in space.items()],
            }
        )
    return rows


def _seconds_of_a_try(instance: "dg.DagsterInstance", dataset: str, model: str) -> float | None:
    """Return what a try of the last search took on average, or else the last training; None if there was neither."""
    from assets.serving import recorded_seeds, seed_partition
    from assets.support.lineage import latest_materialization
    from assets.training import checkpoint_key, tuning_key

    if record := latest_materialization(instance, tuning_key(model), dataset):
        return float(str(record.metadata["seconds"].value)) / int(str(record.metadata["dagster/row_count"].value))
    for seed in recorded_seeds(instance, checkpoint_key(model), dataset):
        if record := latest_materialization(instance, checkpoint_key(model), seed_partition(dataset, seed)):
            return float(str(record.metadata["seconds"].value))
    return None


def _row(model: str, tries: "pl.DataFrame") -> dict[str, Any]:
    best = tries.filter(chosen=True).row(0, named=True)
    counts = dict(tries["state"].value_counts().iter_rows())
    return {
        "model": model,
        "tries": tries.height,
        **{state: counts.get(state, 0) for state in ("pruned", "failed", "unfinished")},
        "minutes": float(tries["seconds"].sum()) / 60,
        "valid_recall_today": tries["valid_recall"][0],
        "valid_recall": best["valid_recall"],
        "try": best["number"],
        "settings": best["settings"],
    }
