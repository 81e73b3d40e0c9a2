"""
Which part of a catalogue entry each stage reads, and how two readings of it differ, by name.

One function a stage, from the entry to its settings as they are resolved: the catalogue's over the published over the
defaults. What was made is out of date when the same function returns something else today. The meaning of the settings
belongs to the stages' own configuration classes, not here.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from pydantic import BaseModel

from recmodels.calibration.config import CalibrationConfig
from recmodels.catalogue.entries import DatasetEntry
from recmodels.embeddings.config import require_encoder_name
from recmodels.errors import InputError
from recmodels.io.digest import digest_of
from recmodels.models.config import AnyConfig, TrainingConfig
from recmodels.models.registry import resolve_config
from recmodels.models.spec import ModelSpec
from recmodels.models.variants import trainable
from recmodels.profiles.config import ProfileConfig
from recmodels.transport.config import PositivesConfig, TransportConfig
from recmodels.tuning.config import TuningConfig
from recmodels.tuning.spaces import search_space
from recmodels.validation import OPERATIONAL, merged, shown, validated

SOURCE = "source"
"""The setting that says in which of its forms a data set was read."""
BATCH_IS_NAMED = "training.batch_size_is_named"
"""Among the settings where somebody names the batch size that the model has anyway: small data have it then, too."""


@dataclass(frozen=True)
class Settings:
    """Resolved settings by dotted name, such as ``training.batch_size``, as JSON values."""

    values: Mapping[str, Any]
    """All of them."""
    defaults: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What a name has where nobody sets it; a name without a default is not in here."""
    operational: frozenset[str] = frozenset()
    """Names that change how a computation runs, not what comes of it."""

    @classmethod
    def of(cls, *parts: BaseModel | Mapping[str, Any]) -> "Settings":
        """Return the settings of configurations and of plain values, one after the other."""
        values: dict[str, Any] = {}
        defaults: dict[str, Any] = {}
        operational: set[str] = set()
        for part in parts:
            if isinstance(part, BaseModel):
                values |= _flat(part, "")
                defaults |= _defaults(type(part), "")
                operational |= _operational(type(part), "")
            else:
                values |= part
        return cls(values, defaults, frozenset(operational))

    @property
    def digest(self) -> str:
        """The digest (32 hex digits) of what decides about the result; operational settings do not."""
        decisive = {name: value for name, value in self.values.items() if name not in self.operational}
        return digest_of(json.dumps(decisive, sort_keys=True))

    def changes_since(self, recorded: Mapping[str, Any]) -> list[str]:
        """
        Return what differs from settings that were recorded earlier, each as ``name old -> new``.

        A setting that the record does not know was introduced later: it differs unless it has its default.
        """
        found: list[str] = []
        for name in sorted({*self.values, *recorded} - self.operational):
            before = recorded[name] if name in recorded else self.defaults.get(name)
            now = self.values[name] if name in self.values else self.defaults.get(name)
            if name not in self.values and name not in self.defaults:
                found.append(f"{name} {shown(before)} -> no such setting")
            elif before != now:
                found.append(f"{name} {shown(before)} -> {shown(now)}")
        return found

    def beside_defaults(self, held: Mapping[str, Any]) -> dict[str, Any]:
        """Return those of recorded settings that are not the defaults and decide about the result."""
        usual = json.loads(json.dumps(dict(self.defaults), default=list))
        decisive = {name: value for name, value in held.items() if name not in self.operational}
        return {name: value for name, value in decisive.items() if name not in usual or usual[name] != value}

    def overrides(self, declared: "Settings") -> dict[str, Any]:
        """Return the values by name that are not those of the declared settings."""
        return {name: value for name, value in self.values.items() if declared.values.get(name) != value}


StageSettings = Callable[[DatasetEntry], Settings]
"""From a catalogue entry to the settings of a stage; raises InputError where the entry's are not valid."""


