"""How commands print: one console, and tables without a frame."""

from rich.console import Console
from rich.table import Table

CONSOLE = Console(highlight=False, emoji=False)


def plain_table(title: str | None = None) -> Table:
    """Return an empty table without a frame."""
    return Table(title=title, box=None, pad_edge=False, padding=(0, 2, 0, 0))
