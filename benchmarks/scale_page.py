"""The tables of docs/scale.md: what `benchmarks/scale.py` measured, and what follows from it for more rows."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from benchmarks.scale import ENCODED_WIDTH, PER_ITEM, PER_USER, STAGES, Cost

DOCS = Path(__file__).resolve().parents[1] / "docs"
COSTS, EXTRAPOLATED = "unit costs", "extrapolated"
TRAINED_SHARE, NEIGHBOURS_ADDED, STEPS_OF_BABY = 0.8, 10, 58


class DataSet(NamedTuple):
    """How many interactions, users and items there are."""

    interactions: float
    users: float
    items: float


SIZES = {f"{n} million": DataSet(n * 1e6, n * 1e6 / PER_USER, n * 1e6 / PER_ITEM) for n in (1, 10, 100)}
SIZES["571 million"] = DataSet(571e6, 54e6, 48e6)
"""The last is Amazon Reviews 2023 before any k-core."""


@dataclass(frozen=True)
class Part:
    """A row of what is extrapolated: whose costs it has, and how many rows and units a data set gives."""

    title: str
    stage: str
    rows: Callable[[DataSet], float]
    units: Callable[[DataSet], float]


PARTS = (
    Part("parsing", "parse", lambda d: d.interactions, lambda d: d.interactions),
    Part("one review a pair", "distinct", lambda d: d.interactions, lambda d: d.interactions),
    Part("5-core and split", "split", lambda d: d.interactions, lambda d: d.interactions),
    Part("embeddings of users and items", "embed", lambda d: d.users + d.items, lambda d: d.users + d.items),
    Part("exact neighbours of items", "neighbours", lambda d: d.items, lambda d: d.items**2),
    Part("exact neighbours of users", "neighbours", lambda d: d.users, lambda d: d.users**2),
    Part(
        "transport, 10 false negatives a training row",
        "transport",
        lambda d: NEIGHBOURS_ADDED * TRAINED_SHARE * d.interactions,
        lambda d: NEIGHBOURS_ADDED * TRAINED_SHARE * d.interactions,
    ),
    Part(
        "an epoch of LightGCN, 58 steps",
        "train",
        lambda d: d.users + d.items,
        lambda d: STEPS_OF_BABY * TRAINED_SHARE * d.interactions,
    ),
    Part("full ranking", "rank", lambda d: d.items, lambda d: d.users * d.items),
)


def cost(figures: Mapping[str, float], stage: str, size: str) -> Cost:
    """Return a measurement."""
    return Cost(*(figures[f"{stage}_{size}_{part}"] for part in Cost._fields))


def slopes(figures: Mapping[str, float], stage: str) -> tuple[float, float]:
    """Return bytes a further row and core seconds a further unit: what both sizes need anyway drops out."""
    small, large = (cost(figures, stage, size) for size in ("small", "large"))
    of_row = (large.bytes - small.bytes) / (large.rows - small.rows)
    # The working memory of a batch hides what the few texts add: their vectors.
    of_row = 4 * ENCODED_WIDTH if stage == "embed" else of_row
    return max(of_row, 0.0), max((large.core_seconds - small.core_seconds) / (large.units - small.units), 0.0)


def significant(value: float) -> str:
    """Return two significant digits, with the thousands marked."""
    return f"{float(f'{value:.2g}'):,.10g}"


def at_least_a_hundredth(value: float) -> str:
    """Return two significant digits, or that it is less than anyone has to plan for."""
    return significant(value) if value >= 0.01 else "< 0.01"


def seconds(value: float) -> str:
    """Return a time in the unit that suits it."""
    factor, unit = next(((f, u) for f, u in ((1e9, "ns"), (1e6, "us"), (1e3, "ms")) if value * f < 1_000), (1, "s"))
    return f"{significant(value * factor)} {unit}"


def article(noun: str) -> str:
    """Return a noun with its article."""
    return f"{'an' if noun[0] in 'aeio' else 'a'} {noun}"


def table(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def unit_costs(figures: Mapping[str, float]) -> str:
    """Return the table of what was measured."""
    rows: list[list[str]] = []
    for name, stage in STAGES.items():
        small, large = (cost(figures, name, size) for size in ("small", "large"))
        of_row, of_unit = slopes(figures, name)
        rows.append(
            [
                stage.title,
                f"{significant(small.rows)} and {significant(large.rows)} {stage.row}s",
                f"{significant(small.bytes / 1e6)} and {significant(large.bytes / 1e6)}",
                f"{significant(of_row)} {article(stage.row)}",
                f"{significant(small.core_seconds)} and {significant(large.core_seconds)}",
                f"{seconds(of_unit)} {article(stage.unit)}",
            ]
        )
    return table(["stage", "sizes", "MB", "bytes a further row", "core seconds", "a further unit"], rows)


def extrapolated(figures: Mapping[str, float]) -> str:
    """Return the table of what follows: memory in GB and core hours."""
    rows = [["users and items", *(f"{significant(d.users)}, {significant(d.items)}" for d in SIZES.values())]]
    for part in PARTS:
        of_row, of_unit = slopes(figures, part.stage)
        cells = [
            f"{at_least_a_hundredth(of_row * part.rows(d) / 1e9)} GB, "
            f"{at_least_a_hundredth(of_unit * part.units(d) / 3600)} h"
            for d in SIZES.values()
        ]
        rows.append([part.title, *cells])
    return table(["interactions", *SIZES], rows)


def rendered(page: str, figures: Mapping[str, float]) -> str:
    """Return the page with both tables in their places, between the comments that mark them."""
    for name, made in ((COSTS, unit_costs(figures)), (EXTRAPOLATED, extrapolated(figures))):
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        before, _, rest = page.partition(begin)
        _, found, after = rest.partition(end)
        if not found:
            raise ValueError(f"docs/scale.md: expected a place between {begin.strip()} and {end}, found none")
        page = f"{before}{begin}\n{made}\n\n{end}{after}"
    return page


def main() -> None:
    path = DOCS / "scale.md"
    path.write_text(rendered(path.read_text(), json.loads((DOCS / "scale.json").read_text())))


if __name__ == "__main__":
    main()
