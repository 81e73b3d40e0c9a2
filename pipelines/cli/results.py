"""`recmodels results`: what was measured of the studies, as a file and as a page."""

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.output import CONSOLE

if TYPE_CHECKING:
    import dagster as dg
    import polars as pl

    from recmodels.studies.results import ResultRow

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
"""Between these lines of a README stands the table that the command writes."""
COLUMNS = (
    ("table2", "lightgcn"),
    ("table2", "freedom"),
    ("table4", "blast-all"),
    ("ours", "blast-chosen"),
    ("ours", "calibrated/freedom"),
    ("ours", "calibrated/blast-chosen"),
)
"""Study and row of each column of that table."""


def results(
    into: Annotated[Path, typer.Option(help="JSON file that keeps everything; the page is written beside it.")] = Path(
        "docs/results.json"
    ),
    rows: Annotated[
        list[Path] | None,
        typer.Option(help="File with a JSON row a line from another machine; may be repeated."),
    ] = None,
) -> None:
    """
    Add what the graph and other machines measured of the studies to a file, and write its page.

    The page has the name of the file and the ending .md; what stands above its tables comes from <name>_preface.md. A
    README one folder above gets its table, where it has the two lines that mark the place.
    """
    from pipelines.instance import open_instance
    from recmodels.io.files import atomic_file, data_root, instance_home
    from recmodels.studies.entries import load_studies
    from recmodels.studies.page import overview, results_page
    from recmodels.studies.results import (
        ResultRow,
        UsersOf,
        compared,
        read_results,
        read_rows,
        users_beside,
        write_results,
    )

    studies = load_studies()
    users_of: dict[tuple[str, str, int], UsersOf] = {}
    measured: list[ResultRow] = []
    for path in rows or ():
        found = read_rows(path)
        users_of |= dict.fromkeys((row.cell for row in found), users_beside(path.parent))
        measured += found
    if instance_home(data_root()).is_dir():
        with open_instance() as instance:
            of_graph = list(_of_graph(instance))
        users_of |= dict.fromkeys((row.cell for row in of_graph), users_beside(data_root()))
        measured += of_graph
    kept = read_results(into).with_rows(measured)

    def users(row: ResultRow) -> "pl.DataFrame | None":
        return users_of[row.cell](row) if row.cell in users_of else None

    for study in studies.values():
        for dataset in dict.fromkeys(row.dataset for row in kept.rows):
            tests = compared(kept.rows, users, dataset, study.comparisons, study.metrics, study.seeds)
            kept = kept.with_comparisons(tests)
    kept = kept.model_copy(update={"rows": [row.model_copy(update={"users": ""}) for row in kept.rows]})
    preface = into.with_name(f"{into.stem}_preface.md")
    page = results_page(kept, studies.values(), preface.read_text("utf-8") if preface.exists() else "# Results")
    into.parent.mkdir(parents=True, exist_ok=True)
    write_results(into, kept)
    with atomic_file(into.with_suffix(".md")) as temporary:
        temporary.write_text(page, "utf-8")
    _into_readme(into.resolve().parent.parent / "README.md", overview(kept, studies, COLUMNS))
    CONSOLE.print(f"{len(kept.rows)} results, {len(measured)} of them read now, in {into}", soft_wrap=True)


def with_table(text: str, table: str) -> str:
    """Return a text with a table between the two lines that mark its place; as it is where it has none."""
    before, begin, rest = text.partition(f"{BEGIN}\n")
    _, end, after = rest.partition(END)
    return f"{before}{begin}\n{table}\n{end}{after}" if begin and end else text


def _into_readme(path: Path, table: str) -> None:
    from recmodels.io.files import atomic_file

    text = path.read_text("utf-8") if path.exists() else ""
    if (changed := with_table(text, table)) != text:
        with atomic_file(path) as temporary:
            temporary.write_text(changed, "utf-8")


def _of_graph(instance: "dg.DagsterInstance") -> "Iterator[ResultRow]":
    """Yield what an instance has of the rows of all studies, on the data sets that these are about."""
    from assets.studies import result_rows
    from assets.support.resources import DataRoot
    from recmodels.catalogue.entries import load_catalogue
    from recmodels.studies.entries import load_studies

    known = load_catalogue()
    seeds: dict[tuple[str, str], set[int]] = {}
    for study in load_studies().values():
        for cell in product(known.keys() & study.data_sets, study.rows):
            seeds.setdefault(cell, set()).update(study.seeds)
    for (dataset, row), of_cell in sorted(seeds.items()):
        yield from result_rows(instance, DataRoot(), dataset, [row], sorted(of_cell))
