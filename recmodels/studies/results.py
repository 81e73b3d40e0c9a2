"""
What was measured, as plain rows: one a row of a study, data set and seed, whoever measured it.

Rows are kept in one JSON file beside the paired tests between them, because the values of users that tests are made
from stay where they were measured. Tables of them are `recmodels.studies.tables`.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, model_validator

from recmodels.errors import InputError
from recmodels.evaluation.comparison import compare
from recmodels.io.digest import digest_of
from recmodels.io.files import atomic_file
from recmodels.io.tables import read_table
from recmodels.validation import nested, validated


class ResultRow(BaseModel):
    """One training and what was measured of it; of a baseline, what was measured alone."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    variant: str
    """Model, variant, ``calibrated/<either>`` or baseline."""
    dataset: str
    """Key of the data set in the catalogue."""
    seed: int
    """Of the training."""
    source: Literal["graph", "device", "older"] = "device"
    """Who measured it: the asset graph, a script on another machine, or an earlier version of either."""
    device: str = ""
    """What it was trained on."""
    seconds: float | None = None
    """What the training took."""
    epochs: int | None = None
    """Epochs of the training."""
    best_epoch: int | None = None
    """The epoch whose parameters were kept."""
    valid: dict[str, float] = Field(default_factory=dict)
    """Figures of the validation rows by name, as in ``recall@20``."""
    test: dict[str, float] = Field(default_factory=dict)
    """Figures of the test rows by name."""
    groups: dict[str, dict[str, float]] = Field(default_factory=dict)
    """Test Recall@20 by group: ``user_activity`` or ``item_popularity``, and the name of the group."""
    users: str = ""
    """File with the values of users: columns user_id and one a figure. Relative to the folder of the rows' file."""
    split_digest: str = ""
    """Digest of the split it was trained and measured on; only what an earlier version measured may lack it."""
    commit: str = ""
    """Of the code."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Resolved settings, nested or by dotted name."""
    data_versions: dict[str, str] = Field(default_factory=dict)
    """Data versions of what it read, by table or asset."""
    provenance: str = ""
    """Digest of code, settings and data without the seed, where whoever measured it has one."""

    @model_validator(mode="after")
    def _of_a_split(self) -> "ResultRow":
        if not self.split_digest and self.source != "older":
            raise ValueError("a split_digest is needed")
        return self

    @property
    def cell(self) -> tuple[str, str, int]:
        """Data set, variant and seed: of each there is one row at most."""
        return self.dataset, self.variant, self.seed

    @property
    def made_from(self) -> str:
        """A digest that seeds of one configuration, on whatever device, have in common; only these are averaged."""
        if self.provenance:
            return digest_of(self.provenance, self.split_digest)
        settings = nested(self.settings)
        if "training" in settings:
            settings["training"] = {name: value for name, value in settings["training"].items() if name != "device"}
        return digest_of(json.dumps([self.source == "older", settings, self.split_digest], sort_keys=True))


class Comparison(BaseModel):
    """A paired test of one row against another in one figure, user by user over the seeds that both have."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: str
    first: str
    second: str
    figure: str
    seeds: list[int]
    difference: float
    """Mean of the first minus mean of the second."""
    relative: float | None
    """That as a share of the second's mean."""
    t_p_value: float
    """Of the paired t-test, two-sided."""
    wilcoxon_p_value: float
    """Of the signed-rank test, two-sided."""
    n_users: int | None = None
    """Users compared, where that was recorded."""
    of: str
    """Digest of the results that were compared: where they are others by now, the test says nothing of them."""


