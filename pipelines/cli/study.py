"""`recmodels study`: the table of a study, with all that it is made from."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.cli.options import Dataset, choices, data_set
from pipelines.cli.output import beside_json
from pipelines.cli.rows import say, show_rows
from recmodels.errors import RecmodelsError
from recmodels.models.registry import NON_PERSONALISED

if TYPE_CHECKING:
    import dagster as dg

    from pipelines.plan import Plan
    from recmodels.studies.tables import StudyTable


def _studies(incomplete: str) -> list[str]:
    """Return the completions of a study's name."""
    from recmodels.studies.entries import load_studies

    try:
        return [name for name in load_studies() if name.startswith(incomplete)]
    except RecmodelsError:
        return []


def study(
    name: Annotated[str, typer.Argument(help="A study; without one they are listed.", autocompletion=_studies)] = "",
    dataset: Dataset = "demo",
    seeds: Annotated[
        str, typer.Option(help="Comma-separated seeds of the study.", show_default="all of the study")
    ] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what is missing and how long it will take, and stop.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """
    Make what is missing of a study on a data set and print its table.

    What is there and up to date is not made again, so that an interrupted study goes on where it stopped.
    """
    from recmodels.studies.entries import load_studies, study_named
    from recmodels.studies.resolve import resolve

    if not name:
        listed = [
            {"study": each.name, "title": each.title, "rows": len(each.rows), "data sets": each.data_sets}
            for each in load_studies().values()
        ]
        show_rows(listed, as_json=as_json)
        return
    entry, chosen = data_set(dataset), study_named(name)
    trained = [row for row in chosen.rows if row not in NON_PERSONALISED]
    for row in trained:
        resolve(row, entry)
    known = [str(seed) for seed in chosen.seeds]
    action = "Another study in the file that RECMODELS_STUDIES names may have others."
    wanted = choices("--seeds", seeds, known, action) or known

    from assets.profiles import ProfilesConfig
    from assets.raw import RawDumpsConfig
    from assets.studies import table_of
    from assets.support.partitions import SEEDS_VARIABLE, seed_keys
    from assets.support.resources import DataRoot
    from pipelines.cli.interrupts import ending_orderly
    from pipelines.cli.run import make_up_to_date
    from pipelines.definitions import defs
    from pipelines.instance import open_instance
    from pipelines.lost_runs import end_lost_runs
    from pipelines.plan import Plan, Request

    choices(SEEDS_VARIABLE, ",".join(wanted), seed_keys(), f"{SEEDS_VARIABLE}={','.join(wanted)} makes them known.")
    request = Request(entry, trained, wanted, RawDumpsConfig(), ProfilesConfig(), study=chosen.name)
    plan = Plan(request, defs.resolve_asset_graph())
    with ending_orderly(), open_instance() as instance:
        end_lost_runs(instance)
        if dry_run:
            _show_missing(plan, instance, entry.key, as_json=as_json)
            return
        with beside_json(as_json):
            succeeded = make_up_to_date(plan, instance)
        if not succeeded:
            raise typer.Exit(1)
        made = table_of(instance, DataRoot(), chosen, entry.key)
    _show(made, as_json=as_json)


def _show_missing(plan: "Plan", instance: "dg.DagsterInstance", dataset: str, *, as_json: bool) -> None:
    """Print what has to be made, and how long it took before."""
    from assets.support.staleness import survey
    from pipelines.definitions import defs
    from pipelines.durations import Durations

    graph = defs.resolve_asset_graph()
    durations = Durations(instance, graph, dataset)
    rows: dict[tuple[Any, str], dict[str, Any]] = {}
    for status in plan.unmade(survey(instance, graph)):
        # What one computation makes takes its time once.
        together = min(graph.get(status.key).execution_set_asset_keys)
        row = rows.setdefault(
            (together, status.partition.key),
            {
                "assets": [],
                "seed": status.partition.seed,
                "state": status.state,
                "seconds": durations.expected(status.key),
            },
        )
        row["assets"].append(status.key.to_user_string())
    show_rows(list(rows.values()), as_json=as_json)
    if as_json:
        return
    known = [row["seconds"] for row in rows.values() if row["seconds"] is not None]
    say(f"{len(rows)} to make: {sum(known):,.0f} s by what {len(known)} of them took before")
    if len(known) < len(rows):
        say(f"{len(rows) - len(known)} were never made here, nor anything like them: how long they take is not known")


def _show(table: "StudyTable", *, as_json: bool) -> None:
    from recmodels.studies.page import rendered

    if as_json:
        print(json.dumps(table.as_json(), indent=2))
        return
    say(f"{table.study.title}: {table.dataset}\n")
    say(rendered(table))