def raw_settings(entry: DatasetEntry) -> Settings:
    """Return what decides which raw files are read; where they are fetched from does not."""
    values: dict[str, Any] = {"sources": list(entry.sources)}
    for name, source in entry.sources.items():
        values |= {f"{name}.files.{role}": file for role, file in source.files.items()}
        values |= {f"{name}.sha256.{role}": digest for role, digest in source.sha256.items()}
        values |= {f"{name}.columns.{kind}": column for kind, column in source.columns.items()}
        values[f"{name}.generated"] = source.generated
    return Settings.of(values)


def table_settings(entry: DatasetEntry) -> Settings:
    """Return what decides which rows are kept and how they are split, of the entry's first source."""
    name, source = next(iter(entry.sources.items()))
    return Settings.of(
        {
            SOURCE: name,
            "k_core": source.k_core,
            "split": source.split,
            "split_seed": source.split_seed,
            "published": entry.published.model_dump() if entry.published else None,
        }
    )


def profile_config(entry: DatasetEntry, *overrides: Mapping[str, Any]) -> ProfileConfig:
    """Return how the profiles of a data set are written."""
    return validated(ProfileConfig, merged(entry.profiles, *overrides), "profile settings")


def profile_settings(entry: DatasetEntry, *overrides: Mapping[str, Any]) -> Settings:
    """Return what decides about profiles."""
    return Settings.of({"domain": entry.domain}, profile_config(entry, *overrides))


def text_embedding_settings(entry: DatasetEntry) -> Settings:
    """Return what decides about the embeddings of profiles."""
    return Settings.of({"encoder": entry.encoder})


def graph_settings(entry: DatasetEntry) -> Settings:
    """Return what decides about neighbour tables."""
    return Settings.of({"knn_k": entry.knn_k, "knn_index": entry.knn_index})


def transport_config(entry: DatasetEntry) -> TransportConfig:
    """Return how the training set of a data set is augmented."""
    return validated(TransportConfig, entry.transport, f"transport settings of {entry.key}")


def transport_settings(entry: DatasetEntry) -> Settings:
    """Return what decides about the added positives."""
    return Settings.of(transport_config(entry))


def positives_config(entry: DatasetEntry, variant: ModelSpec) -> PositivesConfig:
    """Return how the positives that a variant adds are chosen on a data set."""
    settings = {**entry.transport, **(variant.positives or {})}
    return validated(PositivesConfig, settings, f"added positives of {variant.name} for {entry.key}")


def positives_settings(entry: DatasetEntry, variant: ModelSpec) -> Settings:
    """Return what decides about a variant's own added positives."""
    return Settings.of(positives_config(entry, variant))


def training_config(entry: DatasetEntry, model: str | ModelSpec, *overrides: Mapping[str, Any]) -> AnyConfig:
    """Return how a model or a variant is trained on a data set; a variant's own settings go over its model's."""
    spec = trainable(model) if isinstance(model, str) else model
    layers = [{"training": entry.training}, entry.models.get(spec.model, {})]
    if spec.variant_of:
        layers += [spec.settings, entry.models.get(spec.name, {})]
    return resolve_config(spec.model, *layers, *overrides, dataset=entry.key)


def training_settings(entry: DatasetEntry, model: str | ModelSpec, *overrides: Mapping[str, Any]) -> Settings:
    """Return what decides about a trained model or variant."""
    config = training_config(entry, model, *overrides)
    own = type(config)().training.batch_size
    # By its value alone, a batch size that is named and the model's own one, which follows the data, are the same.
    named = {BATCH_IS_NAMED: True} if config.names_batch_size and config.training.batch_size == own else {}
    return Settings.of(config, named)


def calibration_config(entry: DatasetEntry, *overrides: Mapping[str, Any]) -> CalibrationConfig:
    """Return what the calibration of a trained model tries on a data set."""
    settings = merged(entry.calibration, *overrides)
    return validated(CalibrationConfig, settings, f"calibration settings of {entry.key}")


