"""What a row of a study is to be trained as, for whoever trains it: class, configuration, tables, calibrated or not."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from recmodels.calibration.config import CALIBRATED
from recmodels.catalogue.entries import DatasetEntry
from recmodels.models.config import AnyConfig
from recmodels.models.spec import ModelSpec
from recmodels.models.variants import trainable
from recmodels.settings import positives_config, training_config
from recmodels.transport.config import PositivesConfig


@dataclass(frozen=True)
class Resolved:
    """A model or variant on a data set."""

    name: str
    """As a study's row has it."""
    spec: ModelSpec
    """Its entry; `spec.module` defines the classes."""
    model: str
    """Name in the registry, as `build_model` takes it."""
    config: AnyConfig
    """Its configuration on the data set."""
    inputs: Mapping[str, str]
    """For each table that `training_data` takes, by keyword, the name of what fills it, such as ``item_profile_knn``
    for ``item_text_knn``."""
    positives: PositivesConfig | None
    """How the pairs in `inputs["augmented_interactions"]` are chosen; None where it reads none."""
    calibrated: bool
    """Whether the row is the calibrated form of what is trained."""


def resolve(row: str, entry: DatasetEntry, *overrides: Mapping[str, Any]) -> Resolved:
    """
    Return what a row (a model, a variant, or ``calibrated/<either>``) is on a data set; overrides go over all else.

    Raises
    ------
    InputError
        If there is no such row, or its settings are not valid.

    Examples
    --------
    >>> from recmodels.catalogue.entries import load_catalogue
    >>> found = resolve("calibrated/freedom-ot", load_catalogue()["baby"])
    >>> found.model, found.calibrated, found.config.training.augmentation, found.inputs["augmented_interactions"]
    ('freedom', True, True, 'augmented_interactions')
    """
    spec = trainable(row.removeprefix(CALIBRATED))
    return Resolved(
        name=row,
        spec=spec,
        model=spec.model,
        config=training_config(entry, spec, *overrides),
        inputs={table: spec.source(table) for table in sorted(spec.inputs)},
        positives=positives_config(entry, spec) if "augmented_interactions" in spec.inputs else None,
        calibrated=row.startswith(CALIBRATED),
    )
