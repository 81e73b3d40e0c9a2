"""`recmodels status`: how everything stands."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.options import Dataset, data_set
from pipelines.cli.output import CONSOLE

if TYPE_CHECKING:
    from assets.support.staleness import PartitionStatus


def status(
    dataset: Dataset = "",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a list of asset, partition, state and reasons.")
    ] = False,
) -> None:
    """
    Say of every asset whether it is up to date, and why not.

    Without a data set, of all of them. The exit status is 1 if something that exists is stale or failed.
    """
    from assets.support.staleness import survey
    from pipelines.definitions import defs
    from pipelines.instance import open_instance
    from pipelines.lost_runs import end_lost_runs
    from recmodels.catalogue.entries import load_catalogue

    chosen = [data_set(dataset).key] if dataset else list(load_catalogue())
    with open_instance() as instance:
        end_lost_runs(instance)
        found = survey(instance, defs.resolve_asset_graph())
    statuses = sorted(
        (each for each in found if each.partition.dataset in chosen),
        key=lambda each: chosen.index(each.partition.dataset),
    )
    if as_json:
        print(json.dumps([_fields(each) for each in statuses], indent=2))
    else:
        _print(statuses, named=bool(dataset))
    if any(each.state in ("stale", "failed") for each in statuses):
        raise typer.Exit(1)


def _fields(status: "PartitionStatus") -> dict[str, str | list[str]]:
    return {
        "asset": status.key.to_user_string(),
        "partition": str(status.partition.key),
        "state": status.state,
        "reasons": list(status.reasons),
    }


def _print(statuses: "Sequence[PartitionStatus]", *, named: bool) -> None:
    """Print a line for each partition; for data sets that nobody named and nothing was made of, one for all."""
    touched = {status.partition.dataset for status in statuses if status.state != "missing"}
    untouched: set[str] = set()
    for status in statuses:
        dataset = status.partition.dataset
        if named or dataset in touched:
            line = f"{status.key.to_user_string():<32}{status.partition.key:<16}{status.state:<11}"
            CONSOLE.print(f"{line} {'; '.join(status.reasons)}".rstrip(), markup=False, soft_wrap=True)
        elif dataset not in untouched:
            untouched.add(dataset)
            CONSOLE.print(f"{'':<32}{dataset:<16}nothing was materialised yet", markup=False)
