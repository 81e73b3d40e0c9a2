"""What the API answers, one function an endpoint: validated questions in, JSON-ready rows out."""

from typing import Annotated

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from assets.evaluation import TITLES
from pipelines.explorer.results import Results
from recmodels.catalogue.entries import load_catalogue
from recmodels.errors import InputError
from recmodels.serving.reasons import reasons_for
from recmodels.serving.shown import ItemDetails, Reason, Recommended, SimilarItem, User, UserDetails

Name = Annotated[str, Field(min_length=1, max_length=500)]

HOW_TO_BEGIN = "Nothing is prepared yet. Run `recmodels run`, or `recmodels run --dataset NAME` for your own data set."
HOW_TO_TRAIN = "No model is trained yet. Run `recmodels run --dataset {}`."


class Question(BaseModel):
    """The parameters of an endpoint; none that is not named is taken."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class OfDataSet(Question):
    """Names a data set."""

    dataset: Name
    """A key of the catalogue."""


class OfUsers(OfDataSet):
    """Looks for users."""

    text: str = Field(default="", max_length=500)
    """A part of their id; those that begin with it come first."""
    group: str | None = None
    """Only users with so many training rows: `0-4`, `5-9`, `10-19` or `20+`."""
    limit: int = Field(default=20, ge=1, le=200)
    """How many at most."""


class OfGroup(OfDataSet):
    """Wants any user."""

    group: str | None = None
    """Only users with so many training rows."""


class OfUser(OfDataSet):
    """Names a user."""

    user: Name
    """The reviewer id of the raw data."""


class OfItem(OfDataSet):
    """Names an item."""

    item: Name
    """An asin."""


class OfModel(OfDataSet):
    """Names a trained model."""

    model: Name
    """A model, or calibrated/<model>."""
    seed: int | None = Field(default=None, ge=0)
    """Which training of it; the first there is by default."""


class ForUser(OfModel, OfUser):
    """Asks a model about a user."""

    n: int = Field(default=20, ge=1, le=200)
    """How many items, fewer where there are fewer."""


class Why(OfModel, OfUser, OfItem):
    """Asks why an item is recommended to a user."""


class Like(OfModel, OfItem):
    """Asks a model about an item."""

    n: int = Field(default=10, ge=1, le=200)
    """How many items, fewer where there are fewer."""


class KnownDataSet(TypedDict):
    """A data set whose tables are there."""

    dataset: str
    title: str


class DataSets(TypedDict):
    """The data sets that can be shown; without any, what to do."""

    datasets: list[KnownDataSet]
    hint: str


class TrainedModel(TypedDict):
    """A trained model, the seeds there are, and its mean test Recall@20 if it was measured."""

    model: str
    title: str
    seeds: list[int]
    recall: float | None


class Overview(TypedDict):
    """A data set: sizes, users by activity, models with the best of the leaderboard first, whether it has a report."""

    dataset: str
    title: str
    users: int
    items: int
    rows: int
    groups: dict[str, int]
    models: list[TrainedModel]
    report: bool
    hint: str


class Recommendations(TypedDict):
    """The best items of a user."""

    model: str
    seed: int
    rows: list[Recommended]


class Similar(TypedDict):
    """What a model finds similar to an item."""

    model: str
    seed: int
    rows: list[SimilarItem]


class StaleCheckpoint(TypedDict):
    """A checkpoint that is not what a run would make now, and why."""

    model: str
    seed: int
    reasons: list[str]


def data_sets(results: Results, _: Question) -> DataSets:
    """Return the data sets that can be shown."""
    prepared = results.prepared()
    known = [{"dataset": key, "title": entry.title} for key, entry in load_catalogue().items() if key in prepared]
    return {"datasets": [KnownDataSet(**one) for one in known], "hint": "" if known else HOW_TO_BEGIN}


def overview(results: Results, asked: OfDataSet) -> Overview:
    """Return what there is of a data set."""
    key, known = asked.dataset, results.data_set(asked.dataset)
    board, trained = results.leaderboard(key), results.trained(key)
    measured: dict[str, float] = {}
    if board is not None:
        of_all = board.filter((pl.col("metric") == "recall") & (pl.col("k") == 20))
        measured = dict(of_all.select("model", "mean").iter_rows())
    return {
        "dataset": key,
        "title": load_catalogue()[key].title,
        "users": known.users.height,
        "items": known.items.height,
        "rows": known.interactions.height,
        "groups": known.groups(),
        "models": [
            {"model": name, "title": TITLES[name], "seeds": seeds, "recall": measured.get(name)}
            for name, seeds in trained.items()
        ],
        "report": results.has_report(key),
        "hint": "" if trained else HOW_TO_TRAIN.format(key),
    }


def find_users(results: Results, asked: OfUsers) -> list[User]:
    """Return the users that a search finds."""
    return results.data_set(asked.dataset).find_users(asked.text, asked.limit, group=asked.group)


def any_user(results: Results, asked: OfGroup) -> User:
    """Return a user at random."""
    found = results.data_set(asked.dataset).any_user(np.random.default_rng(), group=asked.group)
    if found is None:
        raise InputError("group", expected="a group with users", found=f"nobody in {asked.group}")
    return found


def user(results: Results, asked: OfUser) -> UserDetails:
    """Return the history, the held-out items and the profile of a user."""
    return results.data_set(asked.dataset).user(asked.user)


def item(results: Results, asked: OfItem) -> ItemDetails:
    """Return what is known of an item."""
    return results.data_set(asked.dataset).item(asked.item)


def recommendations(results: Results, asked: ForUser) -> Recommendations:
    """Return the list of one model for a user, held-out items marked."""
    seed = _seed(results, asked)
    found = results.recommender(asked.dataset, asked.model, seed).recommend_for([asked.user], asked.n)
    known = results.data_set(asked.dataset)
    held_out = known.held_out(asked.user)
    rows: list[Recommended] = [
        {**shown, "rank": rank, "score": score, "source": source, "held_out": shown["asin"] in held_out}
        for shown, rank, score, source in zip(
            known.shown(found["asin"].to_list()), found["rank"], found["score"], found["source"], strict=True
        )
    ]
    return {"model": asked.model, "seed": seed, "rows": rows}


def reasons(results: Results, asked: Why) -> list[Reason]:
    """Return which items of a user speak for an item: the strongest three of each kind."""
    recommender = results.recommender(asked.dataset, asked.model, _seed(results, asked))
    known = results.data_set(asked.dataset)
    found = reasons_for(recommender, known, asked.user, [asked.item])
    because = known.shown(found["because_asin"].to_list())
    return [
        {"kind": kind, "because": of, "weight": weight, "users": users}
        for of, kind, weight, users in zip(because, found["kind"], found["weight"], found["users"], strict=True)
    ]


def similar(results: Results, asked: Like) -> Similar:
    """Return the items that a model finds most similar to an item."""
    seed = _seed(results, asked)
    found = results.recommender(asked.dataset, asked.model, seed).similar_to([asked.item], asked.n)
    shown = results.data_set(asked.dataset).shown(found["similar_asin"].to_list())
    rows: list[SimilarItem] = [
        {**one, "rank": rank, "similarity": similarity}
        for one, rank, similarity in zip(shown, found["rank"], found["similarity"], strict=True)
    ]
    return {"model": asked.model, "seed": seed, "rows": rows}


def stale(results: Results, asked: OfDataSet) -> list[StaleCheckpoint]:
    """Return the checkpoints that are not what a run would make now; this takes a second or two."""
    found = results.stale(asked.dataset)
    return [{"model": model, "seed": seed, "reasons": why} for (model, seed), why in found.items()]


def _seed(results: Results, asked: OfModel) -> int:
    """Return the seed that was asked for, or the first there is; whether there is one is told when it is opened."""
    if asked.seed is not None:
        return asked.seed
    return next(iter(results.trained(asked.dataset).get(asked.model, [0])))
