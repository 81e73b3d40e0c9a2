"""What the registry knows of a model without loading it. A model outside the package imports this and no registry."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class ModelSpec:
    """
    One entry of the registry.

    Attributes
    ----------
    name
        Key of the model; also the name of its assets.
    title
        Name as its authors write it.
    reference
        The publication.
    module
        Dotted name of the module that defines the classes `Model` and `Config`. It is imported when the model is used.
    inputs
        Every table, by asset name, that the model reads beside `interactions`. Those of images may be without rows.
    version
        Code version of the model's own file: raised when the same data and settings give another trained model.
    reads_times
        Whether it needs the time of every training row, which not all data sets have.
    closed_form
        Whether it is solved, with a setting that validation chooses, in place of trained in gradient steps.
    """

    name: str
    title: str
    reference: str
    module: str
    inputs: frozenset[str] = field(default=frozenset(), kw_only=True)
    version: str = field(default="1", kw_only=True)
    reads_times: bool = field(default=False, kw_only=True)
    closed_form: bool = field(default=False, kw_only=True)
