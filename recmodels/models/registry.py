"""
The models by name: what each reads, where it is defined, and how it is configured. Importing this needs no torch.

Models of other packages are here too, where these announce them (`ENTRY_POINTS`) or a program registers them.
"""

import importlib
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from recmodels.errors import InputError
from recmodels.models.config import AnyConfig
from recmodels.models.spec import ModelSpec
from recmodels.validation import did_you_mean, require_known, validated

if TYPE_CHECKING:
    from recmodels.models.base import ClosedFormModel, Model
    from recmodels.models.inputs import TrainingData

NON_PERSONALISED = ("popularity", "random")
"""What every model has to beat: recommenders that learn nothing about a user (`recmodels.evaluation`)."""
DEFAULT_MODELS = ("bpr", "lightgcn", "freedom", "blast")
"""What is trained where nobody asks for more."""

ENTRY_POINTS = "recmodels.models"
"""Group of entry points, each of which names a `ModelSpec` (``name = "package.module:SPEC"``)."""

_FEATURES = frozenset({"item_text_embeddings", "item_image_embeddings"})
_FEATURES_AND_KNN = _FEATURES | {"item_text_knn", "item_image_knn"}
_PROFILES = frozenset({"user_text_embeddings"})


def _zoo(name: str, title: str, reference: str, inputs: frozenset[str] = frozenset(), **facts: Any) -> ModelSpec:
    return ModelSpec(name, title, reference, f"recmodels.models.zoo.{name}", inputs=inputs, **facts)


MODELS: dict[str, ModelSpec] = {
    spec.name: spec
    for spec in (
        _zoo("itemknn", "ItemKNN", "Deshpande and Karypis, ACM TOIS 2004", closed_form=True),
        _zoo("userknn", "UserKNN", "Sarwar et al., ACM EC 2000", closed_form=True),
        _zoo("ease", "EASE", "Steck, WWW 2019", closed_form=True),
        _zoo("bpr", "BPR", "Rendle et al., UAI 2009"),
        _zoo("lightgcn", "LightGCN", "He et al., SIGIR 2020"),
        _zoo("layergcn", "LayerGCN", "Zhou et al., ICDE 2023"),
        _zoo("vbpr", "VBPR", "He and McAuley, AAAI 2016", _FEATURES),
        _zoo("lattice", "LATTICE", "Zhang et al., ACM Multimedia 2021", _FEATURES_AND_KNN, version="2"),
        _zoo("slmrec", "SLMRec", "Tao et al., IEEE Trans. Multimedia 2022", _FEATURES, version="2"),
        _zoo("bm3", "BM3", "Zhou et al., WWW 2023", _FEATURES, version="2"),
        _zoo("freedom", "FREEDOM", "Zhou and Shen, ACM Multimedia 2023", _FEATURES_AND_KNN, version="2"),
        _zoo("mgcn", "MGCN", "Yu et al., ACM Multimedia 2023", _FEATURES_AND_KNN),
        _zoo("lgmrec", "LGMRec", "Guo et al., AAAI 2024", _FEATURES),
        _zoo("gume", "GUME", "Lin et al., CIKM 2024", _FEATURES_AND_KNN),
        _zoo(
            "blast",
            "BLAST",
            "Li et al., IJCAI 2025",
            _FEATURES_AND_KNN | _PROFILES | {"user_knn", "augmented_interactions"},
            version="2",
        ),
        _zoo("recgoat", "RecGOAT", "arXiv 2602.00682, 2026", _FEATURES | _PROFILES, version="2"),
        _zoo("timemm", "TimeMM", "Yang et al., SIGIR 2026", _FEATURES_AND_KNN, reads_times=True),
        _zoo("bridge", "BRIDGE", "Li et al., CIKM 2026", _FEATURES_AND_KNN),
    )
}
"""Every model by name, in the order of the tables."""


def register_model(spec: ModelSpec) -> None:
    """
    Add a model to `MODELS`.

    Assets are made of what is there when they are defined: a package whose model is to have some announces it.

    Raises
    ------
    InputError
        If a model of this name is there already.
    """
    if spec.name in MODELS:
        raise InputError("model", expected="a name of its own", found=f"{spec.name!r}, which is taken")
    MODELS[spec.name] = spec


