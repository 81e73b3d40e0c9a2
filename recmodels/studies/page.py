"""How studies are written down: a table as Markdown, and the page docs/results.md of all that was measured."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import polars as pl

from recmodels.catalogue.entries import load_catalogue
from recmodels.reporting.models import GROUPINGS
from recmodels.reporting.tables import mean_and_spread
from recmodels.studies.entries import Study
from recmodels.studies.results import Results
from recmodels.studies.tables import StudyTable, study_table

SMALLEST_P = 1e-50
"""p-values below this are not told apart: tables have rounded them to 0."""
_SHORT = {"recall": "R", "ndcg": "N", "mrr": "MRR", "hit": "HR", "precision": "P", "map": "MAP"}


def heading(figure: str) -> str:
    """Return a figure as a column names it, ``R@20`` for ``recall@20``."""
    metric, _, k = figure.partition("@")
    return f"{_SHORT[metric]}@{k}"


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, texts: set[str]) -> str:
    """Return a Markdown table; columns that are no texts are numbers, on the right."""
    rules = "".join("|---" if column in texts else "|---:" for column in columns)
    return "".join([_line(columns), f"{rules}|\n", *map(_line, rows)])


def rendered(table: StudyTable) -> str:
    """Return the table of a study on a data set as Markdown: figures, tests, groups, and what is missing."""
    parts = [_figures(table), _best(table), _tests(table), *_groups(table), _missing(table)]
    return "\n".join(part for part in parts if part)


def results_page(results: Results, studies: Iterable[Study], preface: str) -> str:
    """Return the page with every study of which something was measured, on all of the data sets that it is about."""
    tables = [
        [table for name in study.data_sets if not (table := study_table(study, name, results)).figures.is_empty()]
        for study in studies
    ]
    parts = [preface.rstrip() + "\n", _claims(table for shown in tables for table in shown)]
    for shown in filter(None, tables):
        parts.append(f"## {shown[0].study.title}\n\n{shown[0].study.about}\n")
        parts += [f"### {_title_of(table.dataset)}\n\n{rendered(table)}" for table in shown]
    return "\n".join(part for part in parts if part)


def _title_of(dataset: str) -> str:
    catalogue = load_catalogue()
    return catalogue[dataset].title if dataset in catalogue else dataset


def _claims(tables: Iterable[StudyTable]) -> str:
    """Return every difference that a paper names and that was measured, in the figure by which models are chosen."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for table in tables:
        chosen = table.study.select_by.partition(" ")[2]
        figure = chosen if chosen in table.study.metrics else table.study.metrics[0]
        for test in table.tests:
            one = test.comparison
            if test.claimed is not None and one.figure == figure:
                names = [table.study.title_of(row) for row in (one.first, one.second)]
                of = [_title_of(one.dataset), heading(figure), _claim(test.claimed), f"{one.difference:+.4f}"]
                rows.setdefault((one.dataset, one.first, one.second), [*names, *of, test.verdict])
    if not rows:
        return ""
    columns = ["row", "against", "data set", "figure", "in the paper", "here", "verdict"]
    table = markdown_table(columns, rows.values(), texts=set(columns) - {"in the paper", "here"})
    about = "Every difference of a paper of which both rows were measured:"
    return f"## What held of the papers' claims\n\n{about}\n\n{table}"


def overview(
    results: Results, studies: Mapping[str, Study], rows: Sequence[tuple[str, str]], figure: str = "recall@20"
) -> str:
    """
    Return README's table: a line a data set for what was measured and one for what is published.

    Parameters
    ----------
    studies
        Every study by name.
    rows
        Study and row of each column.
    figure
        The one it shows.
    """
    catalogue = load_catalogue()
    lines: list[list[str]] = []
    for dataset in ("baby", "sports", "clothing"):
        tables = {name: study_table(studies[name], dataset, results) for name, _ in rows}
        cells = [_cell(tables[name].figures, row, figure) for name, row in rows]
        published = [studies[name].published.get(dataset, {}).get(row, {}).get(figure) for name, row in rows]
        title = catalogue[dataset].title.partition(" ")[0].rstrip(",")
        lines.append([f"{title}, measured", *cells])
        lines.append([f"{title}, published", *("" if value is None else f"{value:.4f}" for value in published)])
    first = f"test {figure.replace('recall', 'Recall').replace('ndcg', 'NDCG')}"
    titles = [studies[name].title_of(row) for name, row in rows]
    return markdown_table([first, *titles], lines, texts={first})


def _cell(figures: pl.DataFrame, row: str, figure: str) -> str:
    found = figures.filter((pl.col("variant") == row) & (pl.col("figure") == figure)).to_dicts()
    if not found:
        return ""
    seeds = f" ({found[0]['n_seeds']} seeds)" if found[0]["n_seeds"] > 1 else ""
    older = " *" if found[0]["source"] == "older" else ""
    return f"{mean_and_spread(found[0]['mean'], found[0]['std'])}{seeds}{older}"


