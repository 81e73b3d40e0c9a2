"""Small tables about large ones, for people: whole numbers, texts, and figures with four decimals."""

from collections.abc import Mapping, Sequence

import polars as pl

from recmodels.schemas.data import SPLITS

HEADLINE = (("recall", 10), ("recall", 20), ("ndcg", 10), ("ndcg", 20))
"""The metrics that are shown first, with k."""
PARTS = {"all": "users", "user_activity": "rows", "item_popularity": "items"}
"""What the groups of a grouping are: all users, those with so many training rows, or those of such items."""
ROUNDING = 1e-9
"""A standard deviation up to here comes of sums in another order, not of the runs."""
EPOCHS_SHOWN = 10
TITLE_CHARACTERS = 70
CELL_CHARACTERS = 48
"""Of a title in a table of the user interface, whose panel is narrow."""
ITEMS_SHOWN = 5
"""Of each kind, for each user."""
NEIGHBOURS_SHOWN = 4


def figure_name(metric: str, k: int) -> str:
    """Return how a metric at k is called, as in ``recall@20``."""
    return f"{metric}@{k}"


def has_spread(spread: float | None) -> bool:
    """Tell whether runs differ: a single run has no spread, nor has what comes out the same with every seed."""
    return spread is not None and spread > ROUNDING


def mean_and_spread(mean: float, spread: float | None) -> str:
    """
    Return a mean with its standard deviation; without one where there is a single run, or none differs.

    Examples
    --------
    >>> mean_and_spread(0.25, 0.01), mean_and_spread(0.25, None), mean_and_spread(0.25, 0.0)
    ('0.2500 ± 0.0100', '0.2500', '0.2500')
    """
    return f"{mean:.4f} ± {spread:.4f}" if spread is not None and has_spread(spread) else f"{mean:.4f}"


def shortened(text: str, characters: int) -> str:
    """Return a text that is cut where it is longer."""
    return text if len(text) <= characters else text[: characters - 1] + "…"


def split_sizes(interactions: pl.DataFrame) -> pl.DataFrame:
    """
    Return what each split holds.

    Parameters
    ----------
    interactions
        Schema `recmodels.schemas.tables.INTERACTIONS`, at least one row.

    Returns
    -------
    pl.DataFrame
        For each split, and for all together: rows, users and items that occur, rows a user and an item, and density,
        the share of their pairs that are rows.
    """
    splits = {split: interactions.filter(pl.col("split") == split) for split in SPLITS}
    rows: list[dict[str, object]] = []
    for name, part in {**splits, "all": interactions}.items():
        n_users, n_items = part["user_id"].n_unique(), part["item_id"].n_unique()
        rows.append(
            {
                "split": name,
                "rows": part.height,
                "users": n_users,
                "items": n_items,
                "rows a user": f"{part.height / max(1, n_users):.1f}",
                "rows an item": f"{part.height / max(1, n_items):.1f}",
                "density": f"{part.height / max(1, n_users * n_items):.3%}",
            }
        )
    return pl.DataFrame(rows)


def funnel_table(steps: Mapping[str, int]) -> pl.DataFrame:
    """Return what became of the rows of a data set (`Funnel.steps`), each step with its share of what was read."""
    read = max(1, next(iter(steps.values())))
    return pl.DataFrame(
        [{"step": step, "rows": f"{rows:,}", "share": f"{rows / read:.1%}"} for step, rows in steps.items()]
    )


