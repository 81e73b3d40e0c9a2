"""Which settings are worth telling."""

import pytest

from recmodels.calibration.config import CalibrationConfig
from recmodels.models.registry import MODELS, resolve_config
from recmodels.settings import Settings


@pytest.mark.parametrize("model", MODELS)
def test_of_a_model_with_its_defaults_nothing_is_told_and_of_another_what_differs(model: str) -> None:
    usual = Settings.of(resolve_config(model))
    assert usual.beside_defaults(usual.values) == {}
    layer = {"training": {"batch_size": 77, "checkpoint_interval": 3}}  # how often a state is saved decides nothing
    held = Settings.of(resolve_config(model, layer))
    assert usual.beside_defaults(held.values) == {"training.batch_size": 77}


def test_settings_with_several_values_are_compared_as_they_are_recorded() -> None:
    usual = Settings.of(CalibrationConfig())
    assert usual.beside_defaults(usual.values) == {}
    held = Settings.of(CalibrationConfig(shortlists=(20,)))
    assert usual.beside_defaults(held.values) == {"shortlists": [20]}


def test_a_setting_that_is_no_longer_there_is_told() -> None:
    assert Settings.of(CalibrationConfig()).beside_defaults({"old": 1}) == {"old": 1}
