"""Every model has a space to search, which holds what its authors and the catalogue set, and is refused in one line."""

import itertools

import pytest

from recmodels.catalogue.entries import load_catalogue
from recmodels.errors import InputError
from recmodels.models.registry import MODELS, resolve_config
from recmodels.settings import Settings, tuning_config, tuning_settings, validated_entry
from recmodels.tuning.config import Parameter, TuningConfig
from recmodels.tuning.spaces import as_settings, first_tries, packaged_spaces, search_space
from recmodels.validation import validated

DATASETS = ("demo", "baby", "sports", "clothing")


@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize("model", MODELS)
def test_every_model_has_a_space_and_its_first_tries_are_valid_settings_in_it(model: str, dataset: str) -> None:
    config = resolve_config(model, dataset=dataset)
    space = search_space(model, config, TuningConfig())
    assert space
    (origin, today), *published = first_tries(config, space)
    assert origin == "current"
    assert {origin for origin, _ in published} <= {"published"}
    for values in [today, *(values for _, values in published)]:
        assert all(space[name].holds(value) for name, value in values.items())
        resolve_config(model, as_settings(values, space, {}), dataset=dataset)
    if not MODELS[model].closed_form:
        assert resolve_config(model, as_settings(today, space, {}), dataset=dataset) == config


def test_no_packaged_space_is_of_a_model_that_does_not_exist() -> None:
    assert packaged_spaces().keys() <= {*MODELS, "default"}


def test_the_published_grid_comes_right_after_todays_settings_and_only_once() -> None:
    config = resolve_config("freedom")
    tries = first_tries(config, search_space("freedom", config, TuningConfig()))
    grid = [(values["edge_drop"], values["modality_weight"]) for _, values in tries]
    assert grid[0] == (0.8, 1e-3)
    assert sorted(grid) == sorted(itertools.product([0.8, 0.9], [0.0, 1e-5, 1e-4, 1e-3]))


def test_a_published_value_outside_of_the_space_widens_it() -> None:
    tuning = TuningConfig(spaces={"blast": {"n_ui_layers": Parameter(low=1, high=3)}})
    assert search_space("blast", resolve_config("blast", dataset="baby"), tuning)["n_ui_layers"].high == 5
    assert search_space("blast", resolve_config("blast"), tuning)["n_ui_layers"].high == 3


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({}, "expected choices, or low below high"),
        ({"low": 2, "high": 1}, "expected choices, or low below high"),
        ({"low": 0.0, "high": 1.0, "log": True}, "low above 0"),
        ({"choices": [1, 2], "low": 1, "high": 2}, "either choices or a range"),
        ({"choices": [1, 2], "grid": [3]}, r"found \[3\]"),
        ({"low": 1, "high": 2, "hihg": 3}, "Did you mean high?"),
    ],
)
def test_a_space_that_makes_no_sense_is_refused(values: dict, told: str) -> None:
    with pytest.raises(InputError, match=told):
        validated(Parameter, values, "space")


@pytest.mark.parametrize(
    ("space", "told"),
    [
        ({"n_layerss": {"low": 1, "high": 2}}, "Did you mean n_layers?"),
        ({"regularisation": {"choices": ["much"]}}, None),
        ({"training.learning_rates": {"low": 0.1, "high": 0.2}}, "Did you mean training.learning_rate?"),
        ({"training": {"low": 0.1, "high": 0.2}}, "room for today's value"),
    ],
)
def test_a_catalogue_with_a_wrong_space_is_refused_before_anything_runs(space: dict, told: str | None) -> None:
    entry = load_catalogue()["demo"].model_copy(update={"tuning": {"spaces": {"lightgcn": space}}})
    if told is None:
        assert tuning_config(validated_entry(entry)).spaces["lightgcn"]["regularisation"].choices == ("much",)
        return
    with pytest.raises(InputError, match=rf"catalogue, \[demo.tuning.*{told.replace('?', '.')}"):
        validated_entry(entry)


def test_a_search_is_out_of_date_when_budget_space_or_training_of_its_own_model_change() -> None:
    entry = load_catalogue()["demo"].model_copy(update={"models": {}})
    record = tuning_settings(entry, "freedom").values

    def changes(**update: object) -> list[str]:
        found: Settings = tuning_settings(entry.model_copy(update=update), "freedom")
        return found.changes_since(record)

    assert changes() == []
    assert changes(tuning={"trials": 31}) == ["trials 30 -> 31"]
    assert changes(models={"freedom": {"n_ui_layers": 3}}) == ["n_ui_layers 2 -> 3"]
    assert changes(models={"bpr": {"regularisation": 0.5}}) == []
    assert changes(tuning={"spaces": {"bpr": {"regularisation": {"low": 0.1, "high": 0.2}}}}) == []
    (change,) = changes(tuning={"spaces": {"freedom": {"edge_drop": {"low": 0.1, "high": 0.9}}}})
    assert change.startswith("spaces")
