"""What the registry knows of a model without loading it. A model outside the package imports this and no registry."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class ModelSpec:
    """One entry of the registry."""

    name: str
    """Key of the model; also the name of its assets."""
    title: str
    """Name as its authors write it."""
    reference: str
    """The publication."""
    module: str
    """Dotted name of the module that defines the classes `Model` and `Config`. It is imported when the model is
    used."""
    inputs: frozenset[str] = field(default=frozenset(), kw_only=True)
    """Every table, by asset name, that the model reads beside `interactions`. Those of images may be without rows."""
    version: str = field(default="1", kw_only=True)
    """Code version of the model's own file: raised when the same data and settings give another trained model."""
    reads_times: bool = field(default=False, kw_only=True)
    """Whether it needs the time of every training row, which not all data sets have."""
    closed_form: bool = field(default=False, kw_only=True)
    """Whether it is solved, with a setting that validation chooses, in place of trained in gradient steps."""
    variant_of: str = field(default="", kw_only=True)
    """Of a variant (`recmodels.models.variants`), the model whose class and configuration it has; empty for a model."""
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any], kw_only=True, hash=False)
    """Of a variant, what differs from the model's settings."""
    tuned: bool = field(default=False, kw_only=True)
    """Of a variant, whether the settings are those that tuning chose for the data set."""
    sources: Mapping[str, str] = field(default_factory=dict[str, str], kw_only=True, hash=False)
    """Of a variant, the asset that is read in place of the table of that name, where it is another one."""
    positives: Mapping[str, Any] | None = field(default=None, kw_only=True, hash=False)
    """Of a variant, what decides about its added positives where they are not the data set's own, by name
    (`recmodels.transport.config.PositivesConfig`); None where they are."""
    point: Mapping[str, Any] = field(default_factory=dict[str, Any], kw_only=True, hash=False)
    """Of a variant that is a point of a grid, its values by dotted name."""
    validation_only: bool = field(default=False, kw_only=True)
    """Of a variant, whether nothing of it is ever measured on test rows."""

    @property
    def model(self) -> str:
        """Name of the model in the registry: its own, or that of the model that it is a variant of."""
        return self.variant_of or self.name

    def source(self, table: str) -> str:
        """Return the name of the asset that is read as a table, its parts divided by slashes."""
        return self.sources.get(table, table)
