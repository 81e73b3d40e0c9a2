"""Two models side by side from what was stored of their users: a paired test over users and seeds."""

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from recmodels.errors import InputError
from recmodels.evaluation.leaderboard import PairedTest, paired_test


@dataclass(frozen=True)
class Comparison:
    """How one model does against another."""

    test: PairedTest
    """Paired over users, each of whose values is the mean over the seeds."""
    first_mean: float
    second_mean: float
    """Both means are over users and seeds."""
    seeds: tuple[int, ...]
    """Seeds that both models have; only these count."""

    @property
    def relative(self) -> float | None:
        """Difference as a share of the second model's mean, None where that is 0."""
        return self.test.difference / self.second_mean if self.second_mean else None


def compare(first: Mapping[int, pl.DataFrame], second: Mapping[int, pl.DataFrame], column: str) -> Comparison:
    """
    Compare two models over the users and seeds that both were measured with.

    `first` and `second` have the table `user_metrics` of each seed; the column is such as ``recall@20``.

    Raises
    ------
    InputError
        If they share no seed, do not have the column, were measured on different splits, or a model's seeds were made
        by other code, with other settings or from other data.

    Examples
    --------
    >>> values = pl.DataFrame({"user_id": [0, 1], "recall@20": [0.0, 0.5]})
    >>> values = values.with_columns(model=pl.lit("bpr"), split_digest=pl.lit("one"), provenance=pl.lit("one"))
    >>> better = values.with_columns(pl.Series("recall@20", [0.25, 1.0]))
    >>> found = compare({0: better}, {0: values, 1: values}, "recall@20")
    >>> found.test.difference, found.relative, found.seeds
    (0.375, 1.5, (0,))
    """
    seeds = tuple(sorted(first.keys() & second.keys()))
    if not seeds:
        raise InputError(
            "seeds of the two models",
            expected="one that both were measured with",
            found=f"{_numbers(first)} and {_numbers(second)}",
            action="Train and evaluate both with the same seed.",
        )
    for table in (model[seed] for model in (first, second) for seed in seeds):
        if column not in table.columns:
            known = ", ".join(name for name in table.columns if "@" in name)
            raise InputError("metric", expected=f"one of {known}", found=repr(column))
    taken = ["user_id", "model", "split_digest", "provenance", column]
    pair = [pl.concat([model[seed].select(taken) for seed in seeds]) for model in (first, second)]
    for rows in pair:
        _require_one(rows, "provenance", f"seeds {_numbers(dict.fromkeys(seeds))} of {rows['model'][0]}")
    _require_one(pl.concat([rows.select("split_digest") for rows in pair]), "split_digest", "the two models")
    means = [rows.group_by("user_id").agg(pl.col(column).mean()).sort("user_id") for rows in pair]
    return Comparison(
        paired_test(means[0], means[1], column),
        *(float(rows[column].to_numpy().mean()) for rows in means),
        seeds=seeds,
    )


def _require_one(rows: pl.DataFrame, column: str, where: str) -> None:
    found = rows[column].unique().sort().to_list()
    if len(found) > 1:
        raise InputError(
            where,
            expected="results of one split" if column == "split_digest" else "one code, one configuration, one data",
            found=f"{column.replace('_', ' ')} {', '.join(value[:12] for value in found)}",
            action="Train and evaluate them again (`recmodels run`).",
        )


def _numbers(seeds: Mapping[int, object]) -> str:
    return ", ".join(map(str, sorted(seeds))) or "none"
