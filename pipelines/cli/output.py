"""How commands print: one console, and tables without a frame."""

import contextlib
from collections.abc import Generator

from rich.console import Console
from rich.table import Table

CONSOLE = Console(highlight=False, emoji=False)


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
