"""What the report says of the rows of a leaderboard: how they were trained, how they do by group, how they differ."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from recmodels.evaluation.leaderboard import PROVENANCE_DIGITS, PairedTest, paired_test
from recmodels.models.registry import NON_PERSONALISED
from recmodels.validation import shown

SIGNIFICANT = 0.05
"""Largest corrected p-value at which two models are called different."""
GROUPINGS = {"user_activity": "By training rows of the user", "item_popularity": "By popularity of the held-out item"}


@dataclass(frozen=True)
class Training:
    """
    The record of one training, with the settings that are not the defaults, by dotted name.

    Of a model that is trained in epochs it says how many there were, and which one's parameters were kept. Device and
    commit of the code are empty where they were not recorded.
    """

    model: str
    seed: int
    settings: Mapping[str, Any]
    epochs: int | None = None
    kept_epoch: int | None = None
    seconds: float | None = None
    device: str = ""
    commit: str = ""


@dataclass(frozen=True)
class BoardRow:
    """A row of a leaderboard: its name there, the model's name, and the seeds that it is the mean of."""

    name: str
    model: str
    provenance: str
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class TrainingRow:
    """How a row of the leaderboard was trained, in words; one entry of `settings` a setting."""

    model: str
    seeds: str
    kept: str
    seconds: float | None
    settings: Sequence[str]


@dataclass(frozen=True)
class GroupTable:
    """
    Test Recall@20 by group; the title says what groups are made by, and each has its number of users.

    A row is one of the leaderboard, with its mean over the seeds in each group; None where it has none.
    """

    title: str
    groups: Sequence[tuple[str, int]]
    rows: Sequence[tuple[str, Sequence[float | None]]]

    @property
    def best(self) -> list[float | None]:
        """The largest figure of each group; None of a group in which no row has any."""
        columns = zip(*(values for _, values in self.rows), strict=True)
        return [max((value for value in column if value is not None), default=None) for column in columns]


@dataclass(frozen=True)
class Comparison:
    """
    A row of the leaderboard against the one below it, by test Recall@20: each user's mean over the seeds.

    `corrected` is the p-value of the paired t-test after Holm's correction for the number of comparisons.
    """

    first: str
    second: str
    test: PairedTest
    corrected: float

    @property
    def differ(self) -> bool:
        """Whether the difference is more than chance."""
        return self.corrected < SIGNIFICANT


def board_rows(board: pl.DataFrame, metrics: pl.DataFrame) -> list[BoardRow]:
    """Return the rows of a leaderboard, best first, with the seeds of the evaluations (`metrics`) it was made from."""
    runs = metrics.select("model", "provenance", "seed").unique().sort("seed")
    rows: list[BoardRow] = []
    for name, provenance in board.select("model", "provenance").unique(maintain_order=True).iter_rows():
        model = name.removesuffix(f" ({provenance[:PROVENANCE_DIGITS]})")
        seeds = runs.filter((pl.col("model") == model) & (pl.col("provenance") == provenance))["seed"].to_list()
        rows.append(BoardRow(name, model, provenance, tuple(seeds)))
    return rows


def not_above_popularity(board: pl.DataFrame) -> list[str]:
    """
    Return the rows of a leaderboard with a test Recall@20 of at most that of popularity, `random` apart.

    Examples
    --------
    >>> board = pl.DataFrame({"model": ["ease", "popularity", "bpr"], "mean": [0.3, 0.2, 0.1]})
    >>> not_above_popularity(board.with_columns(metric=pl.lit("recall"), k=20))
    ['bpr']
    """
    recall = board.filter((pl.col("metric") == "recall") & (pl.col("k") == 20))
    floor = pl.col("mean").filter(pl.col("model") == "popularity").max()
    return recall.filter((pl.col("mean") <= floor) & ~pl.col("model").is_in(NON_PERSONALISED))["model"].to_list()


def training_rows(rows: Sequence[BoardRow], trainings: Sequence[Training]) -> list[TrainingRow]:
    """Return how the rows of a leaderboard were trained; rows of which nothing was trained are left out."""
    told: list[TrainingRow] = []
    for row in rows:
        runs = [run for run in trainings if run.model == row.model and run.seed in row.seeds]
        if not runs:
            continue
        seconds = [run.seconds for run in runs if run.seconds is not None]
        kept = [f"{run.kept_epoch} of {run.epochs}" for run in runs if run.kept_epoch is not None]
        settings = {f"{name} = {shown(value)}": None for run in runs for name, value in sorted(run.settings.items())}
        told.append(
            TrainingRow(
                model=row.name,
                seeds=", ".join(str(run.seed) for run in runs),
                kept=", ".join(kept),
                seconds=float(np.mean(seconds)) if seconds else None,
                settings=list(settings),
            )
        )
    return told


