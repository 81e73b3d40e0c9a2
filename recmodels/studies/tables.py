"""
The table of a study on a data set: means and spread over seeds, published figures beside them, tests, what is missing.

How it is written down is `recmodels.studies.page`; where the rows come from is `recmodels.studies.results`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl

from recmodels.errors import InputError
from recmodels.reporting.models import SIGNIFICANT, holm
from recmodels.schemas.tables import STUDY
from recmodels.studies.entries import Study, is_seeded
from recmodels.studies.results import Comparison, ResultRow, Results, of_row

Verdict = Literal["held", "opposite", "not shown", ""]


@dataclass(frozen=True)
class Test:
    """A row against another in one figure."""

    comparison: Comparison
    """The paired test."""
    corrected: float
    """Its t-test's p-value by Holm's method over all tests of the study on the data set."""
    claimed: float | str | None
    """What the paper says of the pair: the difference of its figures, ``better`` or ``worse``; None if nothing."""

    @property
    def verdict(self) -> Verdict:
        """Whether what the paper says held here: the same direction, and more than chance."""
        if self.claimed is None:
            return ""
        if self.corrected >= SIGNIFICANT or not self.comparison.difference:
            return "not shown"
        better = self.claimed == "better" if isinstance(self.claimed, str) else self.claimed > 0
        return "held" if (self.comparison.difference > 0) == better else "opposite"


@dataclass(frozen=True)
class StudyTable:
    """A study on a data set."""

    study: Study
    dataset: str
    runs: dict[str, dict[int, ResultRow]]
    """The results that it is made of, by row of the study in its order and by seed."""
    figures: pl.DataFrame
    """One row a row and figure (schema `STUDY`), in the order of the study."""
    tests: Sequence[Test]
    """In the order of the study's comparisons."""
    missing: Sequence[tuple[str, int]]
    """Rows and seeds of the study that there is no result of. Of what comes out the same with every seed, one will
    do."""

    def as_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {
            "study": self.study.name,
            "dataset": self.dataset,
            "figures": self.figures.to_dicts(),
            "tests": [
                {
                    **test.comparison.model_dump(mode="json", exclude={"of"}),
                    "corrected_p_value": test.corrected,
                    "claimed": test.claimed,
                    "verdict": test.verdict,
                }
                for test in self.tests
            ],
            "rows": [run.model_dump(mode="json") for of in self.runs.values() for run in of.values()],
            "missing": [list(cell) for cell in self.missing],
        }


def study_table(study: Study, dataset: str, results: Results, seeds: Sequence[int] | None = None) -> StudyTable:
    """
    Return the table of a study on a data set, from the results that there are.

    Parameters
    ----------
    results
        Of any rows and data sets; those of the study count.
    seeds
        Those that count, in place of the study's.

    Raises
    ------
    InputError
        If its rows were measured on different splits: they cannot stand in one table.

    Examples
    --------
    >>> from recmodels.studies.entries import Study, is_seeded
    >>> study = Study(name="pair", title="Pair", about="", rows=["bpr", "ease"], data_sets=["demo"], seeds=[0])
    >>> row = ResultRow(variant="bpr", dataset="demo", seed=0, split_digest="one", test={"recall@20": 0.25})
    >>> table = study_table(study, "demo", Results(rows=[row]))
    >>> table.figures.select("variant", "figure", "mean").rows(), table.missing
    ([('bpr', 'recall@20', 0.25)], [('ease', 0)])
    """
    wanted = list(seeds if seeds is not None else study.seeds)
    found = {row: of_row(results.rows, dataset, row) for row in study.rows}
    runs = {row: {seed: of[seed] for seed in sorted(of) if seed in wanted} for row, of in found.items()}
    runs = {row: of for row, of in runs.items() if of}
    if len(splits := {run.split_digest for of in runs.values() for run in of.values() if run.split_digest}) > 1:
        raise InputError(
            f"study {study.name} of {dataset}",
            expected="results of one split",
            found=f"those of {len(splits)}: {', '.join(sorted(split[:12] for split in splits))}",
            action="Train and evaluate the rows again.",
        )
    return StudyTable(
        study=study,
        dataset=dataset,
        runs=runs,
        figures=_figures(study, dataset, runs),
        tests=_tests(study, dataset, results, wanted),
        missing=[
            (row, seed)
            for row in study.rows
            for seed in (wanted if is_seeded(row) else wanted[: not runs.get(row)])
            if seed not in runs.get(row, {})
        ],
    )


def measured(study: Study, run: ResultRow) -> dict[str, float]:
    """Return the figures that a study looks at: those of its kind of rows, and never the others."""
    return run.valid if study.rows_of == "valid" else run.test


def _figures(study: Study, dataset: str, runs: dict[str, dict[int, ResultRow]]) -> pl.DataFrame:
    rows: list[dict[str, Any]] = []
    for row, of_seeds in runs.items():
        seconds = [run.seconds for run in of_seeds.values() if run.seconds is not None]
        for figure in study.metrics:
            values = [found[figure] for run in of_seeds.values() if figure in (found := measured(study, run))]
            if not values:
                continue
            mean, published = float(np.mean(values)), study.published.get(dataset, {}).get(row, {}).get(figure)
            rows.append(
                {
                    "variant": row,
                    "title": study.title_of(row),
                    "figure": figure,
                    "source": next(iter(of_seeds.values())).source,
                    "n_seeds": len(values),
                    "mean": mean,
                    "std": float(np.std(values, ddof=1)) if len(values) > 1 else None,
                    "published": published,
                    "difference": None if published is None else mean - published,
                    "seconds": float(np.mean(seconds)) if seconds else None,
                }
            )
    return pl.DataFrame(rows, schema=STUDY)


def _tests(study: Study, dataset: str, results: Results, seeds: Sequence[int]) -> list[Test]:
    key = {(one.first, one.second, one.figure): one for one in results.comparisons if one.dataset == dataset}
    pairs = [(*pair, figure) for pair in study.comparisons for figure in study.metrics]
    found = [key[pair] for pair in pairs if pair in key and set(key[pair].seeds) <= set(seeds)]
    corrected = holm([one.t_p_value for one in found])
    return [
        Test(one, p_value, study.claimed(dataset, one.first, one.second, one.figure))
        for one, p_value in zip(found, corrected, strict=True)
    ]
