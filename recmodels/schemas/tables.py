"""
Every table the asset graph stores, by the name of its asset: its schema and the tables that it refers to.

`validated_table` refuses what breaks them, before anything is written; `problem_of` also compares a table with those it
refers to. What columns a table has, their ranges, keys and order stand in the module of its stage beside this one.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import dataframely as dy
import polars as pl

from recmodels.errors import InputError
from recmodels.schemas.data import Interactions, ItemIds, Items, Rejects, Reviews, Users
from recmodels.schemas.graphs import AddedPairs, Neighbours, UserNeighbours
from recmodels.schemas.profiles import ItemEmbeddings, ItemProfiles, UserEmbeddings, UserProfiles
from recmodels.schemas.references import Reference, every_id, every_user_with_items_left, known_ids, no_known_pair
from recmodels.schemas.results import (
    Leaderboard,
    Metrics,
    OfRun,
    PipelineStatus,
    Recommendations,
    StudyFigures,
    UserMetrics,
)
from recmodels.schemas.tuning import Tries
from recmodels.validation import shortened


@dataclass(frozen=True)
class Table:
    """What holds of a stored table: within itself, and beside the tables of the same data set that it refers to."""

    schema: type[dy.Schema]
    references: tuple[Reference, ...] = ()
    may_be_empty: bool = False
    """Whether no rows are sound, too: what the table is about is absent."""

    @property
    def refers_to(self) -> list[str]:
        """The names of the other tables, each once."""
        return list(dict.fromkeys(reference.table for reference in self.references))


_OF_USERS = every_id("user_id", "users", "user_id")
_OF_ITEMS = every_id("item_id", "item_ids", "item_id")
_KNOWN_PAIR = (known_ids("user_id", "users"), known_ids("item_id", "item_ids"))
_ITEM_EMBEDDINGS = Table(ItemEmbeddings, (_OF_ITEMS,), may_be_empty=True)
_ADDED_PAIRS = Table(AddedPairs, (*_KNOWN_PAIR, no_known_pair("train")), may_be_empty=True)
_ITEM_NEIGHBOURS = Table(
    Neighbours, (every_id("src", "item_ids", "item_id"), known_ids("dst", "item_ids")), may_be_empty=True
)

TABLES: dict[str, Table] = {
    "items": Table(Items),
    "item_ids": Table(ItemIds, (every_id("item_id", "items", "item_id"),)),
    "users": Table(Users),
    "reviews": Table(Reviews, _KNOWN_PAIR, may_be_empty=True),
    "interactions": Table(Interactions, _KNOWN_PAIR),
    "rejects": Table(Rejects, may_be_empty=True),
    "item_profiles": Table(ItemProfiles, (_OF_ITEMS,)),
    "user_profiles": Table(UserProfiles, (_OF_USERS,)),
    "item_text_embeddings": _ITEM_EMBEDDINGS,
    "item_image_embeddings": _ITEM_EMBEDDINGS,
    "user_text_embeddings": Table(UserEmbeddings, (_OF_USERS,)),
    "item_profile_embeddings": _ITEM_EMBEDDINGS,
    "item_text_knn": _ITEM_NEIGHBOURS,
    "item_profile_knn": _ITEM_NEIGHBOURS,
    "item_image_knn": _ITEM_NEIGHBOURS,
    "user_knn": Table(UserNeighbours, (every_id("src", "users", "user_id"), known_ids("dst", "users"))),
    "augmented_interactions": _ADDED_PAIRS,
    "positives": _ADDED_PAIRS,
    "metrics": Table(Metrics),
    "user_metrics": Table(UserMetrics, (every_id("user_id", "interactions", "user_id", split="test"),)),
    "recommendations": Table(
        Recommendations,
        (
            every_user_with_items_left("train", "valid"),
            known_ids("item_id", "item_ids"),
            no_known_pair("train", "valid"),
        ),
    ),
    "leaderboard": Table(Leaderboard),
    "study": Table(StudyFigures),
    "tuning": Table(Tries),
    "pipeline_status": Table(PipelineStatus),
}
"""What every stored table has to be, by the first part of its asset's key."""


def _types(schema: type[dy.Schema]) -> pl.Schema:
    return pl.Schema({name: column.dtype for name, column in schema.columns().items()})


def column_descriptions(name: str) -> dict[str, str]:
    """Return what each column of a stored table holds, in a few words; nothing for a table that is not declared."""
    columns = TABLES[name].schema.columns() if name in TABLES else {}
    return {column: rule.description or "" for column, rule in columns.items()}


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
STUDY = _types(StudyFigures)
TRIES = _types(Tries)
PIPELINE_STATUS = _types(PipelineStatus)
GROUPS = pl.Schema({name: dtype for name, dtype in _types(Metrics).items() if name not in OfRun.columns()})
"""The columns of `Metrics` that an evaluation fills, whatever model and seed it is of."""
SUMMARY = pl.Schema({name: GROUPS[name] for name in ("metric", "k", "value")})


def embedding_schema(id_column: str, width: int) -> pl.Schema:
    """Return the schema (id, embedding: `Array(Float32, width)`, present: Boolean) of a table in id order."""
    return pl.Schema({id_column: pl.Int32, "embedding": pl.Array(pl.Float32, width), "present": pl.Boolean})


def validated_table(name: str, frame: pl.DataFrame) -> pl.DataFrame:
    """
    Return a frame as it is, if it may be stored as the table of that name, one of `TABLES`.

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
    Return what is wrong with a stored table, one of `TABLES`, in one line; empty if nothing is.

    It is looked at in itself and beside the others that it `refers_to`, by name.
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
