"""
The schema of every table the asset graph stores, in one place: columns, types, ranges, keys, order, references.

`TABLES` has them by the name of the asset. `validated_table` refuses what breaks them, before anything is written;
`problem_of` also compares a table with those it refers to. Ids are contiguous from 0 and stable: the same rows give
the same ids whatever their order. The docstring of a rule is what a message says was expected.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import dataframely as dy
import polars as pl

from recmodels.errors import InputError
from recmodels.schemas.references import EveryId, KnownIds, NoKnownPair
from recmodels.validation import shortened

SPLITS = ("train", "valid", "test")
Split = pl.Enum(SPLITS)
STATES = ("up_to_date", "running", "stale", "failed", "missing")
USER_METRICS = ("recall", "ndcg", "mrr", "hit", "precision", "map")
"""What is measured for each user at each list length; `recmodels.evaluation.metrics` defines them."""
SYSTEM_METRICS = ("coverage", "novelty")
"""What is measured over all users at once."""
LIST_LENGTHS = (10, 20)
TOP_N = 20
"""Length of a stored list of recommendations."""

_LARGEST_SHARE = 1 + 1e-9
_LARGEST_COSINE = 1 + 1e-6


def _name_of(*names: str, primary_key: bool = False) -> dy.String:
    return dy.String(primary_key=primary_key, check={f"one of {', '.join(names)}": lambda text: text.is_in(names)})


class Vector(dy.Array):
    """A column of finite float32 vectors of one width, whichever the encoder has."""

    def __init__(self) -> None:
        # NaN and infinity survive any sum, which is cheaper than a look at every number.
        numbers = dy.Float32(allow_inf=True, allow_nan=True)
        super().__init__(numbers, 1, check={"finite numbers": lambda vector: vector.arr.sum().is_finite()})

    def validate_dtype(self, dtype: Any) -> bool:
        """Tell whether a type is one of such vectors, of any width."""
        return isinstance(dtype, pl.Array) and dtype.inner == pl.Float32 and len(dtype.shape) == 1


class ItemRows(dy.Schema):
    """One row an item, in id order."""

    item_id = dy.Int32(min=0)

    @dy.rule()
    def item_ids_without_a_gap(cls) -> pl.Expr:
        """item_id that runs from 0 without a gap, in order."""
        return pl.col("item_id") == pl.int_range(pl.len())


class UserRows(dy.Schema):
    """One row a user, in id order."""

    user_id = dy.Int32(min=0)

    @dy.rule()
    def user_ids_without_a_gap(cls) -> pl.Expr:
        """user_id that runs from 0 without a gap, in order."""
        return pl.col("user_id") == pl.int_range(pl.len())


class PairRows(dy.Schema):
    """One row a (user, item) pair, by user and item."""

    user_id = dy.Int32(min=0)
    item_id = dy.Int32(min=0)

    @dy.rule()
    def pairs_in_order(cls) -> pl.Expr:
        """Rows by user and item, each pair once."""
        user, item = pl.col("user_id"), pl.col("item_id")
        return (user > user.shift()) | ((user == user.shift()) & (item > item.shift()))


class Items(ItemRows):
    """One row an item, in id order. Texts are unescaped and stripped; an absent text is empty, a price null."""

    asin = dy.String()
    title = dy.String()
    description = dy.String()
    brand = dy.String()
    categories = dy.List(dy.String())
    price = dy.Float32(nullable=True, min_exclusive=0)
    image_url = dy.String()


class ItemIds(ItemRows):
    """One row an item, in id order: what trained models keep to name their items."""

    asin = dy.String()


class Users(UserRows):
    """One row a user, in id order: where the id of the dump is kept."""

    reviewer_id = dy.String(unique=True, min_length=1)


class Reviews(PairRows):
    """One row a kept (user, item) pair, by user and item; seconds since the epoch. No rows: an import without any."""

    rating = dy.Float32(min=0)
    timestamp = dy.Int64(min=0)
    summary = dy.String()
    text = dy.String()


class Interactions(PairRows):
    """One row a (user, item) pair, by user and item. `rating` and `timestamp` are null where an import has none."""

    rating = dy.Float32(nullable=True)
    timestamp = dy.Int64(nullable=True)
    split = dy.Enum(SPLITS)

    @dy.rule()
    def training_rows(cls) -> pl.Expr:
        """At least one row of the split train."""
        return (pl.col("split") == "train").any()


class Rejects(dy.Schema):
    """One row a rejected raw line: 1-based line number and its first 200 characters."""

    file = dy.String(min_length=1)
    line = dy.Int64(min=1)
    reason = dy.String(min_length=1)
    text = dy.String()


class ItemProfiles(ItemRows):
    """One row an item, in id order; `source` names the back-end that wrote it, or ``fallback``."""

    profile = dy.String()
    source = dy.String(min_length=1)


class UserProfiles(UserRows):
    """One row a user, in id order; `source` names the back-end that wrote it, or ``fallback``."""

    profile = dy.String()
    source = dy.String(min_length=1)


class ItemEmbeddings(ItemRows):
    """One row an item, in id order; without `present` the vector is a stand-in. No rows: the modality is absent."""

    embedding = Vector()
    present = dy.Bool()


class UserEmbeddings(UserRows):
    """One row a user, in id order; without `present` the vector is that of the empty text."""

    embedding = Vector()
    present = dy.Bool()


class Neighbours(dy.Schema):
    """Cosine neighbours, by src and rank; rank 0 is the best and normally src itself. No rows: an absent modality."""

    src = dy.Int32(primary_key=True, min=0)
    dst = dy.Int32(primary_key=True, min=0)
    rank = dy.Int16(min=0)
    similarity = dy.Float32(nullable=True, min=-_LARGEST_COSINE, max=_LARGEST_COSINE)

    @dy.rule()
    def ranks_without_a_gap(cls) -> pl.Expr:
        """Rows by src whose rank runs from 0 without a gap."""
        return _numbered_within("src", "rank", first=0)

    @dy.rule()
    def equal_degrees(cls) -> pl.Expr:
        """Rows by src, the same number for each."""
        last = (pl.col("src") != pl.col("src").shift(-1)).fill_null(True)
        return ~last | (pl.col("rank") == pl.col("rank").max())

    @dy.rule()
    def best_first(cls) -> pl.Expr:
        """Neighbours other than src itself whose similarity falls with the rank."""
        src, similarity = pl.col("src"), pl.col("similarity")
        risen = (src == src.shift()) & (similarity > similarity.shift())
        return ~risen | (src == pl.col("dst"))


class UserNeighbours(Neighbours):
    """Cosine neighbours of users, by src and rank; rank 0 is src itself."""

    @dy.rule()
    def itself_first(cls) -> pl.Expr:
        """Every src as its own neighbour at rank 0."""
        return (pl.col("rank") != 0) | (pl.col("src") == pl.col("dst"))


class AddedPairs(PairRows):
    """The added positives H without R, by user and item; `mass` is the plan's entry."""

    mass = dy.Float64(min_exclusive=0)


