"""What README and the pages of docs/ say of measurements and of each other is so."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.render import COMPARISONS, FIGURES, RESULTS, read, runs_of
from experiments.rows import DOCS, PUBLISHED
from recmodels.models.registry import MODELS
from recmodels.reporting.tables import mean_and_spread

REPOSITORY = Path(__file__).resolve().parents[2]
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

    expected = [
        [spec.title if (spec := MODELS.get(model)) else model, *(shown(figures[figure]) for figure in FIGURES)]
        for model, figures in read(DOCS / "demo.json")["models"].items()
    ]
    assert [list(row.values()) for row in _table("model")] == expected
    assert {
        figure["n_seeds"] for model in read(DOCS / "demo.json")["models"].values() for figure in model.values()
    } == {3}


def test_the_figures_of_the_published_splits_are_those_of_their_files() -> None:
    measured = read(RESULTS)
    for row in _table("test Recall@20"):
        name, kind = row.pop("test Recall@20").lower().split(", ")
        for key, cell in ((title.lower(), cell) for title, cell in row.items()):
            runs = [run["test"]["recall@20"] for run in runs_of(measured, name, key).values()]
            if kind == "published":
                assert not cell or cell == f"{PUBLISHED[name][key]['recall@20']:.4f}"
            elif len(runs) > 1:
                assert cell == f"{mean_and_spread(np.mean(runs), np.std(runs, ddof=1))} ({len(runs)} seeds)"
            else:
                assert cell == "".join(f"{run:.4f}" for run in runs)


@pytest.mark.parametrize("name", ["sports", "clothing"])
def test_what_is_said_of_blast_against_freedom_is_what_was_measured(name: str) -> None:
    relative = read(COMPARISONS)[f"{name}/blast/freedom"]["recall@20"]["relative"]
    said = re.search(rf"({-100 * relative:.0f}) % below (FREEDOM|it) on {name.capitalize()}", " ".join(README.split()))
    assert said, f"README: expected {-100 * relative:.0f} % on {name}"


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
