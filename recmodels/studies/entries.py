"""The studies there are: their rows, data sets, seeds, metrics, comparisons and the figures that papers report."""

import re
import tomllib
from importlib import resources
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from recmodels.calibration.config import CALIBRATED
from recmodels.errors import InputError
from recmodels.models.registry import MODELS, NON_PERSONALISED
from recmodels.models.spec import ModelSpec
from recmodels.models.variants import load_variants, user_tables
from recmodels.schemas.results import LIST_LENGTHS, USER_METRICS
from recmodels.validation import did_you_mean, require_known, validated

METRICS = tuple(f"{metric}@{k}" for k in LIST_LENGTHS for metric in USER_METRICS)
_NAME = re.compile(r"[a-z0-9][a-z0-9_]*")


class Panel(BaseModel):
    """A plot of a study on validation rows: one setting along the axis, others as lines."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    """What is written above it."""
    sweep: str
    """The variant with a grid whose points it shows."""


class Study(BaseModel):
    """What is compared, and with which published figures."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    """Key of the study; also the name of its asset."""
    title: str
    """What the tables are called."""
    about: str
    """What the study asks, in a sentence."""
    rows: list[str] = Field(default_factory=list)
    """Models, variants, ``calibrated/<either>`` and baselines, in the order of the table."""
    titles: dict[str, str] = Field(default_factory=dict)
    """What the table calls a row, where that is not its own title."""
    data_sets: list[str] = Field(min_length=1)
    """Data sets that the study is about; it can be made of any other too."""
    seeds: list[int] = Field(min_length=1)
    """Seeds of every row."""
    metrics: list[str] = Field(default=["recall@20", "ndcg@20"], min_length=1)
    """Figures of the table; the first one is drawn."""
    rows_of: Literal["test", "valid"] = "test"
    """Rows of the data set on which the figures are measured."""
    select_by: str = "valid recall@20"
    """Figure that chooses wherever there is something to choose: one of the validation rows."""
    comparisons: list[tuple[str, str]] = Field(default_factory=list)
    """Pairs of rows that are tested against each other, user by user; they are corrected for their number together."""
    claims: list[tuple[str, str, Literal["better", "worse"]]] = Field(default_factory=list)
    """What a paper says of pairs of rows without figures of both: the first is better, or worse, than the second."""
    groups: bool = False
    """Whether the figures are also shown by activity of the user and by popularity of the item."""
    published: dict[str, dict[str, dict[str, float]]] = Field(default_factory=dict)
    """What the paper reports, by data set, row and figure."""
    panels: list[Panel] = Field(default_factory=list)
    """Plots of a study on validation rows."""

    def claimed(self, dataset: str, first: str, second: str, figure: str) -> float | str | None:
        """Return what the paper says of a pair: the difference of its figures, ``better``, ``worse``, or nothing."""
        of_pair = [self.published.get(dataset, {}).get(row, {}).get(figure) for row in (first, second)]
        if of_pair[0] is not None and of_pair[1] is not None:
            return of_pair[0] - of_pair[1]
        return next((how for *pair, how in self.claims if pair == [first, second]), None)

    def title_of(self, row: str) -> str:
        """Return what the table calls a row."""
        return self.titles.get(row) or title_of(row)


def title_of(row: str) -> str:
    """Return the title of a model, a variant, a calibrated form or a baseline; of anything else its name."""
    name = row.removeprefix(CALIBRATED)
    spec = MODELS.get(name) or load_variants().get(name)
    title = spec.title if spec else name.capitalize()
    return f"{title}, calibrated" if row.startswith(CALIBRATED) else title


def is_seeded(row: str) -> bool:
    """Tell whether a row may come out differently with another seed: popularity and closed forms do not."""
    name = row.removeprefix(CALIBRATED)
    spec = MODELS.get(name) or load_variants().get(name)
    return row != "popularity" and not (spec and spec.closed_form)


def load_studies() -> dict[str, Study]:
    """
    Return every study by name: the packaged ones, then those of the user's file, which may replace them.

    Raises
    ------
    InputError
        If a file cannot be read, an entry has an unknown key, row or figure, or something is chosen by test rows.

    Examples
    --------
    >>> load_studies()["table4"].rows[0]
    'freedom'
    """
    text = resources.files("recmodels.studies").joinpath("packaged.toml").read_text("utf-8")
    tables, where = user_tables("studies")
    variants = load_variants()
    found: dict[str, Study] = {}
    for at, of_file in (("packaged studies", tomllib.loads(text)), (where, tables)):
        found |= {name: _study(name, table, f"{at}, {name}", variants) for name, table in of_file.items()}
    return found


def study_named(name: str) -> Study:
    """
    Return a study.

    Raises InputError if there is none of that name.
    """
    studies = load_studies()
    require_known("study", name, studies)
    return studies[name]


def _study(name: str, table: Any, where: str, variants: dict[str, ModelSpec]) -> Study:
    if not isinstance(table, dict) or not _NAME.fullmatch(name):
        expected = "a table [studies.<name>] with a name of lower-case letters, digits and underscores"
        raise InputError(where, expected=expected, found=repr(table if _NAME.fullmatch(name) else name))
    study: Study = validated(Study, {"name": name, **table}, where)
    _require_honest(study, where)
    sweeps = [panel.sweep for panel in study.panels]
    swept = [own for sweep in sweeps for own in variants if own.startswith(f"{sweep}-")]
    study = study.model_copy(update={"rows": list(dict.fromkeys([*study.rows, *swept]))})
    trained = {**MODELS, **variants}
    for row in study.rows:
        if row not in NON_PERSONALISED and row.removeprefix(CALIBRATED) not in trained:
            hint = did_you_mean(row, [*trained, *NON_PERSONALISED])
            raise InputError(where, expected="rows that are models or variants", found=repr(row), action=hint)
        spec = trained.get(row.removeprefix(CALIBRATED))
        if study.rows_of == "test" and spec is not None and spec.validation_only:
            expected = "rows that may be measured on test rows"
            raise InputError(where, expected=expected, found=f"{row!r}, which is for validation rows alone")
    named = [
        *study.titles,
        *(row for pair in study.comparisons for row in pair),
        *(row for of_dataset in study.published.values() for row in of_dataset),
    ]
    if unknown := [row for row in named if row not in study.rows]:
        hint = did_you_mean(unknown[0], study.rows)
        raise InputError(where, expected=f"rows of the study, {', '.join(study.rows)}", found=unknown[0], action=hint)
    if unknown := [pair for *pair, _ in study.claims if tuple(pair) not in study.comparisons]:
        raise InputError(f"{where}, claims", expected="pairs of the comparisons", found=" and ".join(unknown[0]))
    figures = [figure for of in study.published.values() for row in of.values() for figure in row]
    if wrong := [figure for figure in [*study.metrics, *figures] if figure not in METRICS]:
        raise InputError(where, expected=f"figures among {', '.join(METRICS)}", found=wrong[0])
    return study


def _require_honest(study: Study, where: str) -> None:
    """Refuse whatever would let test rows decide about a setting."""
    rows, _, figure = study.select_by.partition(" ")
    if rows != "valid" or figure not in METRICS:
        raise InputError(
            f"{where}, select_by",
            expected="a figure of the validation rows, such as 'valid recall@20'",
            found=repr(study.select_by),
            action="Test rows are looked at once, when everything is chosen: they choose nothing.",
        )
    if study.panels and study.rows_of != "valid":
        raise InputError(
            f"{where}, panels",
            expected='rows_of = "valid"',
            found=f"a sweep of settings measured on {study.rows_of} rows",
            action="Settings are compared on validation rows.",
        )
    if study.rows_of == "valid" and (study.comparisons or study.published or study.metrics != ["recall@20"]):
        raise InputError(
            where,
            expected='metrics = ["recall@20"] and neither comparisons nor published figures on validation rows',
            found=f"metrics {study.metrics}, {len(study.comparisons)} comparisons",
            action="Validation Recall@20 is what a training records.",
        )
