"""`recmodels doctor`: what this machine has for a run."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import typer
from rich.markup import escape

from pipelines.cli.options import Dataset, Profiles, ProfileSetting, data_set, profile_overrides
from pipelines.cli.output import CONSOLE, plain_table

if TYPE_CHECKING:
    from pipelines.cli.machine import Finding

_STYLES = {"ok": "green", "note": "yellow", "broken": "red"}


def doctor(dataset: Dataset = "demo", profiles: Profiles = "", profile_setting: ProfileSetting = None) -> None:
    """
    Say what this machine has for a run, and what it lacks.

    The exit status is 1 if something would stop a run.
    """
    from pipelines.cli.machine import examine
    from recmodels.catalogue.entries import load_catalogue
    from recmodels.io.files import data_root
    from recmodels.settings import profile_config

    entry = data_set(dataset)
    others = [other for other in load_catalogue().values() if other.key != entry.key]
    config = profile_config(entry, profile_overrides(profiles, profile_setting))
    if show(examine(entry, config, data_root(), others)):
        raise typer.Exit(1)


def show(findings: "Iterable[Finding]") -> int:
    """Print the findings and return how many of them stop a run."""
    table = plain_table()
    table.show_header = False
    for _ in range(3):
        table.add_column(overflow="fold")
    broken = 0
    for finding in findings:
        broken += finding.state == "broken"
        text = escape(finding.found) + (f"\n[bold]→[/] {escape(finding.action)}" if finding.action else "")
        table.add_row(f"[{_STYLES[finding.state]}]{finding.state}[/]", finding.subject, text)
    CONSOLE.print(table)
    if broken:
        CONSOLE.print(f"[red]{broken} to mend before a run can succeed.[/]")
    else:
        CONSOLE.print("[green]Everything a run needs is there.[/]")
    return broken