class OfRun(dy.Schema):
    """What every row that was measured says of the model's run; another split or provenance makes it incomparable."""

    model = dy.String(min_length=1)
    seed = dy.Int32(min=0)
    split_digest = dy.String(min_length=1)
    provenance = dy.String(min_length=1)


class Metrics(OfRun):
    """One row a group, metric and list length of one run: means over the users of the group."""

    grouping = dy.String(primary_key=True, min_length=1)
    group = dy.String(primary_key=True, min_length=1)
    n_users = dy.Int32(min=1)
    metric = _name_of(*USER_METRICS, *SYSTEM_METRICS, primary_key=True)
    k = dy.Int32(primary_key=True, min=1)
    value = dy.Float64(min=0)

    @dy.rule()
    def shares_at_most_1(cls) -> pl.Expr:
        """Values of at most 1 of everything but novelty."""
        return (pl.col("metric") == "novelty") | (pl.col("value") <= _LARGEST_SHARE)


class MeasuredUsers(OfRun):
    """One row a user with test rows of one run, by user."""

    user_id = dy.Int32(min=0)
    n_train = dy.Int32(min=0)
    n_held_out = dy.Int32(min=1)

    @dy.rule()
    def users_in_order(cls) -> pl.Expr:
        """Each user once, by user_id."""
        return pl.col("user_id") > pl.col("user_id").shift()


