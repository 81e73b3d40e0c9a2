"""What README and the pages of docs/ say of measurements and of each other is so."""

import json
import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from pipelines.cli.results import BEGIN, COLUMNS, END, with_table
from recmodels.models.registry import MODELS
from recmodels.reporting.tables import HEADLINE, figure_name, mean_and_spread
from recmodels.studies.entries import load_studies
from recmodels.studies.page import overview, results_page
from recmodels.studies.results import read_results

REPOSITORY = Path(__file__).resolve().parents[2]
DOCS = REPOSITORY / "docs"
RESULTS = read_results(DOCS / "results.json")
FIGURES = [figure_name(*headline) for headline in HEADLINE]
README = (REPOSITORY / "README.md").read_text()
MADE_BY_USERS = {"benchmarks/results", "docker/.env"}
PAGES = [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")]


def _table(first: str) -> Iterator[dict[str, str]]:
    """Yield the rows of README's table whose first column has this name, by column."""
    lines = README[README.index(f"| {first} |") :].split("\n\n")[0].splitlines()
    columns, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    for row in rows:
        yield dict(zip(columns, row, strict=True))


def test_the_leaderboard_of_the_demo_is_the_one_that_was_measured() -> None:
    def shown(figure: dict[str, Any]) -> str:
        return mean_and_spread(figure["mean"], figure["std"] or None)  # a model without a seed has no spread

    models = json.loads((DOCS / "demo.json").read_text())["models"]
    expected = [
        [spec.title if (spec := MODELS.get(model)) else model, *(shown(figures[figure]) for figure in FIGURES)]
        for model, figures in models.items()
    ]
    assert [list(row.values()) for row in _table("model")] == expected
    assert {
        figure["n_seeds"]
        for model in json.loads((DOCS / "demo.json").read_text())["models"].values()
        for figure in model.values()
    } == {3}


def test_the_table_and_the_page_of_results_are_what_their_file_gives() -> None:
    assert BEGIN in README
    assert END in README
    assert with_table(README, overview(RESULTS, load_studies(), COLUMNS)) == README, "run `recmodels results`"
    page = results_page(RESULTS, load_studies().values(), (DOCS / "results_preface.md").read_text())
    assert page == (DOCS / "results.md").read_text(), "run `recmodels results`"


def test_a_changed_figure_changes_the_table() -> None:
    row = next(row for row in RESULTS.rows if (row.dataset, row.variant) == ("sports", "freedom"))
    changed = row.model_copy(update={"test": row.test | {"recall@20": 0.5}})
    assert with_table(README, overview(RESULTS.with_rows([changed]), load_studies(), COLUMNS)) != README


@pytest.mark.parametrize(("row", "name"), product(["blast-all", "blast-chosen"], ["baby", "sports", "clothing"]))
def test_what_is_said_of_blast_against_freedom_is_what_was_measured(row: str, name: str) -> None:
    (relative,) = (
        found.relative
        for found in RESULTS.comparisons
        if (found.dataset, found.first, found.second, found.figure) == (name, row, "freedom", "recall@20")
    )
    assert relative is not None
    percent = round(100 * relative)
    how = f"{abs(percent)} % {'above' if percent > 0 else 'below'}" if percent else "level with"
    assert re.search(rf"{how} (FREEDOM|it) on {name.capitalize()}", " ".join(README.split())), f"{how} on {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target, _, heading in re.findall(r"\]\((?!http)([^)#\s]*)(#([^)\s]*))?\)", page.read_text()):
        there = page.parent / target if target else page
        assert there.exists(), target
        if heading:
            headings = re.findall(r"^#+ (.*)$", there.read_text(), re.MULTILINE)
            assert heading in [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_is_named_is_there(page: Path) -> None:
    if page.name != "CHANGELOG.md":
        folders = "assets|benchmarks|docker|docs|experiments|pipelines|recmodels|tests"
        named = set(re.findall(rf"`((?:{folders})/[\w./-]+)`", page.read_text())) - MADE_BY_USERS
        assert not [name for name in named if not (REPOSITORY / name).exists()]