def training_progress(history: pl.DataFrame, best_epoch: int) -> pl.DataFrame:
    """Return some epochs of a training (the history of a `FitResult`), evenly spread, and the one that was chosen."""
    if "loss" in history.columns:
        shown = [pl.col("loss").map_elements("{:.4f}".format, pl.String)]
    else:
        settings = history.columns[1 : history.columns.index("valid_recall")]
        shown = [pl.col(settings).map_elements("{:g}".format, pl.String)]
    step = max(1, history.height // EPOCHS_SHOWN)
    last = history["epoch"].max()
    return history.filter((pl.col("epoch") % step == 0) | pl.col("epoch").is_in([best_epoch, last])).select(
        "epoch",
        *shown,
        pl.col("valid_recall").map_elements("{:.4f}".format, pl.String).alias("validation recall@20"),
        kept=pl.when(pl.col("epoch") == best_epoch).then(pl.lit("best")).otherwise(pl.lit("")),
    )


def metrics_by_group(metrics: pl.DataFrame) -> pl.DataFrame:
    """Return the headline metrics of one run: over all users, by activity, and by popularity of what they bought."""
    named = metrics.with_columns(
        part=pl.format("{} {}", "group", pl.col("grouping").replace(PARTS)),
        figure=pl.format("{}@{}", "metric", "k"),
        shown=pl.col("value").map_elements("{:.4f}".format, pl.String),
    )
    wide = named.pivot("figure", index=["part", "n_users"], values="shown", sort_columns=False)
    figures = [pl.col(figure_name(metric, k)).fill_null("") for metric, k in HEADLINE]
    return wide.select("part", pl.col("n_users").alias("users"), *figures)


def leaderboard_figures(board: pl.DataFrame) -> pl.DataFrame:
    """Return a leaderboard with one row a model, in its order: `mean_and_spread` of the headline metrics."""
    named = board.with_columns(
        figure=pl.format("{}@{}", "metric", "k"),
        shown=pl.Series([mean_and_spread(*row) for row in board.select("mean", "std").iter_rows()], dtype=pl.String),
    )
    wide = named.pivot("figure", index=["model", "n_seeds"], values="shown", sort_columns=False)
    return wide.select("model", *(figure_name(metric, k) for metric, k in HEADLINE), seeds="n_seeds")


def leaderboard_summary(board: pl.DataFrame, emphasis: str = "**") -> str:
    """Return in one sentence which model of a leaderboard is best, and how the next one does; names in `emphasis`."""
    first = board.filter((pl.col("metric") == "recall") & (pl.col("k") == 20)).head(2)
    told = [
        f"{emphasis}{row['model']}{emphasis} ({mean_and_spread(row['mean'], row['std'])})"
        for row in first.iter_rows(named=True)
    ]
    n_models, n_seeds = board["model"].n_unique(), board["n_seeds"].max()
    return f"Best by test Recall@20: {', then '.join(told)}; {n_models} models, up to {n_seeds} seeds."


def new_and_had(
    new: pl.DataFrame, label: str, had: pl.DataFrame, users: Mapping[int, str], titles: Sequence[str]
) -> pl.DataFrame:
    """
    Return user by user what they had before and then what they get that is `new`, called by its label, by title.

    Both tables have the columns user_id and item_id, the new one in the order in which its rows are to stand; names of
    the users to show and titles of the items are by id. There are two narrow columns, `what` and `which`: the user
    interface cuts off what its panel has no room for.
    """
    rows: list[tuple[str, str]] = []
    for user, name in users.items():
        rows.append(("user", name))
        for what, table in (("had", had), (label, new)):
            items = table.filter(pl.col("user_id") == user)["item_id"].head(ITEMS_SHOWN)
            rows += [(what, title) for title in _named(items, titles)]
    return pl.DataFrame(rows, schema={"what": pl.String, "which": pl.String}, orient="row")


def neighbour_examples(knn: pl.DataFrame, titles: Sequence[str]) -> pl.DataFrame:
    """Return the nearest others (schema `KNN`) of a few items from all over the catalogue, by their titles by id."""
    n = len(titles)
    others = knn.filter(pl.col("src").is_in([0, n // 2, n - 1]) & (pl.col("src") != pl.col("dst")))
    nearest = others.sort("src", "rank").group_by("src", maintain_order=True).head(NEIGHBOURS_SHOWN)
    return pl.DataFrame(
        {
            "item": _named(nearest["src"], titles),
            "near it": _named(nearest["dst"], titles),
            "similarity": nearest["similarity"].round(4),
        }
    )


def _named(items: pl.Series, titles: Sequence[str]) -> list[str]:
    ids: list[int] = items.to_list()
    return [shortened(titles[item], CELL_CHARACTERS) for item in ids]
