"""The models by name: what each reads, where it is defined, and how it is configured. Importing this needs no torch."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from recmodels.errors import InputError
from recmodels.models.config import AnyConfig
from recmodels.validation import validated

if TYPE_CHECKING:
    from recmodels.models.base import ClosedFormModel, Model
    from recmodels.models.inputs import TrainingData

NON_PERSONALISED = ("popularity", "random")
"""What every model has to beat: recommenders that learn nothing about a user (`recmodels.evaluation`)."""
DEFAULT_MODELS = ("bpr", "lightgcn", "freedom", "blast")
"""What is trained where nobody asks for more."""

_TEXT = "item_text_embeddings"
_IMAGE = "item_image_embeddings"
_TEXT_KNN = "item_text_knn"
_IMAGE_KNN = "item_image_knn"


@dataclass(frozen=True)
class ModelSpec:
    """
    One entry of the registry.

    Attributes
    ----------
    name
        Key of the model; also the name of its module in `recmodels.models`.
    title
        Name as its authors write it.
    needs
        Tables, by asset name, that must have rows for the default configuration (`interactions` goes without saying).
    optional
        Tables that are read where they have rows.
    reference
        The publication.
    version
        Code version of the model's own file: raised when the same data and settings give another trained model.
    closed_form
        Whether it is solved, with a setting that validation chooses, in place of trained in gradient steps.
    """

    name: str
    title: str
    reference: str
    version: str = field(default="1", kw_only=True)
    needs: frozenset[str] = field(default=frozenset())
    optional: frozenset[str] = field(default=frozenset())
    closed_form: bool = False

    @property
    def module(self) -> str:
        """Dotted name of the module that defines the classes `Model` and `Config`."""
        return f"recmodels.models.zoo.{self.name}"

    @property
    def inputs(self) -> frozenset[str]:
        """Every table the model reads beside `interactions`."""
        return self.needs | self.optional


def _specs(*specs: ModelSpec) -> dict[str, ModelSpec]:
    return {spec.name: spec for spec in specs}


MODELS: dict[str, ModelSpec] = _specs(
    ModelSpec("itemknn", "ItemKNN", "Deshpande and Karypis, ACM TOIS 2004", closed_form=True),
    ModelSpec("userknn", "UserKNN", "Sarwar et al., ACM EC 2000", closed_form=True),
    ModelSpec("ease", "EASE", "Steck, WWW 2019", closed_form=True),
    ModelSpec("bpr", "BPR", "Rendle et al., UAI 2009"),
    ModelSpec("lightgcn", "LightGCN", "He et al., SIGIR 2020"),
    ModelSpec("layergcn", "LayerGCN", "Zhou et al., ICDE 2023"),
    ModelSpec("vbpr", "VBPR", "He and McAuley, AAAI 2016", needs=frozenset({_TEXT}), optional=frozenset({_IMAGE})),
    ModelSpec(
        "lattice",
        "LATTICE",
        "Zhang et al., ACM Multimedia 2021",
        needs=frozenset({_TEXT, _TEXT_KNN}),
        optional=frozenset({_IMAGE, _IMAGE_KNN}),
        version="2",
    ),
    ModelSpec(
        "slmrec",
        "SLMRec",
        "Tao et al., IEEE Trans. Multimedia 2022",
        needs=frozenset({_TEXT}),
        optional=frozenset({_IMAGE}),
        version="2",
    ),
    ModelSpec(
        "bm3", "BM3", "Zhou et al., WWW 2023", needs=frozenset({_TEXT}), optional=frozenset({_IMAGE}), version="2"
    ),
    ModelSpec(
        "freedom",
        "FREEDOM",
        "Zhou and Shen, ACM Multimedia 2023",
        needs=frozenset({_TEXT, _TEXT_KNN}),
        optional=frozenset({_IMAGE, _IMAGE_KNN}),
        version="2",
    ),
    ModelSpec(
        "mgcn",
        "MGCN",
        "Yu et al., ACM Multimedia 2023",
        needs=frozenset({_TEXT, _TEXT_KNN}),
        optional=frozenset({_IMAGE, _IMAGE_KNN}),
    ),
    ModelSpec("lgmrec", "LGMRec", "Guo et al., AAAI 2024", needs=frozenset({_TEXT}), optional=frozenset({_IMAGE})),
    ModelSpec(
        "gume",
        "GUME",
        "Lin et al., CIKM 2024",
        needs=frozenset({_TEXT, _TEXT_KNN}),
        optional=frozenset({_IMAGE, _IMAGE_KNN}),
    ),
    ModelSpec(
        "blast",
        "BLAST",
        "Li et al., IJCAI 2025",
        needs=frozenset({_TEXT, _TEXT_KNN, "user_knn", "user_text_embeddings", "augmented_interactions"}),
        optional=frozenset({_IMAGE, _IMAGE_KNN}),
        version="2",
    ),
    ModelSpec(
        "recgoat",
        "RecGOAT",
        "arXiv 2602.00682, 2026",
        needs=frozenset({_TEXT, "user_text_embeddings"}),
        optional=frozenset({_IMAGE}),
        version="2",
    ),
    ModelSpec(
        "timemm",
        "TimeMM",
        "Yang et al., SIGIR 2026",
        needs=frozenset({_TEXT, _TEXT_KNN}),
        optional=frozenset({_IMAGE, _IMAGE_KNN}),
    ),
    ModelSpec(
        "bridge",
        "BRIDGE",
        "Li et al., CIKM 2026",
        needs=frozenset({_TEXT, _TEXT_KNN}),
        optional=frozenset({_IMAGE, _IMAGE_KNN}),
    ),
)
"""Every model, in the order of the tables."""


def model_spec(name: str) -> ModelSpec:
    """
    Return the entry of a model.

    Raises
    ------
    InputError
        If there is no such model; the known ones are listed.
    """
    if name not in MODELS:
        raise InputError("model", expected=f"one of {', '.join(MODELS)}", found=repr(name))
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
        `training`. What is not named keeps the model's own default, also inside `training`.
    dataset
        Key of a data set for which the authors give values; others have none.

    Raises
    ------
    InputError
        If the model or a key is unknown, or a value has the wrong type or range.
    """
    config_class = _class(name, "Config")
    merged = config_class().model_dump()
    for layer in (config_class.published.get(dataset or "", {}), *overrides):
        _merge(merged, layer, f"configuration of {name}")
    return validated(config_class, merged, f"configuration of {name}")


def build_model(name: str, config: AnyConfig, data: "TrainingData", seed: int) -> "Model | ClosedFormModel":
    """
    Construct a model with parameters drawn from a generator with this seed, on its configured device.

    Raises
    ------
    InputError
        If an input that the model needs is absent from the data, or the configuration is another model's.
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
            raise InputError(where, expected=f"one of the settings {', '.join(settings)}", found=repr(key))
        if key == "training":
            if not isinstance(value, Mapping):
                raise InputError(f"{where}, training", expected="a mapping of settings", found=repr(value))
            _merge(settings[key], value, f"{where}, training")
        else:
            settings[key] = value
