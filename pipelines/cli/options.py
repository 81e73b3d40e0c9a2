"""Options that several commands share, and how their texts are read."""

import tomllib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recmodels.calibration.config import calibrated
from recmodels.errors import InputError, RecmodelsError
from recmodels.models.registry import MODELS
from recmodels.validation import did_you_mean

if TYPE_CHECKING:
    from recmodels.catalogue.entries import DatasetEntry


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
    """Return what can be trained: every model, then the calibrated form of each."""
    return [*MODELS, *map(calibrated, MODELS)]


def choices(option: str, text: str, known: Iterable[str], action: str = "") -> list[str]:
    """
    Return the names in the comma-separated list that was given for an option.

    Raises
    ------
    InputError
        If one of them is not known; it says what to do, by default to take the closest that is.
    """
    allowed = list(known)
    chosen = [part.strip() for part in text.split(",") if part.strip()]
    for name in chosen:
        if name not in allowed:
            raise _unknown(option, name, allowed, action)
    return chosen


def data_set(text: str) -> "DatasetEntry":
    """
    Return the entry of the catalogue that an option names, its settings of every stage validated.

    Raises InputError if it names none, or several, or settings of the entry are not valid.
    """
    from recmodels.catalogue.entries import load_catalogue
    from recmodels.settings import validated_entry

    catalogue = load_catalogue()
    chosen = choices("--dataset", text, catalogue)
    if len(chosen) != 1:
        raise _unknown("--dataset", text, list(catalogue), "Name one data set.")
    return validated_entry(catalogue[chosen[0]])


def _unknown(option: str, found: str, known: Sequence[str], action: str = "") -> InputError:
    hint = action or did_you_mean(found, known)
    return InputError(option, expected=f"one of {', '.join(known)}", found=repr(found), action=hint)


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