class Results(BaseModel):
    """The rows, by data set, variant and seed, and the tests between them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: list[ResultRow] = Field(default_factory=list[ResultRow])
    comparisons: list[Comparison] = Field(default_factory=list[Comparison])

    def with_rows(self, rows: Iterable[ResultRow]) -> "Results":
        """
        Return the results with further rows, each in place of the one of its cell.

        Examples
        --------
        >>> row = ResultRow(variant="bpr", dataset="demo", seed=0, split_digest="one", test={"recall@20": 0.25})
        >>> both = Results(rows=[row]).with_rows([row.model_copy(update={"test": {"recall@20": 0.5}})])
        >>> [row.test for row in both.rows]
        [{'recall@20': 0.5}]
        """
        by_cell = {row.cell: row for row in [*self.rows, *rows]}
        kept = [by_cell[cell] for cell in sorted(by_cell)]
        still = [one for one in self.comparisons if one.of == _compared(kept, one.dataset, one.first, one.second)]
        return Results(rows=kept, comparisons=still)

    def with_comparisons(self, comparisons: Iterable[Comparison]) -> "Results":
        """Return the results with further tests, each in place of the one of the same pair and figure."""
        key = {(one.dataset, one.first, one.second, one.figure): one for one in [*self.comparisons, *comparisons]}
        return Results(rows=self.rows, comparisons=[key[name] for name in sorted(key)])


UsersOf = Callable[[ResultRow], pl.DataFrame | None]
"""From a row to the values of its users (columns user_id and one a figure); None where they are not at hand."""


def read_results(path: Path) -> Results:
    """
    Return what a file of results holds; nothing where there is no file.

    Raises
    ------
    InputError
        If it is no JSON or not of this form.
    """
    if not path.exists():
        return Results()
    try:
        content: Any = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise InputError(str(path), expected="a file of results in JSON", found=str(error)) from error
    if not isinstance(content, dict):
        raise InputError(str(path), expected="an object with rows and comparisons", found=type(content).__name__)
    results: Results = validated(Results, content, str(path))
    return results


def write_results(path: Path, results: Results) -> None:
    """Write a file of results, whole or not at all; rows and tests have a fixed order."""
    content = {
        name: [each.model_dump(mode="json", exclude_defaults=True) for each in part]
        for name, part in (("rows", results.rows), ("comparisons", results.comparisons))
    }
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", "utf-8")


def read_rows(path: Path) -> list[ResultRow]:
    """
    Return the rows of a file with one JSON object a line, as a script on another machine writes them.

    Raises
    ------
    InputError
        If a line is not of this form; its number is named.
    """
    rows: list[ResultRow] = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            content = json.loads(line)
        except ValueError as error:
            raise InputError(where, expected="a JSON object", found=str(error)) from error
        row: ResultRow = validated(ResultRow, content, where)
        rows.append(row)
    return rows


def users_beside(folder: Path) -> UsersOf:
    """
    Return a function that reads the values of users from the files that rows name, relative to a folder.

    Where a row names none, its values may be in ``users-<data set>.parquet``, which has a column
    ``<variant>|<seed>|<figure>`` for each.
    """

    def users(row: ResultRow) -> pl.DataFrame | None:
        path, start = folder / (row.users or f"users-{row.dataset}.parquet"), f"{row.variant}|{row.seed}|"
        if not path.exists():
            return None
        if row.users:
            return read_table(path, "Evaluate the model again.")
        columns = [name for name in pl.read_parquet_schema(path) if name.startswith(start)]
        renamed = {name: name.removeprefix(start) for name in columns}
        return pl.read_parquet(path, columns=["user_id", *columns]).rename(renamed) if columns else None

    return users


def of_row(rows: Iterable[ResultRow], dataset: str, variant: str) -> dict[int, ResultRow]:
    """
    Return the rows of a variant on a data set that may be averaged, by seed.

    What an earlier version measured counts only where there is nothing newer; of several configurations or splits the
    one with most seeds counts, and of those the one that comes first.
    """
    found = [row for row in rows if row.dataset == dataset and row.variant == variant]
    newer = [row for row in found if row.source != "older"] or found
    groups: dict[str, dict[int, ResultRow]] = {}
    for row in newer:
        groups.setdefault(row.made_from, {})[row.seed] = row
    return max(groups.values(), key=len, default={})


def compared(
    rows: Sequence[ResultRow],
    users: UsersOf,
    dataset: str,
    pairs: Iterable[tuple[str, str]],
    figures: Sequence[str],
    seeds: Sequence[int] | None = None,
) -> list[Comparison]:
    """
    Return the paired tests of pairs of rows in each figure. Pairs whose users are not at hand are left out.

    Parameters
    ----------
    users
        Where the values of a row's users are.
    pairs
        Names of rows, each the first against the second.
    figures
        Such as ``recall@20``.
    seeds
        Those that count; None takes all that both have.

    Raises
    ------
    InputError
        If two rows were measured on different splits or users.
    """
    found: list[Comparison] = []
    for first, second in pairs:
        frames = [_frames(of_row(rows, dataset, name), users, seeds) for name in (first, second)]
        if not frames[0].keys() & frames[1].keys():
            continue
        of = _compared(rows, dataset, first, second)
        for figure in figures:
            one = compare(frames[0], frames[1], figure)
            found.append(
                Comparison(
                    dataset=dataset,
                    first=first,
                    second=second,
                    figure=figure,
                    seeds=list(one.seeds),
                    difference=one.test.difference,
                    relative=one.relative,
                    t_p_value=one.test.t_p_value,
                    wilcoxon_p_value=one.test.wilcoxon_p_value,
                    n_users=one.test.n_users,
                    of=of,
                )
            )
    return found


def _frames(found: Mapping[int, ResultRow], users: UsersOf, seeds: Sequence[int] | None) -> dict[int, pl.DataFrame]:
    frames: dict[int, pl.DataFrame] = {}
    for seed, row in found.items():
        values = users(row) if seeds is None or seed in seeds else None
        if values is not None:
            marks = {"model": row.variant, "split_digest": row.split_digest, "provenance": row.made_from}
            frames[seed] = values.with_columns(pl.lit(text).alias(name) for name, text in marks.items())
    return frames


def _compared(rows: Sequence[ResultRow], dataset: str, first: str, second: str) -> str:
    """Return a digest of what is measured of two rows, by which a test tells whether it is still about them."""
    of_both = [of_row(rows, dataset, name) for name in (first, second)]
    parts = [
        [row.made_from, str(seed), json.dumps(row.test, sort_keys=True)]
        for of in of_both
        for seed, row in sorted(of.items())
    ]
    return digest_of(*(part for row in parts for part in row))
