"""`recmodels new-dataset`: from a folder of raw files to an entry of the catalogue."""

import os
import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from pipelines.cli.options import OWN_CATALOGUE
from pipelines.cli.output import CONSOLE, without_controls
from pipelines.cli.rows import say


def new_dataset(
    name: Annotated[str, typer.Argument(help="Key of the new data set: letters, digits, '.', '_' and '-'.")],
    folder: Annotated[Path, typer.Argument(help="Folder with the raw files, or the file of interactions alone.")],
    title: Annotated[str, typer.Option(help="Name in reports.", show_default="made of NAME")] = "",
    domain: Annotated[str, typer.Option(help="What the products are, for prompts.", show_default="of the title")] = "",
    column: Annotated[
        list[str] | None,
        typer.Option(metavar="KIND=NAME", help="A column that is not called as usual, as in user=kunde; repeatable."),
    ] = None,
    catalogue: Annotated[
        Path | None, typer.Option(help="File to add to.", show_default=f"$RECMODELS_CATALOGUE or {OWN_CATALOGUE}")
    ] = None,
) -> None:
    """Recognise the raw files of a folder and add a data set to your catalogue. Nothing else is written or run."""
    from recmodels.catalogue.entries import CATALOGUE_VARIABLE
    from recmodels.catalogue.new_entry import add_entry, entry_text, require_new
    from recmodels.data.recognise import recognise
    from recmodels.errors import InputError

    named = os.environ.get(CATALOGUE_VARIABLE)
    path = (catalogue or Path(named or OWN_CATALOGUE)).resolve()
    require_new(path, name)
    columns: dict[str, str] = {}
    for text in column or ():
        kind, equals, value = text.partition("=")
        if not equals or not value.strip():
            raise InputError("--column", expected="KIND=NAME such as user=kunde", found=repr(text))
        columns[kind.strip()] = value.strip()
    # To find its core, a table is read whole: some minutes where it has gigabytes.
    with CONSOLE.status(Text(f"reading the files of {without_controls(str(folder))} ...")):
        found = recognise(folder, columns)
    title = title or name.replace("_", " ").replace("-", " ").title()
    written = entry_text(
        name, title=title, domain=domain or title.lower(), source_format=found.format, source=found.source
    )
    add_entry(path, name, written)
    say(f"format {found.format}")
    for line in found.seen:
        say(f"  {line}")
    guesses = found.unsure if domain else [*found.unsure, f"prompts call the products {title.lower()!r}: --domain"]
    if guesses:
        say("not sure, please look:")
    for line in guesses:
        say(f"  {line}")
    say(f"added to {path}:\n")
    say(written)
    where = folder.resolve() if folder.is_dir() else folder.resolve().parent
    if not named or Path(named).resolve() != path:
        say(f"export {CATALOGUE_VARIABLE}={shlex.quote(str(path))}")
    say(f"recmodels run --dataset {name} --raw-dir {shlex.quote(str(where))}")