def _register_announced() -> None:
    for entry in entry_points(group=ENTRY_POINTS):
        spec = entry.load()
        if not isinstance(spec, ModelSpec):
            raise InputError(f"entry point {entry.name} = {entry.value}", expected="a ModelSpec", found=repr(spec))
        register_model(spec)


_register_announced()


def model_spec(name: str) -> ModelSpec:
    """Return the entry of a model; raises InputError, which lists those known, if there is none of that name."""
    require_known("model", name, MODELS)
    return MODELS[name]


def resolve_config(name: str, *overrides: Mapping[str, Any], dataset: str | None = None) -> AnyConfig:
    """
    Return the configuration of a model: its defaults, then the published values of the data set, then the overrides.

    Parameters
    ----------
    name
        Key in `MODELS`.
    overrides
        Settings by name, a later mapping over an earlier one; those of the training loop in a nested mapping
        `training`. What is not named keeps the model's own default, also inside `training`; a batch size that is not
        named follows the data (`AnyConfig.batch_size_for`).
    dataset
        Key of a data set for which the authors give values; others have none.

    Raises
    ------
    InputError
        If the model or a key is unknown, a value has the wrong type or range, or the model cannot be trained in so
        many shards.

    Examples
    --------
    >>> config = resolve_config("bm3", {"training": {"epochs": 5}}, dataset="sports")
    >>> config.regularisation, config.training.epochs, config.training.batch_size
    (0.01, 5, 2048)
    """
    config_class = _class(name, "Config")
    merged = dict(config_class())
    merged["training"] = dict(merged["training"])
    layers = (config_class.published.get(dataset or "", {}), *overrides)
    for layer in layers:
        _merge(merged, layer, f"configuration of {name}")
    config: AnyConfig = validated(config_class, merged, f"configuration of {name}")
    if config.training.shards > 1:
        # Only this asks for the class of the model.
        _class(name, "Model").check_shards(config)
    if any("batch_size" in layer.get("training", {}) for layer in layers):
        return config
    training = config.training
    named = training.model_fields_set - {"batch_size"}
    return config.model_copy(update={"training": type(training).model_construct(named, **dict(training))})


def build_model(name: str, config: AnyConfig, data: "TrainingData", seed: int) -> "Model | ClosedFormModel":
    """
    Construct a model with parameters drawn from a generator with this seed, on its configured device.

    Raises
    ------
    InputError
        If an input that the model needs is absent from the data, or the configuration is another model's.

    Examples
    --------
    >>> from recmodels.models.example import example_data
    >>> model = build_model("lightgcn", resolve_config("lightgcn", {"n_layers": 2}), example_data(), seed=0)

    The same from its own classes, on the CPU:

    >>> import torch
    >>> from recmodels.models.zoo import lightgcn
    >>> direct = lightgcn.Model(lightgcn.Config(n_layers=2), example_data(), torch.Generator().manual_seed(0))
    >>> bool((direct.nodes == model.nodes.cpu()).all())
    True
    """
    import torch

    config_class = _class(name, "Config")
    if type(config) is not config_class:
        raise InputError(
            f"configuration of {name}", expected=config_class.__qualname__, found=type(config).__qualname__
        )
    model: Model | ClosedFormModel = _class(name, "Model")(config, data, torch.Generator().manual_seed(seed))
    return model.to(model.device)


def _class(name: str, kind: str) -> Any:
    return getattr(importlib.import_module(model_spec(name).module), kind)


def _merge(settings: dict[str, Any], layer: Mapping[str, Any], where: str) -> None:
    for key, value in layer.items():
        if key not in settings:
            known, hint = ", ".join(settings), did_you_mean(key, settings)
            raise InputError(where, expected=f"one of the settings {known}", found=repr(key), action=hint)
        if key == "training":
            if not isinstance(value, Mapping):
                raise InputError(f"{where}, training", expected="a mapping of settings", found=repr(value))
            _merge(settings[key], value, f"{where}, training")
        else:
            settings[key] = value
