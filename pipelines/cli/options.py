"""Options that several commands share, and how their texts are read."""

import os
import shlex
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recmodels.calibration.config import calibrated
from recmodels.errors import RecmodelsError
from recmodels.models.registry import MODELS
from recmodels.models.variants import load_variants
from recmodels.validation import require_known

if TYPE_CHECKING:
    from recmodels.catalogue.entries import DatasetEntry


OWN_CATALOGUE = "catalogue.toml"
"""Where `new-dataset` puts entries, in the working folder, if no variable names a file."""


def _data_sets(incomplete: str) -> list[str]:
    """Return the completions of a data set's key."""
    from recmodels.catalogue.entries import load_catalogue

    try:
        return [name for name in load_catalogue() if name.startswith(incomplete)]
    except RecmodelsError:
        return []


Dataset = Annotated[str, typer.Option(help="A key of the catalogue.", autocompletion=_data_sets)]
Profiles = Annotated[str, typer.Option(help="Profile back-end, in place of the catalogue's.")]
ProfileSetting = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=VALUE", help="A setting of the back-end such as answer_tokens=96; may be repeated."),
]


def model_names() -> list[str]:
    """Return what can be trained: every model and variant, then the calibrated form of each."""
    names = {**MODELS, **load_variants()}
    return [*names, *(calibrated(name) for name, spec in names.items() if not spec.validation_only)]


def choices(option: str, text: str, known: Iterable[str], action: str = "") -> list[str]:
    """
    Return the names in the comma-separated list that was given for an option, each once.

    Raises
    ------
    InputError
        If one of them is not known; it says what to do, by default to take the closest that is.
    """
    allowed = list(known)
    chosen = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    for name in chosen:
        require_known(option, name, allowed, action)
    return chosen


def data_set(text: str) -> "DatasetEntry":
    """
    Return the entry of the catalogue that an option names, its settings of every stage validated.

    Raises InputError if it names none, or several, or settings of the entry are not valid.
    """
    from recmodels.catalogue.entries import load_catalogue
    from recmodels.settings import validated_entry

    catalogue = load_catalogue()
    chosen = choices("--dataset", text, catalogue, "" if text in catalogue else _unread_entry(text))
    if len(chosen) != 1:
        require_known("--dataset", text, catalogue, "Name one data set.")
    return validated_entry(catalogue[chosen[0]])


def _unread_entry(name: str) -> str:
    """Return what to do about a data set that is in the file of `new-dataset` here while nothing names that file."""
    from recmodels.catalogue.entries import CATALOGUE_VARIABLE

    path = Path(OWN_CATALOGUE).resolve()
    try:
        entries = {} if os.environ.get(CATALOGUE_VARIABLE) else tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        entries = {}
    if name not in entries:
        return ""
    return f"{path} has it, which is not read: export {CATALOGUE_VARIABLE}={shlex.quote(str(path))}"


def profile_overrides(backend: str, settings: Sequence[str] | None) -> dict[str, Any]:
    """Return the profile settings of a command by name; values are TOML, or else plain texts."""
    named: dict[str, Any] = {"backend": backend} if backend else {}
    for text in settings or ():
        name, _, value = text.partition("=")
        try:
            named[name.strip()] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            named[name.strip()] = value
    return named