def _figures(table: StudyTable) -> str:
    metrics = table.study.metrics
    published = [name for name in metrics if not table.figures.filter(figure=name)["published"].is_null().all()]
    rows: list[list[str]] = []
    for row, runs in table.runs.items():
        of_row = {one["figure"]: one for one in table.figures.filter(variant=row).iter_rows(named=True)}
        if not of_row:
            continue
        one = next(iter(of_row.values()))
        beside = [
            f"{of_row[name]['published']:.4f} ({of_row[name]['difference']:+.4f})"
            if name in of_row and of_row[name]["published"] is not None
            else ""
            for name in published
        ]
        figures = [
            mean_and_spread(of_row[name]["mean"], of_row[name]["std"]) if name in of_row else "" for name in metrics
        ]
        kept = ", ".join(str(run.best_epoch) for run in runs.values() if run.best_epoch is not None)
        minutes = "" if one["seconds"] is None else f"{one['seconds'] / 60:.1f}"
        title = f"{one['title']} *" if one["source"] == "older" else one["title"]
        rows.append([title, str(one["n_seeds"]), *figures, *beside, kept, minutes])
    columns = [
        table.study.rows_of + " rows" if table.study.rows_of == "valid" else "row",
        "seeds",
        *map(heading, metrics),
        *(f"published {heading(name)}" for name in published),
        "best epoch",
        "minutes a run",
    ]
    return markdown_table(columns, rows, texts={columns[0]})


def _best(table: StudyTable) -> str:
    """Return which point of each sweep the validation rows choose."""
    lines: list[str] = []
    figure = table.study.select_by.partition(" ")[2]
    for panel in table.study.panels:
        points = table.figures.filter(
            (pl.col("figure") == figure) & pl.col("variant").str.starts_with(f"{panel.sweep}-")
        )
        if points.height:
            best = points.row(int(points["mean"].arg_max() or 0), named=True)
            lines.append(f"- {panel.title}: best is {best['title']}, {mean_and_spread(best['mean'], best['std'])}\n")
    return "".join(lines)


def _tests(table: StudyTable) -> str:
    if not table.tests:
        return ""
    rows = [
        [
            f"{table.study.title_of(test.comparison.first)} against {table.study.title_of(test.comparison.second)}",
            heading(test.comparison.figure),
            str(len(test.comparison.seeds)),
            f"{test.comparison.difference:+.4f}",
            "" if test.comparison.relative is None else f"{100 * test.comparison.relative:+.1f} %",
            _p_value(test.comparison.t_p_value),
            _p_value(test.corrected),
            _p_value(test.comparison.wilcoxon_p_value),
            f"{_claim(test.claimed)}: {test.verdict}" if test.claimed is not None else "",
        ]
        for test in table.tests
    ]
    columns = ["comparison", "figure", "seeds", "difference", "relative", "p (paired t)", "p (Holm)", "p (signed rank)"]
    columns.append("in the paper: here")
    if not any(row[-1] for row in rows):
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    verdicts = [test.verdict for test in table.tests if test.verdict]
    counted = ", ".join(f"{verdicts.count(kind)} {kind}" for kind in ("held", "opposite", "not shown"))
    summary = f"\nOf {len(verdicts)} differences that the paper names: {counted}.\n" if verdicts else ""
    text = "Users paired, each user's mean over the seeds; Holm's correction is for all tests of this table:"
    texts = {"comparison", "figure", "in the paper: here"}
    return f"{text}\n\n{markdown_table(columns, rows, texts=texts)}{summary}"


def _claim(claimed: float | str) -> str:
    return claimed if isinstance(claimed, str) else f"{claimed:+.4f}"


def _p_value(value: float) -> str:
    if value < SMALLEST_P:
        return f"< {SMALLEST_P:.0e}"
    return f"{value:.3f}" if value >= 0.001 else f"{value:.0e}"


def _groups(table: StudyTable) -> list[str]:
    if not table.study.groups:
        return []
    parts: list[str] = []
    for grouping, title in GROUPINGS.items():
        runs = {row: [run for run in of.values() if grouping in run.groups] for row, of in table.runs.items()}
        names = list(dict.fromkeys(name for of in runs.values() for run in of for name in run.groups[grouping]))
        rows = [
            [table.study.title_of(row), *(_mean([run.groups[grouping].get(name) for run in of]) for name in names)]
            for row, of in runs.items()
            if of
        ]
        if rows:
            first = f"test R@20, {title[0].lower()}{title[1:]}"
            parts.append(markdown_table([first, *names], rows, texts={first}))
    return parts


def _mean(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{np.mean(known):.4f}" if known else ""


def _missing(table: StudyTable) -> str:
    older = any(run.source == "older" for of in table.runs.values() for run in of.values())
    mark = "\\* measured by an earlier version, to be run again.\n" if older else ""
    missing: dict[str, list[int]] = {}
    for row, seed in table.missing:
        missing.setdefault(row, []).append(seed)
    told = ", ".join(f"{table.study.title_of(row)} ({', '.join(map(str, seeds))})" for row, seeds in missing.items())
    return "\n".join(part for part in (mark, f"Not measured yet (seeds): {told}.\n" if told else "") if part)


def _line(values: Sequence[str]) -> str:
    return f"| {' | '.join(values)} |\n"