def machine_and_code(trainings: Sequence[Training]) -> str:
    """
    Return in words what trained the models, and with which commits of the code; empty where neither was recorded.

    Examples
    --------
    >>> machine_and_code([Training("bpr", 0, {}, device="x86_64, 2 threads", commit="0123456789abcdef-dirty")])
    'trained on x86_64, 2 threads · commit 0123456789ab-dirty'
    """
    devices = dict.fromkeys(run.device for run in trainings if run.device)
    commits = dict.fromkeys(re.sub("(?<=^[0-9a-f]{12})[0-9a-f]+", "", run.commit) for run in trainings if run.commit)
    told = [f"trained on {'; '.join(devices)}"] if devices else []
    told += [f"{'commit' if len(commits) == 1 else 'commits'} {', '.join(commits)}"] if commits else []
    return " · ".join(told)


def group_tables(rows: Sequence[BoardRow], metrics: pl.DataFrame) -> list[GroupTable]:
    """Return test Recall@20, by the metrics of one split, for groups of users (activity) and items (popularity)."""
    recall = metrics.filter((pl.col("metric") == "recall") & (pl.col("k") == 20))
    tables: list[GroupTable] = []
    for grouping, title in GROUPINGS.items():
        part = recall.filter(pl.col("grouping") == grouping)
        groups = part.group_by("group", maintain_order=True).agg(pl.col("n_users").max())
        means = part.group_by("model", "provenance", "group").agg(pl.col("value").mean())
        found = {(model, made_from, group): value for model, made_from, group, value in means.iter_rows()}
        shown = [
            (row.name, [found.get((row.model, row.provenance, group)) for group in groups["group"]])
            for row in rows
            if any(key[:2] == (row.model, row.provenance) for key in found)
        ]
        if shown:
            tables.append(GroupTable(title, list(groups.iter_rows()), shown))
    return tables


def comparisons(
    rows: Sequence[BoardRow], user_metrics: Mapping[str, Sequence[pl.LazyFrame]], split: str, column: str = "recall@20"
) -> list[Comparison]:
    """
    Test each row of a leaderboard against the next.

    No more than two models' figures are held at a time: one value a user.

    Parameters
    ----------
    user_metrics
        Per model the metrics user by user of its seeds, schema `recmodels.schemas.results.UserMetrics`. Rows of a
        model that is not here are passed over.
    split
        Digest of the split; what was measured on another one does not count.
    """
    tests: list[tuple[str, str, PairedTest]] = []
    above: tuple[str, pl.DataFrame] | None = None
    for row in rows:
        users = _users(row, user_metrics.get(row.model, ()), split, column)
        if users.is_empty():
            continue
        if above and above[1].height == users.height > 1:
            tests.append((above[0], row.name, paired_test(above[1], users, column)))
        above = (row.name, users)
    corrected = holm([test.t_p_value for _, _, test in tests])
    return [Comparison(*test, p_value) for test, p_value in zip(tests, corrected, strict=True)]


def holm(p_values: Sequence[float]) -> list[float]:
    """
    Return p-values corrected for their number by Holm's step-down method; what is not a number counts as 1.

    Source: Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6, 1979.

    Examples
    --------
    >>> holm([0.04, 0.01, 0.03])
    [0.06, 0.03, 0.06]
    """
    known = [1.0 if math.isnan(p_value) else p_value for p_value in p_values]
    corrected, largest = [1.0] * len(known), 0.0
    for place, index in enumerate(sorted(range(len(known)), key=known.__getitem__)):
        largest = max(largest, min(1.0, known[index] * (len(known) - place)))
        corrected[index] = largest
    return corrected


def _users(row: BoardRow, frames: Sequence[pl.LazyFrame], split: str, column: str) -> pl.DataFrame:
    """Return each user's mean over the seeds of a row."""
    if not frames:
        return pl.DataFrame(schema={"user_id": pl.Int32, column: pl.Float64})
    of_row = pl.concat(
        frame.filter((pl.col("provenance") == row.provenance) & (pl.col("split_digest") == split)).select(
            "user_id", column
        )
        for frame in frames
    )
    return of_row.group_by("user_id").agg(pl.col(column).mean()).sort("user_id").collect()
