"""How commands print rows: a JSON list, or plain lines of columns that a pipe gets whole."""

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer
from rich.cells import cell_len

from pipelines.cli.output import CONSOLE, without_controls

AsJson = Annotated[bool, typer.Option("--json", help="Print a JSON list of rows.")]

_CHARACTERS = 70


def show_rows(rows: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    """
    Print rows that have the same keys.

    Without JSON: lists are joined, absent values are empty, fractions have four decimals, and texts are cut where they
    are long and printed without control characters, so that no title can steer the terminal.
    """
    if as_json:
        print(json.dumps(list(rows), indent=2))
        return
    if not rows:
        CONSOLE.print("nothing")
        return
    names = list(rows[0])
    cells = [names, *([_cell(row[name]) for name in names] for row in rows)]
    right = [all(row[name] is None or isinstance(row[name], int | float) for row in rows) for name in names]
    widths = [max(cell_len(line[column]) for line in cells) for column in range(len(names))]
    for line in cells:
        padded = [
            " " * (width - cell_len(cell)) + cell if number else cell + " " * (width - cell_len(cell))
            for cell, width, number in zip(line, widths, right, strict=True)
        ]
        say("  ".join(padded).rstrip())


def say(line: str) -> None:
    """Print a line as it is, but for control characters."""
    CONSOLE.print(without_controls(line), markup=False, emoji=False, soft_wrap=True)


def printable(text: str, characters: int = _CHARACTERS) -> str:
    """Return a text on one line, without control characters, cut where it is longer."""
    plain = " ".join(without_controls(text).split())
    return plain if len(plain) <= characters else plain[: characters - 1] + "…"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return ", ".join(map(_cell, value))
    if isinstance(value, float):
        return f"{value:.4f}"
    return printable(str(value))