UserMetrics: type[dy.Schema] = type(
    "UserMetrics",
    (MeasuredUsers,),
    {f"{metric}@{k}": dy.Float64(min=0, max=_LARGEST_SHARE) for k in LIST_LENGTHS for metric in USER_METRICS}
    | {"__doc__": "One row a user with test rows of one run, by user, with a column a metric and list length."},
)


class Recommendations(dy.Schema):
    """
    The best items of each user, by user and rank, which counts from 1.

    `source` is ``model``, or ``popularity`` for users whom the model knows nothing about.
    """

    user_id = dy.Int32(primary_key=True, min=0)
    rank = dy.Int32(min=1, max=TOP_N)
    item_id = dy.Int32(primary_key=True, min=0)
    score = dy.Float32()
    source = _name_of("model", "popularity")

    @dy.rule()
    def ranks_without_a_gap(cls) -> pl.Expr:
        """Rows by user whose rank runs from 1 without a gap."""
        return _numbered_within("user_id", "rank", first=1)

    @dy.rule()
    def best_first(cls) -> pl.Expr:
        """Items of a user whose score falls with the rank."""
        user, score = pl.col("user_id"), pl.col("score")
        return ~((user == user.shift()) & (score > score.shift()))


class Leaderboard(dy.Schema):
    """
    One row a model, metric and list length, best model first; the deviation is null with one seed.

    `provenance` is the digest of the code, the settings and the data of its seeds. A model that has several is there
    several times, with the first digits beside its name.
    """

    model = dy.String(primary_key=True, min_length=1)
    provenance = dy.String(min_length=1)
    metric = _name_of(*USER_METRICS, *SYSTEM_METRICS, primary_key=True)
    k = dy.Int32(primary_key=True, min=1)
    n_seeds = dy.Int32(min=1)
    mean = dy.Float64(min=0)
    std = dy.Float64(nullable=True, min=0)

    @dy.rule()
    def shares_at_most_1(cls) -> pl.Expr:
        """Means of at most 1 of everything but novelty."""
        return (pl.col("metric") == "novelty") | (pl.col("mean") <= _LARGEST_SHARE)


class PipelineStatus(dy.Schema):
    """One row a partition of an asset, in the order data flows; `seed` is null where there is none."""

    dataset = dy.String(min_length=1)
    seed = dy.Int32(nullable=True, min=0)
    asset = dy.String(min_length=1)
    stage = dy.String()
    state = dy.Enum(STATES)
    why = dy.String()
    materialized_at = dy.Datetime(nullable=True, time_unit="ms", time_zone="UTC")

    @dy.rule()
    def partitions_once(cls) -> pl.Expr:
        """Each data set, seed and asset once."""
        return pl.struct("dataset", "seed", "asset").is_unique()


def _numbered_within(group: str, number: str, *, first: int) -> pl.Expr:
    """Tell of each row whether groups stand in order and the number counts up from `first` within each."""
    group_, number_ = pl.col(group), pl.col(number)
    starts = (group_ > group_.shift()).fill_null(True) & (number_ == first)
    return pl.when(group_ == group_.shift()).then(number_ == number_.shift() + 1).otherwise(starts)


