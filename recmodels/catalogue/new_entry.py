"""New entries of a catalogue: their text, and how they are added to a file that a user may have written by hand."""

import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path

from recmodels.catalogue.entries import DatasetEntry, Source, load_catalogue
from recmodels.errors import InputError
from recmodels.io.files import atomic_file, is_plain
from recmodels.raw.formats.base import Role


def entry_text(key: str, *, title: str, domain: str, source_format: str, source: Source) -> str:
    """
    Return the TOML of an entry with one source, of a format.

    Examples
    --------
    >>> source = Source(files={"interactions": "r.csv"}, columns={"user": "kunde"}, k_core=1)
    >>> print(entry_text("shop", title="Shop", domain="toys", source_format="table", source=source))
    [shop]
    title = "Shop"
    domain = "toys"  # what prompts call the products
    <BLANKLINE>
    [shop.sources.table]
    files = { interactions = "r.csv" }
    columns = { user = "kunde" }
    k_core = 1
    split = "random"
    <BLANKLINE>
    """
    name = _quoted(key) if "." in key else key
    lines = [f"[{name}]", f"title = {_quoted(title)}", f"domain = {_quoted(domain)}  # what prompts call the products"]
    lines += ["", f"[{name}.sources.{source_format}]", f"files = {_inline(source.files)}"]
    lines += [f"columns = {_inline(source.columns)}"] if source.columns else []
    return "\n".join([*lines, f"k_core = {source.k_core}", f"split = {_quoted(source.split)}", ""])


def add_entry(path: Path, key: str, text: str) -> DatasetEntry:
    """
    Append the text of an entry to a catalogue file, which is made if it is missing, and return the entry.

    Raises
    ------
    InputError
        If the name is not plain or is taken, the file is no catalogue, or the entry is not valid; the file is then as
        it was.
    """
    before = path.read_text("utf-8") if path.exists() else ""
    require_new(path, key)
    separated = before + ("" if not before or before.endswith("\n") else "\n") + ("\n" if before else "") + text
    try:
        tomllib.loads(separated)
    except tomllib.TOMLDecodeError as error:
        raise InputError(str(path), expected="a file to which a table can be added", found=str(error)) from error
    with atomic_file(path) as temporary:
        temporary.write_text(separated, encoding="utf-8")
        return load_catalogue(temporary)[key]


def require_new(path: Path, key: str) -> None:
    """Raise InputError if a name is not plain, or there is a data set of it already, packaged or in the file."""
    if not is_plain(key):
        raise InputError(
            f"data set {key!r}",
            expected="a plain name of letters a to z, digits, '.', '_' and '-' that does not start with a dot",
            found=repr(key),
            action="Choose another name; --title can be anything.",
        )
    try:
        path.exists()
    except OSError as error:
        raise InputError(f"catalogue {path}", expected="a file that can be read", found=str(error.strerror)) from error
    if key in load_catalogue(path if path.exists() else Path(os.devnull)):
        raise InputError(
            f"data set {key!r}",
            expected="a name of its own",
            found=f"one that is in the catalogue already ({path if path.exists() else 'packaged'})",
            action="Choose another name, or change that entry by hand.",
        )


def _inline(values: Mapping[Role, str] | Mapping[str, str]) -> str:
    return f"{{ {', '.join(f'{key} = {_quoted(value)}' for key, value in values.items())} }}"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
