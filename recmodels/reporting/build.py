"""What the report shows of the tables: statistics, curves, and examples of users and profiles."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import polars as pl

from recmodels.data.titles import shown_titles
from recmodels.profiles.write import Explanation
from recmodels.reporting.charts import leaderboard_bars, rows_of_users_and_items, training_curves
from recmodels.reporting.examples import evidence, example_users
from recmodels.reporting.models import (
    Training,
    board_rows,
    comparisons,
    group_tables,
    machine_and_code,
    not_above_popularity,
    training_rows,
)
from recmodels.reporting.report import LineageRow, render_report
from recmodels.reporting.tables import HEADLINE, figure_name, funnel_table, leaderboard_figures, leaderboard_summary
from recmodels.reporting.users import user_example
from recmodels.schemas.data import SPLITS

LAST_SECOND = int(datetime(9999, 12, 31, tzinfo=UTC).timestamp())
"""Later than this nothing can be written as a date."""


@dataclass(frozen=True, eq=False)
class ReportInputs:
    """The tables a report is made of."""

    dataset: str
    title: str
    split_digest: str
    split_rule: str
    newest_input: float | None
    """When the newest of the inputs was recorded, in seconds since the epoch; None if that is not known."""
    notes: Sequence[str]
    """Sentences a reader must not miss, such as who wrote the profiles."""
    leaderboard: pl.DataFrame
    """Schema `recmodels.schemas.tables.LEADERBOARD`."""
    metrics: pl.DataFrame
    """Test metrics of all models and seeds, schema `recmodels.schemas.results.Metrics`; those of another split are
    passed over."""
    user_metrics: Mapping[str, Sequence[pl.LazyFrame]]
    """Per model the same user by user, one lazy table a seed; models without results are absent."""
    trainings: Sequence[Training]
    interactions: pl.DataFrame
    items: pl.DataFrame
    users: pl.DataFrame
    item_profiles: pl.DataFrame
    user_profiles: pl.DataFrame
    histories: Mapping[str, Sequence[pl.DataFrame]]
    """Per model the training histories of its seeds, with columns epoch and valid_recall."""
    recommendations: Mapping[str, pl.DataFrame]
    """Per model the recommendations of one seed for the example users."""
    item_evidence: Sequence[Explanation]
    user_evidence: Sequence[Explanation]
    """What the example profiles of items and of users were made from."""
    funnel: Sequence[tuple[str, int]]
    """The steps from the raw lines to the rows, each with the rows that were left; empty if they were not recorded."""
    lineage: Sequence[LineageRow]


def build_report(inputs: ReportInputs) -> str:
    """Return the report as one self-contained HTML document; equal inputs give equal documents."""
    titles = shown_titles(inputs.items).to_list()
    metrics = inputs.metrics.filter(pl.col("split_digest") == inputs.split_digest)
    rows = board_rows(inputs.leaderboard, metrics)
    ordered = list(dict.fromkeys([row.model for row in rows] + list(inputs.recommendations)))
    recommendations = {model: found for model in ordered if (found := inputs.recommendations.get(model)) is not None}
    weak = not_above_popularity(inputs.leaderboard)
    headline = leaderboard_summary(inputs.leaderboard, emphasis="")
    newest = inputs.newest_input
    curves = {
        model: [(run["epoch"].to_numpy(), run["valid_recall"].to_numpy()) for run in runs]
        for model in dict.fromkeys([*ordered, *inputs.histories])
        if (runs := inputs.histories.get(model))
    }
    interactions, reviewers = inputs.interactions, inputs.users["reviewer_id"]
    return render_report(
        {
            "dataset": inputs.dataset,
            "title": inputs.title,
            "split_digest": inputs.split_digest,
            "split_rule": inputs.split_rule,
            "newest_input": "" if newest is None else f"{datetime.fromtimestamp(newest, UTC):%Y-%m-%d %H:%M} UTC",
            "machine_and_code": machine_and_code(inputs.trainings),
            "version": version("recmodels"),
            "headline": headline + (f" Not above popularity: {', '.join(weak)}." if weak else ""),
            "notes": inputs.notes,
            "metric_columns": [figure_name(metric, k) for metric, k in HEADLINE],
            "leaderboard": [
                {"model": model, "cells": figures[:-1], "n_seeds": figures[-1]}
                for model, *figures in leaderboard_figures(inputs.leaderboard).iter_rows()
            ],
            "comparisons": comparisons(rows, inputs.user_metrics, inputs.split_digest),
            "groups": group_tables(rows, metrics),
            "trainings": training_rows(rows, inputs.trainings),
            "funnel": funnel_table(dict(inputs.funnel)).to_dicts() if inputs.funnel else [],
            "statistics": _statistics(inputs),
            "profiles": _profile_examples(inputs, titles),
            "users": [
                user_example(user_id, str(reviewers[user_id]), interactions, recommendations, titles)
                for user_id in example_users(interactions)
            ],
            "lineage": inputs.lineage,
            "leaderboard_chart": leaderboard_bars(inputs.leaderboard),
            "curves_chart": training_curves(curves) if curves else b"",
            "activity_chart": rows_of_users_and_items(interactions.filter(pl.col("split") == "train"), "training rows"),
        }
    )


def _statistics(inputs: ReportInputs) -> list[tuple[str, str]]:
    n_users, n_items, n = inputs.users.height, inputs.items.height, inputs.interactions.height
    sizes = dict(inputs.interactions.group_by(pl.col("split").cast(pl.String)).len().iter_rows())
    times = inputs.interactions["timestamp"].drop_nulls()
    dated = times.filter(times.is_between(0, LAST_SECOND)).sort()
    span = [f"{datetime.fromtimestamp(dated[place], UTC):%Y-%m-%d}" for place in (0, -1) if dated.len()]
    return [
        ("users", f"{n_users:,}"),
        ("items", f"{n_items:,}"),
        ("interactions", f"{n:,}"),
        *((f"{split} rows", f"{sizes.get(split, 0):,}") for split in SPLITS),
        ("interactions a user", f"{n / n_users:.1f}"),
        ("interactions an item", f"{n / n_items:.1f}"),
        ("share of pairs observed", f"{n / n_users / n_items:.3%}"),
        *([("first and last interaction", " to ".join(span))] if span else []),
    ]


def _profile_examples(inputs: ReportInputs, titles: Sequence[str]) -> list[dict[str, Any]]:
    reviewers = inputs.users["reviewer_id"]
    shown = [(f"Item: {titles[each.id]}", each, inputs.item_profiles) for each in inputs.item_evidence]
    shown += [(f"User {reviewers[each.id]}", each, inputs.user_profiles) for each in inputs.user_evidence]
    return [
        {
            "title": title,
            "source": profiles["source"][explanation.id],
            "text": profiles["profile"][explanation.id],
            "evidence": evidence(explanation.inputs),
        }
        for title, explanation, profiles in shown
    ]
