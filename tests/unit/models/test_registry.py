"""Configurations by name, and what the registry promises the code that lists models."""

import subprocess
import sys

import pytest

from recmodels.errors import InputError
from recmodels.models.registry import DEFAULT_MODELS, MODELS, build_model, resolve_config

TABLES = {
    "item_text_embeddings",
    "item_image_embeddings",
    "user_text_embeddings",
    "item_text_knn",
    "item_image_knn",
    "user_knn",
    "augmented_interactions",
}


def test_models_name_only_tables_that_exist() -> None:
    assert {"bpr", "freedom", "blast", "recgoat"} < MODELS.keys()
    assert set(DEFAULT_MODELS) < MODELS.keys()
    for spec in MODELS.values():
        assert spec.inputs <= TABLES


def test_listing_the_models_does_not_load_torch() -> None:
    program = "import sys, recmodels.models.registry, recmodels.models.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_defaults_then_published_values_then_overrides() -> None:
    assert resolve_config("bm3").model_dump()["regularisation"] == 0.1
    assert resolve_config("bm3", dataset="sports").model_dump()["regularisation"] == 0.01
    assert resolve_config("bm3", {"regularisation": 0.5}, dataset="sports").model_dump()["regularisation"] == 0.5


def test_an_override_of_the_training_keeps_the_models_own_defaults() -> None:
    config = resolve_config("blast", {"training": {"epochs": 3}})
    assert config.training.epochs == 3
    assert config.training.restricted_negatives
    assert config.training.augmentation
    assert resolve_config("mgcn", {"training": {"epochs": 3}}).training.learning_rate_factor == 0.96


def test_published_values_are_valid_settings() -> None:
    for name in MODELS:
        for dataset, values in type(resolve_config(name)).published.items():
            dumped = resolve_config(name, dataset=dataset).model_dump()
            assert {key: dumped[key] for key in values} == dict(values)


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("lightgcm", {}, "lightgcn"),
        ("lightgcn", {"n_layer": 2}, "n_layers"),
        ("lightgcn", {"training": {"epoch": 2}}, "epochs"),
        ("lightgcn", {"training": 5}, "a mapping"),
        ("lightgcn", {"n_layers": 0}, "n_layers.*greater than or equal to 1"),
        ("lightgcn", {"training": {"batch_size": "many"}}, "training.batch_size"),
        ("recgoat", {"cmcl": "reversed"}, "aligned"),
    ],
)
def test_what_is_wrong_is_named_with_what_would_be_right(name: str, overrides: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        resolve_config(name, overrides)


def test_a_configuration_of_another_model_is_refused(checkerboard) -> None:
    with pytest.raises(InputError, match="configuration of lightgcn"):
        build_model("lightgcn", resolve_config("bpr"), checkerboard.data(), 0)


def test_a_configuration_survives_json() -> None:
    for name in MODELS:
        config = resolve_config(name)
        assert resolve_config(name, config.model_dump(mode="json")) == config