@dataclass(frozen=True)
class Table:
    """
    What holds of a stored table: within itself, and beside the tables of the same data set that it refers to.

    Attributes
    ----------
    may_be_empty
        Whether no rows are sound, too: what the table is about is absent.
    """

    schema: type[dy.Schema]
    references: tuple[KnownIds | EveryId | NoKnownPair, ...] = ()
    may_be_empty: bool = False

    @property
    def refers_to(self) -> list[str]:
        """The names of the other tables, each once."""
        return list(dict.fromkeys(reference.table for reference in self.references))


_OF_USERS = EveryId("user_id", "users", "user_id")
_OF_ITEMS = EveryId("item_id", "item_ids", "item_id")
_KNOWN_PAIR = (KnownIds("user_id", "users"), KnownIds("item_id", "item_ids"))
_ITEM_EMBEDDINGS = Table(ItemEmbeddings, (_OF_ITEMS,), may_be_empty=True)
_ITEM_NEIGHBOURS = Table(
    Neighbours, (EveryId("src", "item_ids", "item_id"), KnownIds("dst", "item_ids")), may_be_empty=True
)

TABLES: dict[str, Table] = {
    "items": Table(Items),
    "item_ids": Table(ItemIds, (EveryId("item_id", "items", "item_id"),)),
    "users": Table(Users),
    "reviews": Table(Reviews, _KNOWN_PAIR, may_be_empty=True),
    "interactions": Table(Interactions, _KNOWN_PAIR),
    "rejects": Table(Rejects, may_be_empty=True),
    "item_profiles": Table(ItemProfiles, (_OF_ITEMS,)),
    "user_profiles": Table(UserProfiles, (_OF_USERS,)),
    "item_text_embeddings": _ITEM_EMBEDDINGS,
    "item_image_embeddings": _ITEM_EMBEDDINGS,
    "user_text_embeddings": Table(UserEmbeddings, (_OF_USERS,)),
    "item_text_knn": _ITEM_NEIGHBOURS,
    "item_image_knn": _ITEM_NEIGHBOURS,
    "user_knn": Table(UserNeighbours, (EveryId("src", "users", "user_id"), KnownIds("dst", "users"))),
    "augmented_interactions": Table(AddedPairs, (*_KNOWN_PAIR, NoKnownPair(("train",))), may_be_empty=True),
    "metrics": Table(Metrics),
    "user_metrics": Table(UserMetrics, (EveryId("user_id", "interactions", "user_id", split="test"),)),
    "recommendations": Table(
        Recommendations, (_OF_USERS, KnownIds("item_id", "item_ids"), NoKnownPair(("train", "valid")))
    ),
    "leaderboard": Table(Leaderboard),
    "pipeline_status": Table(PipelineStatus),
}
"""What every stored table has to be, by the first part of its asset's key."""


def _types(schema: type[dy.Schema]) -> pl.Schema:
    return pl.Schema({name: column.dtype for name, column in schema.columns().items()})


ITEMS = _types(Items)
USERS = _types(Users)
REVIEWS = _types(Reviews)
INTERACTIONS = _types(Interactions)
REJECTS = _types(Rejects)
ITEM_PROFILES = _types(ItemProfiles)
USER_PROFILES = _types(UserProfiles)
KNN = _types(Neighbours)
AUGMENTED = _types(AddedPairs)
RECOMMENDATIONS = _types(Recommendations)
LEADERBOARD = _types(Leaderboard)
PIPELINE_STATUS = _types(PipelineStatus)
GROUPS = pl.Schema({name: dtype for name, dtype in _types(Metrics).items() if name not in OfRun.columns()})
"""The columns of `Metrics` that an evaluation fills, whatever model and seed it is of."""
SUMMARY = pl.Schema({name: GROUPS[name] for name in ("metric", "k", "value")})


def embedding_schema(id_column: str, width: int) -> pl.Schema:
    """Return the schema (id, embedding: `Array(Float32, width)`, present: Boolean) of a table in id order."""
    return pl.Schema({id_column: pl.Int32, "embedding": pl.Array(pl.Float32, width), "present": pl.Boolean})


