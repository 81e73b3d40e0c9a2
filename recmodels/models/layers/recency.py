"""What TimeMM reads from the times of training pairs: weights that fall with age, and states of users and items."""

from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recmodels.models.inputs import Ids

Kernel = Literal["power", "inverse", "constant"]
Floats = NDArray[np.float64]

_LEAST_WEIGHT = 1e-3
_DAY = 86_400


def ages(users: Ids, times: Ids, n_users: int) -> Ids:
    """Return how many seconds each pair is older than its user's newest one, (n,) int64, from times in seconds."""
    newest = np.full(n_users, np.iinfo(np.int64).min)
    np.maximum.at(newest, users, times)
    return newest[users] - times


def kernel_weights(ages: Ids, scale: float, kernel: Kernel) -> Floats:
    r"""
    Return the weights of pairs of these ages, in seconds, within [0.001, 1].

    ``power`` is :math:`(1 + a)^{-1/\tau}`, ``inverse`` :math:`1 / (1 + a / \tau)`, ``constant`` 1.
    """
    if kernel == "constant":
        return np.ones(ages.shape)
    weights = (1.0 + ages) ** (-1 / scale) if kernel == "power" else 1 / (1 + ages / scale)
    return np.clip(weights, _LEAST_WEIGHT, 1.0).astype(np.float64)


def user_states(users: Ids, times: Ids, n_users: int) -> Floats:
    """
    Return log1p of count, span, mean gap, 0, mean age, and the deviations of gap and age of each user, (n_users, 7).

    Gaps are those to the pair before, 0 for the first; ages those to the user's newest pair; deviations are of the
    population. All in seconds; a user without pairs has zeros. The fourth is the published program's constant.
    """
    gap, age = pl.col("gap"), pl.col("age")
    found = _by(users, times, n_users, pl.len(), _span(), gap.mean(), pl.lit(0), age.mean(), _spread(gap), _spread(age))
    return np.log1p(found)


def item_states(items: Ids, times: Ids, n_items: int) -> Floats:
    """
    Return log1p of seven figures of each item, (n_items, 7), zeros without pairs.

    They are count, distinct users (pairs are distinct, so again the count), span, age of the newest pair, mean age, and
    the deviations of gap and age. Ages are those to the newest pair of all.
    """
    gap, age = pl.col("gap"), pl.col("total_age")
    return np.log1p(
        _by(items, times, n_items, pl.len(), pl.len(), _span(), age.min(), age.mean(), _spread(gap), _spread(age))
    )


def routing_states(users: Ids, times: Ids, n_users: int) -> Floats:
    """
    Return what users' modality weights are made from, (n_users, 4), each column standardised over the users.

    The columns are log1p of mean age, median age and span in seconds, and the share of pairs within a day of the user's
    newest. A column that does not vary is 0.
    """
    age = pl.col("age")
    found = _by(users, times, n_users, age.mean(), age.median(), _span(), (age <= _DAY).mean())
    found[:, :3] = np.log1p(found[:, :3])
    deviation = found.std(axis=0)
    return (found - found.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)


def shuffled_within(users: Ids, times: Ids, noise: Floats) -> Ids:
    """Return the times permuted among the pairs of each user; `users` ascend, `noise` is a random key a pair."""
    return times[np.lexsort((noise, users))]


def _span() -> pl.Expr:
    return pl.col("time").max() - pl.col("time").min()


def _spread(values: pl.Expr) -> pl.Expr:
    return values.std(ddof=0)


def _by(ids: Ids, times: Ids, n: int, *figures: pl.Expr) -> Floats:
    """Return figures of the pairs of each id, (n, n_figures)."""
    time = pl.col("time")
    pairs = pl.DataFrame({"id": ids, "time": times}).sort("id", "time")
    pairs = pairs.with_columns(
        gap=time.diff().over("id").fill_null(0), age=time.max().over("id") - time, total_age=time.max() - time
    )
    named = {f"figure_{position}": figure for position, figure in enumerate(figures)}
    of_present = pairs.group_by("id").agg(**named)
    everyone = pl.DataFrame({"id": np.arange(n)}).join(of_present, on="id", how="left", maintain_order="left")
    return everyone.select(pl.col(name).cast(pl.Float64).fill_null(0.0) for name in named).to_numpy().copy()
