"""Configuration from outside becomes typed settings, or one clear error."""

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from recmodels.errors import InputError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

Settings = TypeVar("Settings", bound=BaseModel)

OPERATIONAL = "operational"
"""Mark, by `typing.Annotated`, of a setting that changes how a computation runs but not what comes of it."""
MOST_NAMED = 20
"""Names that a message lists of those that would be right."""
MAX_SHOWN = 200
"""Characters of a wrong value that a message repeats."""


def validated(kind: type[Settings], values: Mapping[str, Any], where: str) -> Settings:
    """
    Return the settings of a pydantic class from values by name.

    Raises
    ------
    InputError
        If a name is unknown, or a value is missing, has the wrong type or is out of range; the known names are listed.
    """
    unknown = [name for name in values if name not in kind.model_fields]
    if unknown:
        known = ", ".join(kind.model_fields)
        hint = did_you_mean(unknown[0], kind.model_fields)
        raise InputError(where, expected=f"some of {known}", found=", ".join(map(repr, unknown)), action=hint)
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        found = problems(error, kind)
        raise InputError(where, expected="values within their types and ranges", found=found) from error


def merged(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of several layers, a later one over an earlier one."""
    return {name: value for layer in layers for name, value in layer.items()}


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """
    Return settings by dotted name as mappings within mappings.

    Examples
    --------
    >>> nested({"n_layers": 2, "training.epochs": 9, "training.patience": 3})
    {'n_layers': 2, 'training': {'epochs': 9, 'patience': 3}}
    """
    result: dict[str, Any] = {}
    for name, value in values.items():
        *above, last = name.split(".")
        level = result
        for part in above:
            level = level.setdefault(part, {})
        level[last] = value
    return result


def overlaid(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return mappings within mappings, those of a second one over those of the first, value by value."""
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        result[key] = overlaid(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def did_you_mean(found: str, known: Iterable[str]) -> str:
    """
    Return a question that names the known name closest to a wrong one; empty if none is close.

    Examples
    --------
    >>> did_you_mean("batch_sizes", ["batch_size", "epochs"])
    'Did you mean batch_size?'
    """
    close = difflib.get_close_matches(found, list(known), n=1)
    return f"Did you mean {close[0]}?" if close else ""


def require_known(where: str, found: str, known: Iterable[str], action: str = "") -> None:
    """
    Raise InputError if a name is not among those known: what to do is to take the closest, or what is given.

    Of many known names the first `MOST_NAMED` are listed.
    """
    names = list(known)
    if found not in names:
        hint = action or did_you_mean(found, names)
        left_out = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
        listed = ", ".join(names[:MOST_NAMED]) + left_out
        raise InputError(where, expected=f"one of {listed}", found=shortened(repr(found)), action=hint)


def problems(error: ValidationError, kind: type[BaseModel] | None = None) -> str:
    """Return what pydantic found wrong in one line, with the nearest name that its class has for one that it lacks."""
    return "; ".join(
        f"{'.'.join(map(str, problem['loc'])) or 'text'}: {_problem(problem, kind)}" for problem in error.errors()
    )


def _problem(problem: "ErrorDetails", kind: type[BaseModel] | None) -> str:
    *above, name = problem["loc"] or ("",)
    if problem["type"] == "extra_forbidden":
        hint = did_you_mean(str(name), _names_at(kind, above))
        return f"no such setting{f' ({hint})' if hint else ''}"
    told = problem["msg"].removeprefix("Value error, ").rstrip(".")
    cause = getattr(problem.get("ctx", {}).get("error"), "__cause__", None)
    return told if isinstance(cause, InputError) else f"{told}, got {shortened(repr(problem['input']))}"


def _names_at(kind: Any, place: Sequence[int | str]) -> Iterable[str]:
    """Return the names of the settings of a class, or of one within it: in a field, or in a mapping or list there."""
    for part in place:
        fields = getattr(kind, "model_fields", {})
        kind = fields[part].annotation if part in fields else (None, *get_args(kind))[-1]
    return getattr(kind, "model_fields", {})


def shown(value: Any) -> str:
    """Return the value of a setting as messages and reports write it."""
    return value if isinstance(value, str) and value else json.dumps(value)


def shortened(text: str) -> str:
    """Return a text, cut to `MAX_SHOWN` characters."""
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."