def validated_table(name: str, frame: pl.DataFrame) -> pl.DataFrame:
    """
    Return a frame as it is, if it may be stored as the table of that name.

    Parameters
    ----------
    name
        One of `TABLES`.

    Raises
    ------
    InputError
        If no such table is declared, its columns, their order or types differ from the schema, or rows break a rule.
        Nothing is cast.
    """
    if name not in TABLES:
        raise InputError(
            f"table {name}",
            expected=f"one of {', '.join(TABLES)}",
            found="no schema for it",
            action="Declare it in recmodels/schemas/tables.py.",
        )
    if error := _own_problem(name, frame):
        raise error
    return frame


def problem_of(name: str, frame: pl.DataFrame, others: Mapping[str, pl.DataFrame]) -> str:
    """
    Return what is wrong with a stored table, in itself or beside others, in one line; empty if nothing is.

    Parameters
    ----------
    name
        One of `TABLES`.
    others
        The tables that it `refers_to`, by name.
    """
    if error := _own_problem(name, frame):
        return str(error)
    for reference in TABLES[name].references if frame.height else ():
        broken = reference.broken(frame, others[reference.table])
        if broken.height:
            return str(_broken(name, frame, broken, reference.expected))
    return ""


_ACTION = "Correct what it is made from or the code that makes it, and materialise it again."
_LIMITS = {"min": "at least", "max": "at most", "min_exclusive": "above"}
_PLAIN = {
    "nullability": "no nulls",
    "nan": "no NaN",
    "inf": "no infinity",
    "unique": "each value once",
    "min_length": "no empty text",
}


def _own_problem(name: str, frame: pl.DataFrame) -> InputError | None:
    """Return what is wrong with a table in itself: its columns, or the first rule that rows break."""
    schema = TABLES[name].schema
    columns = schema.columns()
    if list(columns) != frame.columns or not all(columns[c].validate_dtype(t) for c, t in frame.schema.items()):
        expected, found = (", ".join(f"{c} {t}" for c, t in types.items()) for types in (_types(schema), frame.schema))
        return InputError(f"table {name}", expected=f"columns {expected}", found=found, action=_ACTION)
    if frame.is_empty() and not TABLES[name].may_be_empty:
        return InputError(f"table {name}", expected="rows", found="none", action=_ACTION)
    if schema.is_valid(frame):
        return None
    _, failure = schema.filter(frame)
    rule = min(failure.counts(), key=lambda name: "|" not in name)  # that of a column says most
    rows = failure.details().filter(pl.col(rule) == "invalid").select(frame.columns)
    return _broken(name, frame, rows, _told(schema, rule))


def _broken(name: str, frame: pl.DataFrame, rows: pl.DataFrame, expected: str) -> InputError:
    shown = [column for column, dtype in rows.schema.items() if not isinstance(dtype, pl.Array)]
    example = ", ".join(f"{column} {value!r}" for column, value in rows.select(shown).row(0, named=True).items())
    return InputError(
        f"table {name}",
        expected=expected,
        found=f"{rows.height:,} that differ among {frame.height:,} rows, the first with {shortened(example)}",
        action=_ACTION,
    )


def _told(schema: type[dy.Schema], rule: str) -> str:
    """Return what a rule of a schema expects, as a message says it."""
    column, _, kind = rule.rpartition("|")
    if kind == "primary_key":
        return f"each ({', '.join(schema.primary_key())}) once"
    if not column:
        text = str(getattr(schema, kind).validation_fn.__doc__).rstrip(".")
        return text[0].lower() + text[1:]
    if kind in _LIMITS:
        return f"{column} {_LIMITS[kind]} {getattr(schema.columns()[column], kind)}"
    return f"{column} with {_PLAIN.get(kind, kind.removeprefix('check__'))}"
