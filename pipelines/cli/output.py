"""How commands print: one console, and tables without a frame."""

import contextlib
from collections.abc import Generator

from rich.console import Console
from rich.table import Table

CONSOLE = Console(highlight=False, emoji=False)


def without_controls(text: str) -> str:
    """Return a text with blanks in place of control characters other than line ends: none can steer the terminal."""
    return "".join(character if character.isprintable() or character == "\n" else " " for character in text)


def print_error(text: str) -> None:
    """Print what went wrong, which may quote what a file holds."""
    CONSOLE.print(f"error: {without_controls(text)}", style="red", markup=False, soft_wrap=True)


@contextlib.contextmanager
def beside_json(as_json: bool) -> Generator[None]:
    """Print what happens on the error output while JSON is to come."""
    before, CONSOLE.stderr = CONSOLE.stderr, as_json
    try:
        yield
    finally:
        CONSOLE.stderr = before


def plain_table(title: str | None = None) -> Table:
    """Return an empty table without a frame."""
    return Table(title=title, box=None, pad_edge=False, padding=(0, 2, 0, 0))
