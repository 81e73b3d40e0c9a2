"""What is searched of each model, and which settings are tried first. Nothing is trained here."""

import itertools
import tomllib
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources
from typing import Any

from recmodels.errors import InputError
from recmodels.models.config import AnyConfig, ClosedFormConfig
from recmodels.schemas.tuning import ORIGINS
from recmodels.tuning.config import Parameter, Space, TuningConfig
from recmodels.validation import did_you_mean, nested, validated

CURRENT, PUBLISHED, SAMPLED = ORIGINS
"""Why settings are tried: they hold today, the authors tried them, or the search proposes them."""

Try = dict[str, Any]
"""The settings that are searched by dotted name, with the values of one try."""


def search_space(model: str, config: AnyConfig, tuning: TuningConfig) -> Space:
    """
    Return what is searched of a model, widened so that it has the settings that hold today.

    That is `tuning.spaces[model]`, or else the packaged space. A model that has none is searched by those of its
    settings that are common to many.

    Raises
    ------
    InputError
        If a setting does not exist, its space cannot hold today's value, or nothing is left to search.

    Examples
    --------
    >>> from recmodels.models.registry import resolve_config
    >>> sorted(search_space("lightgcn", resolve_config("lightgcn"), TuningConfig()))
    ['n_layers', 'regularisation', 'training.learning_rate']
    """
    where = f"search space of {model}"
    common = {} if isinstance(config, ClosedFormConfig) else packaged_spaces()["default"]
    shared = {name: parameter for name, parameter in common.items() if _has(config, name)}
    space: Space = tuning.spaces.get(model) or shared | packaged_spaces().get(model, {})
    if not space:
        raise InputError(
            where, expected="at least one setting", found="none", action=f"Name some under tuning.spaces.{model}."
        )
    found: Space = {}
    for name, parameter in sorted(space.items()):
        if not _has(config, name):
            known = [*type(config).model_fields, *(f"training.{key}" for key in type(config.training).model_fields)]
            raise InputError(where, expected="settings of it", found=repr(name), action=did_you_mean(name, known))
        today = _value(config, name)
        try:
            for value in today if parameter.is_list else [today]:
                parameter = parameter.with_value(value)
        except ValueError as error:
            action = f"Declare the setting under tuning.spaces.{model} with choices that have it."
            raise InputError(
                f"{where}, {name}", expected="room for today's value", found=str(error), action=action
            ) from error
        found[name] = parameter
    return found


def first_tries(config: AnyConfig, space: Space) -> list[tuple[str, Try]]:
    """
    Return what is tried first, each as the reason and the values: today's settings, then the published grid.

    What has no grid keeps today's value. The grid of a setting that lists values is its list.

    Examples
    --------
    >>> from recmodels.models.registry import resolve_config
    >>> config = resolve_config("ease", {"penalties": (100, 500)})
    >>> first_tries(config, search_space("ease", config, TuningConfig()))
    [('current', {'penalties': 100.0}), ('published', {'penalties': 500.0})]
    """
    values: list[list[Any]] = []
    today: Try = {}
    for name, parameter in space.items():
        held = _value(config, name)
        grid = list(held) if parameter.is_list else [*parameter.grid] or [held]
        values.append(grid)
        today[name] = grid[0] if parameter.is_list else held
    published = [dict(zip(space, combination, strict=True)) for combination in itertools.product(*values)]
    return [(CURRENT, today), *((PUBLISHED, tried) for tried in published if tried != today)]


def as_settings(tried: Try, space: Space, of_every_try: Mapping[str, Any]) -> dict[str, Any]:
    """
    Return a try as overrides of the model's configuration, the settings that every try has included.

    Examples
    --------
    >>> space = {"n_layers": Parameter(low=1, high=3), "training.learning_rate": Parameter(low=0.01, high=0.1)}
    >>> as_settings({"n_layers": 2, "training.learning_rate": 0.05}, space, {"training.patience": 9})
    {'n_layers': 2, 'training': {'learning_rate': 0.05, 'patience': 9}}
    """
    settings = {name: [value] if space[name].is_list else value for name, value in tried.items()}
    return nested(settings | dict(of_every_try))


def with_effect(space: Space, data: object) -> Space:
    """Return the part of a space that has an effect on a model of these data (see `Parameter.needs`)."""

    def is_there(need: str) -> bool:
        found = getattr(data, need)
        return found is not None and (not isinstance(found, Mapping) or bool(found))

    return {name: parameter for name, parameter in space.items() if not parameter.needs or is_there(parameter.needs)}


@cache
def packaged_spaces() -> Mapping[str, Space]:
    """Return the packaged spaces by model, and the common one as ``default``."""
    text = resources.files("recmodels.tuning").joinpath("spaces.toml").read_text("utf-8")
    return {
        model: {name: validated(Parameter, values, f"space of {model}, {name}") for name, values in space.items()}
        for model, space in tomllib.loads(text).items()
    }


def _has(config: AnyConfig, name: str) -> bool:
    first, _, rest = name.partition(".")
    fields: Iterable[str] = type(config).model_fields
    return first in fields and (not rest or (first == "training" and rest in type(config.training).model_fields))


def _value(config: AnyConfig, name: str) -> Any:
    first, _, rest = name.partition(".")
    return getattr(config.training, rest) if rest else getattr(config, first)
