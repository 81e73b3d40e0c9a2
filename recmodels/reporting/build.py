"""What the report shows of the tables: statistics, curves, and examples of users and profiles."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from recmodels.data.titles import shown_titles
from recmodels.profiles.write import Explanation
from recmodels.reporting.charts import histogram, leaderboard_bars, training_curves
from recmodels.reporting.examples import evidence, example_users
from recmodels.reporting.report import (
    LeaderboardRow,
    LineageRow,
    ProfileExample,
    ReportData,
    UserExample,
    render_report,
)
from recmodels.reporting.tables import HEADLINE, figure_name

SHOWN_RECOMMENDATIONS = 5
SHOWN_HISTORY = 12


@dataclass(frozen=True, eq=False)
class ReportInputs:
    """
    The tables a report is made of.

    Attributes
    ----------
    dataset, title
        Key and name of the data set.
    split_digest, split_rule
        Which split was used.
    notes
        Sentences a reader must not miss, such as who wrote the profiles.
    leaderboard
        Schema `recmodels.schemas.tables.LEADERBOARD`.
    interactions, items, users, item_profiles, user_profiles
        Tables of `recmodels.schemas.tables`.
    histories
        Per model the training histories of its seeds, with columns epoch and valid_recall.
    recommendations
        Per model the recommendations of one seed for the example users.
    item_evidence, user_evidence
        What the example profiles were made from.
    lineage
        The records of all assets.
    """

    dataset: str
    title: str
    split_digest: str
    split_rule: str
    notes: Sequence[str]
    leaderboard: pl.DataFrame
    interactions: pl.DataFrame
    items: pl.DataFrame
    users: pl.DataFrame
    item_profiles: pl.DataFrame
    user_profiles: pl.DataFrame
    histories: Mapping[str, Sequence[pl.DataFrame]]
    recommendations: Mapping[str, pl.DataFrame]
    item_evidence: Sequence[Explanation]
    user_evidence: Sequence[Explanation]
    lineage: Sequence[LineageRow]


def build_report(inputs: ReportInputs) -> str:
    """Return the report as one self-contained HTML document."""
    titles = _titles(inputs.items)
    train = inputs.interactions.filter(pl.col("split") == "train")
    return render_report(
        ReportData(
            dataset=inputs.dataset,
            title=inputs.title,
            split_digest=inputs.split_digest,
            split_rule=inputs.split_rule,
            notes=inputs.notes,
            metric_columns=[figure_name(metric, k) for metric, k in HEADLINE],
            leaderboard=_leaderboard_rows(inputs.leaderboard),
            statistics=_statistics(inputs),
            profiles=_profile_examples(inputs, titles),
            users=[_user_example(inputs, user_id, titles) for user_id in example_users(inputs.interactions)],
            lineage=inputs.lineage,
            leaderboard_chart=leaderboard_bars(inputs.leaderboard),
            curves_chart=training_curves(
                {
                    model: [(run["epoch"].to_numpy(), run["valid_recall"].to_numpy()) for run in runs]
                    for model, runs in inputs.histories.items()
                }
            )
            if inputs.histories
            else b"",
            activity_chart=histogram(
                train.group_by("user_id").len()["len"].to_numpy().astype(np.int64), "training rows of a user", "users"
            ),
        )
    )


def _titles(items: pl.DataFrame) -> list[str]:
    return shown_titles(items).to_list()


def _leaderboard_rows(board: pl.DataFrame) -> list[LeaderboardRow]:
    rows: list[LeaderboardRow] = []
    for (model,), group in board.group_by("model", maintain_order=True):
        values = {(row["metric"], row["k"]): (row["mean"], row["std"] or 0.0) for row in group.iter_rows(named=True)}
        rows.append(LeaderboardRow(str(model), group["n_seeds"][0], [values[metric] for metric in HEADLINE]))
    return rows


def _statistics(inputs: ReportInputs) -> list[tuple[str, str]]:
    n_users, n_items, n = inputs.users.height, inputs.items.height, inputs.interactions.height
    sizes = dict(inputs.interactions.group_by(pl.col("split").cast(pl.String)).len().iter_rows())
    return [
        ("users", f"{n_users:,}"),
        ("items", f"{n_items:,}"),
        ("interactions", f"{n:,}"),
        *((f"{split} rows", f"{sizes.get(split, 0):,}") for split in ("train", "valid", "test")),
        ("interactions a user", f"{n / n_users:.1f}"),
        ("interactions an item", f"{n / n_items:.1f}"),
        ("share of pairs observed", f"{n / n_users / n_items:.3%}"),
    ]


def _profile_examples(inputs: ReportInputs, titles: Sequence[str]) -> list[ProfileExample]:
    examples: list[ProfileExample] = []
    for explanation in inputs.item_evidence:
        row = inputs.item_profiles.row(explanation.id, named=True)
        heading = f"Item: {titles[explanation.id]}"
        examples.append(ProfileExample(heading, row["source"], row["profile"], evidence(explanation.inputs)))
    for explanation in inputs.user_evidence:
        row = inputs.user_profiles.row(explanation.id, named=True)
        heading = f"User {inputs.users['reviewer_id'][explanation.id]}"
        examples.append(ProfileExample(heading, row["source"], row["profile"], evidence(explanation.inputs)))
    return examples


def _user_example(inputs: ReportInputs, user_id: int, titles: Sequence[str]) -> UserExample:
    train = inputs.interactions.filter((pl.col("user_id") == user_id) & (pl.col("split") == "train"))
    recommended = [
        (model, [titles[item] for item in _top(table, user_id)]) for model, table in inputs.recommendations.items()
    ]
    bought: list[int] = train["item_id"].head(SHOWN_HISTORY).to_list()
    history = [titles[item] for item in bought]
    return UserExample(str(inputs.users["reviewer_id"][user_id]), history, recommended)


def _top(table: pl.DataFrame, user_id: int) -> list[int]:
    rows = table.filter((pl.col("user_id") == user_id) & (pl.col("rank") <= SHOWN_RECOMMENDATIONS))
    return rows.sort("rank")["item_id"].to_list()
