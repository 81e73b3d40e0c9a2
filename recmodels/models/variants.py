"""
Variants: named models that are a model of the registry with other settings and other inputs.

Which there are stands in `variants.toml` beside this file and in the user's own file; a variant is a `ModelSpec` like
any, and is trained, evaluated and served as one. What a study does with them is `recmodels.studies`.
"""

import functools
import itertools
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from recmodels.errors import InputError
from recmodels.models.registry import MODELS, model_spec
from recmodels.models.spec import ModelSpec
from recmodels.transport.config import PositivesConfig
from recmodels.validation import did_you_mean, nested, overlaid, require_known, validated

STUDIES_VARIABLE = "RECMODELS_STUDIES"
"""Environment variable with the path of the user's own file of variants and studies."""
SECTIONS = ("variants", "studies")
TUNED = "tuned"
"""What `settings` says where they are those that tuning chose."""
POSITIVES = "positives/"
"""What the name of the asset with a variant's own added positives begins with."""
STAND_INS = frozenset({"item_profile_embeddings", "item_profile_knn"})
"""Tables that no model reads by itself: of the item profiles, also where the data set has text features of its own."""
_READ = frozenset().union(*(spec.inputs for spec in MODELS.values()))
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]*")
_TRANSPORT = "positives"


class VariantEntry(BaseModel):
    """A variant, or with a grid one for each combination of its values, as a file names it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    """What tables call it; values of a grid are added."""
    model: str
    """The model of the registry that it is a variant of."""
    settings: dict[str, Any] | Literal["tuned"] = Field(default_factory=dict[str, Any])
    """What differs from the model's settings, those of the loop under `training`; or those that tuning chose."""
    positives: dict[str, Any] | None = None
    """Settings of added positives of its own, over the data set's transport settings (`PositivesConfig`)."""
    inputs: dict[str, str] = Field(default_factory=dict)
    """Tables that stand in for others: the model reads the second where it would read the first."""
    without: list[str] = Field(default_factory=list)
    """Tables of the model that it does without."""
    validation_only: bool = False
    """Whether it is a point of a sweep: trained and looked at on validation rows, and never measured on test rows."""
    grid: dict[str, list[Any]] = Field(default_factory=dict)
    """Values to combine, by dotted name of a setting, or of one of the positives as in ``positives.ratio``."""


def user_tables(section: str) -> tuple[dict[str, Any], str]:
    """
    Return a section of the user's file, and what messages call the file; nothing where there is none.

    Raises
    ------
    InputError
        If the file cannot be read, is no TOML, or has another section.
    """
    named = os.environ.get(STUDIES_VARIABLE)
    if not named:
        return {}, STUDIES_VARIABLE
    where = f"studies {named}"
    try:
        tables = tomllib.loads(Path(named).read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        action = f"Correct it or unset {STUDIES_VARIABLE}."
        raise InputError(where, expected="a readable TOML file", found=str(error), action=action) from error
    for name, table in tables.items():
        if name not in SECTIONS or not isinstance(table, dict):
            hint = did_you_mean(name, SECTIONS)
            raise InputError(where, expected="tables [variants.<name>] and [studies.<name>]", found=name, action=hint)
    return dict(tables.get(section, {})), where


@functools.cache
def _packaged() -> dict[str, ModelSpec]:
    text = resources.files("recmodels.models").joinpath("variants.toml").read_text("utf-8")
    return _specs(tomllib.loads(text), "packaged variants")


def load_variants() -> dict[str, ModelSpec]:
    """
    Return every variant by name: the packaged ones, then those of the user's file, which may replace them.

    Raises
    ------
    InputError
        If a file cannot be read, or an entry has an unknown key, model or table, or a value of the wrong type.

    Examples
    --------
    >>> variant = load_variants()["freedom-ot"]
    >>> variant.model, "augmented_interactions" in variant.inputs
    ('freedom', True)
    """
    return {**_packaged(), **_specs(*user_tables("variants"))}


def trainable(name: str) -> ModelSpec:
    """Return the entry of a model or of a variant; raises InputError if there is none of that name."""
    if name in MODELS:
        return MODELS[name]
    known = {**MODELS, **load_variants()}
    require_known("model", name, known)
    return known[name]


def _specs(tables: Mapping[str, Any], where: str) -> dict[str, ModelSpec]:
    specs: dict[str, ModelSpec] = {}
    for name, table in tables.items():
        at = f"{where}, {name}"
        if not isinstance(table, dict):
            raise InputError(at, expected=f"a table [variants.{name}]", found=repr(table))
        if not _NAME.fullmatch(name) or name in MODELS:
            expected = "lower-case letters, digits, dots and dashes, and no model's name"
            raise InputError(at, expected=expected, found=repr(name), action="Rename the variant.")
        for own, point, entry in _combined(name, validated(VariantEntry, table, at)):
            specs[own] = replace(_spec(own, entry, at), point=point)
    return specs


def _combined(name: str, entry: VariantEntry) -> Iterator[tuple[str, dict[str, Any], VariantEntry]]:
    """Yield name, values and entry of each combination of a grid; the entry itself without a grid."""
    if not entry.grid:
        yield name, {}, entry
        return
    for values in itertools.product(*entry.grid.values()):
        point = dict(zip(entry.grid, values, strict=True))
        added = nested(point)
        positives = {**(entry.positives or {}), **added.pop(_TRANSPORT, {})}
        settings = overlaid(entry.settings if isinstance(entry.settings, dict) else {}, added)
        title = ", ".join(f"{dotted.rpartition('.')[2]} {value}" for dotted, value in point.items())
        update = {"title": f"{entry.title}, {title}", "settings": settings, "positives": positives or None, "grid": {}}
        yield "-".join([name, *map(str, values)]), point, entry.model_copy(update=update)


def _spec(name: str, entry: VariantEntry, where: str) -> ModelSpec:
    """Return the entry of a variant. Its settings are validated when they are resolved: that imports the model."""
    try:
        base = model_spec(entry.model)
    except InputError as error:
        raise InputError(where, expected=error.expected, found=error.found, action=error.action) from error
    settings = entry.settings if isinstance(entry.settings, dict) else {}
    training = settings.get("training", {})
    if not isinstance(training, dict):
        raise InputError(f"{where}, training", expected="a mapping of settings", found=repr(training))
    augmented = training.get("augmentation", "augmented_interactions" in base.inputs)
    unread = sorted(set(entry.without) - base.inputs)
    unknown = sorted((entry.inputs.keys() - _READ) | (set(entry.inputs.values()) - _READ - STAND_INS))
    if unread or unknown:
        known = ", ".join(sorted(base.inputs if unread else _READ | STAND_INS))
        raise InputError(where, expected=f"tables among {known}", found=", ".join(unread or unknown))
    inputs = (base.inputs - set(entry.without)) | entry.inputs.keys()
    if training.get("restricted_negatives"):
        inputs |= {"item_text_knn", "item_image_knn"}
    inputs = inputs | {"augmented_interactions"} if augmented else inputs - {"augmented_interactions"}
    sources = dict(entry.inputs)
    if entry.positives is not None:
        validated(PositivesConfig, entry.positives, f"{where}, positives")
        if not augmented:
            expected = "training.augmentation = true beside positives of its own"
            raise InputError(where, expected=expected, found="false: they would be read by nothing")
        sources["augmented_interactions"] = POSITIVES + name
    return replace(
        base,
        name=name,
        title=entry.title,
        inputs=frozenset(inputs),
        variant_of=base.name,
        settings=settings,
        tuned=entry.settings == TUNED,
        sources=sources,
        positives=entry.positives,
        validation_only=entry.validation_only,
    )