def calibration_settings(entry: DatasetEntry, *overrides: Mapping[str, Any]) -> Settings:
    """Return what decides about the calibrated form of a trained model."""
    return Settings.of(calibration_config(entry, *overrides))


def tuning_config(entry: DatasetEntry, *overrides: Mapping[str, Any]) -> TuningConfig:
    """Return how the settings of models are searched on a data set."""
    return validated(TuningConfig, merged(entry.tuning, *overrides), f"tuning settings of {entry.key}")


def tuning_settings(entry: DatasetEntry, model: str, *overrides: Mapping[str, Any]) -> Settings:
    """Return what decides about the search for a model's settings: how it is trained, the space, and the budget."""
    training, tuning = training_settings(entry, model), tuning_config(entry, *overrides)
    space = search_space(model, training_config(entry, model), tuning)
    own = Settings.of(tuning.model_copy(update={"spaces": {model: space}}))
    return Settings(
        {**training.values, **own.values},
        {**training.defaults, **own.defaults},
        training.operational | own.operational,
    )


def validated_entry(entry: DatasetEntry) -> DatasetEntry:
    """
    Return the entry as it is, if the settings that it has for every stage are valid.

    Raises
    ------
    InputError
        If a stage has no such setting, a value has the wrong type or range, or there is no such model.

    Examples
    --------
    >>> from recmodels.catalogue.entries import load_catalogue
    >>> demo = load_catalogue()["demo"]
    >>> validated_entry(demo).key
    'demo'
    >>> validated_entry(demo.model_copy(update={"transport": {"epsilonn": 0.1}}))
    Traceback (most recent call last):
    recmodels.errors.InputError: catalogue, [demo.transport]: expected some of ... Did you mean epsilon?
    """
    stages: dict[str, Callable[[], object]] = {
        "encoder": lambda: require_encoder_name(entry.encoder),
        "profiles": lambda: profile_config(entry),
        "training": lambda: validated(TrainingConfig, entry.training, "training"),
        "transport": lambda: transport_config(entry),
        "calibration": lambda: calibration_config(entry),
        "tuning": lambda: tuning_config(entry),
    }
    for model in entry.models:
        stages[f"models.{model}"] = partial(training_config, entry, model)
    spaces = entry.tuning.get("spaces", {})
    for model in spaces if isinstance(spaces, Mapping) else ():
        stages[f"tuning.spaces.{model}"] = partial(tuning_settings, entry, model)
    for stage, resolve in stages.items():
        try:
            resolve()
        except InputError as error:
            raise InputError(
                f"catalogue, [{entry.key}.{stage}]", expected=error.expected, found=error.found, action=error.action
            ) from error
    return entry


def no_settings(_entry: DatasetEntry) -> Settings:
    """Return that nothing of the catalogue is read."""
    return Settings({})


def report_settings(entry: DatasetEntry) -> Settings:
    """Return what the report shows of the entry itself."""
    return Settings.of({"title": entry.title})


def _flat(part: BaseModel, prefix: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name in type(part).model_fields:
        value = getattr(part, name)
        if isinstance(value, BaseModel):
            values |= _flat(value, f"{prefix}{name}.")
        else:
            # Empty where a setting is not recorded while it has its default.
            values |= {prefix + key: dumped for key, dumped in part.model_dump(mode="json", include={name}).items()}
    return values


def _defaults(kind: type[BaseModel], prefix: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, info in kind.model_fields.items():
        if info.is_required():
            continue
        default = info.get_default(call_default_factory=True)  # pyright: ignore[reportCallIssue] no factory reads the others
        if isinstance(default, BaseModel):
            values |= _defaults(type(default), f"{prefix}{name}.") | _flat(default, f"{prefix}{name}.")
        else:
            values[prefix + name] = default
    return values


def _operational(kind: type[BaseModel], prefix: str) -> set[str]:
    names: set[str] = set()
    for name, info in kind.model_fields.items():
        if OPERATIONAL in info.metadata:
            names.add(prefix + name)
        elif isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            names |= _operational(info.annotation, f"{prefix}{name}.")
    return names
