"""How a table of schema `recmodels.schemas.tables.PIPELINE_STATUS` reads as a text."""

import html

import polars as pl

from recmodels.schemas.results import STATES

NAMES_SHOWN = 8
"""Assets named in one line; the table has them all."""
REASONS_SHOWN = 8
UNTOUCHED = "nothing was materialised yet"


def summarize(status: pl.DataFrame) -> str:
    """Return Markdown: a table of the data sets, and for each what is not up to date, with the reasons."""
    parts = [_overview(status)]
    for (dataset,), rows in status.group_by("dataset", maintain_order=True):
        lines = _reasons(rows)
        if lines:
            parts.append("\n".join([f"**{dataset}**", "", *lines]))
    return "\n\n".join(parts)


def headline(rows: pl.DataFrame) -> str:
    """Return how a data set stands in one sentence."""
    counts = _counts(rows)
    if counts == {"missing": rows.height}:
        return UNTOUCHED
    if counts == {"up_to_date": rows.height}:
        return f"all {rows.height} assets up to date"
    return ", ".join(f"{count} {state.replace('_', ' ')}" for state, count in counts.items())


def _counts(rows: pl.DataFrame) -> dict[str, int]:
    found = dict(rows["state"].cast(pl.String).value_counts().iter_rows())
    return {state: found[state] for state in STATES if state in found}


def _overview(status: pl.DataFrame) -> str:
    lines = ["| data set | assets and seeds |", "| --- | --- |"]
    lines += [
        f"| {dataset} | {headline(rows)} |" for (dataset,), rows in status.group_by("dataset", maintain_order=True)
    ]
    return "\n".join(lines)


def _reasons(rows: pl.DataFrame) -> list[str]:
    if headline(rows) == UNTOUCHED:
        return []
    wanting = rows.filter(pl.col("state") != "up_to_date")
    lines: list[str] = []
    for (state, why), group in wanting.group_by("state", "why", maintain_order=True):
        lines.append(f"- {state}: {_names(group)}{': ' if why else ''}{html.escape(str(why))}")
    more = len(lines) - REASONS_SHOWN
    return lines if more <= 0 else [*lines[:REASONS_SHOWN], f"- and {more} more in the table"]


def _names(group: pl.DataFrame) -> str:
    names = [
        f"`{asset}`"
        + (f" (seeds {', '.join(map(str, seeds))})" if (seeds := of_it["seed"].drop_nulls().to_list()) else "")
        for (asset,), of_it in group.group_by("asset", maintain_order=True)
    ]
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
