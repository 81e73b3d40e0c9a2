"""Options that name trained models, and how the model they name is opened."""

from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.options import choices, data_set, model_names
from pipelines.cli.rows import printable
from recmodels.errors import InputError

if TYPE_CHECKING:
    import dagster as dg

    from recmodels.serving.recommender import Recommender

_REASON_CHARACTERS = 200


def _models(incomplete: str) -> list[str]:
    """Return the completions of a model's name."""
    return [name for name in model_names() if name.startswith(incomplete)]


Model = Annotated[
    str,
    typer.Option(
        help="A model, or calibrated/<model>.", show_default="the best on the leaderboard", autocompletion=_models
    ),
]
Seed = Annotated[int, typer.Option(help="Which training of the model.")]
Length = Annotated[int, typer.Option("--number", "-n", min=1, help="Items to show.")]


def one_model(option: str, text: str, *further: str) -> str:
    """Return the model that a text names, of calibrated forms and further names, too; raises InputError if not one."""
    chosen = choices(option, text, [*model_names(), *further])
    if len(chosen) != 1:
        raise InputError(option, expected="the name of one model", found=repr(text), action="See `recmodels models`.")
    return chosen[0]


def opened(dataset: str, model: str, seed: int) -> "tuple[str, Recommender]":
    """Return the name of the model that options name and its current checkpoint, ready to recommend."""
    from assets.serving import open_recommender
    from pipelines.instance import open_instance

    entry = data_set(dataset)
    with open_instance() as instance:
        name = one_model("--model", model) if model else _best(instance, entry.key)
        recommender = open_recommender(entry.key, name, seed, instance=instance)
        _warn_if_stale(instance, entry.key, name, seed)
        return name, recommender


def _warn_if_stale(instance: "dg.DagsterInstance", dataset: str, model: str, seed: int) -> None:
    """Say on standard error that a run would make another checkpoint now, and why."""
    from assets.serving import stale_checkpoints
    from pipelines.definitions import defs

    reasons = stale_checkpoints(instance, defs.resolve_asset_graph(), dataset, [model]).get((model, seed))
    if reasons:
        typer.echo(
            f"note: {model} of {dataset}, seed {seed}, is not what a run would make now "
            f"({printable('; '.join(reasons), _REASON_CHARACTERS)}); "
            f"`recmodels run --dataset {dataset}` brings it up to date",
            err=True,
        )


def _best(instance: "dg.DagsterInstance", dataset: str) -> str:
    from assets.serving import best_model
    from assets.support.io_managers import read_table
    from assets.support.resources import DataRoot

    name = best_model(read_table(instance, DataRoot(), "leaderboard", dataset))
    if name is None:
        raise InputError("--model", expected="a trained model", found="baselines alone on the leaderboard")
    return name
