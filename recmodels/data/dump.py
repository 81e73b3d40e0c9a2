"""
From raw files to tables, whatever their format: one row a pair, the k-core, contiguous ids, items in id order.

How a file of a format is read belongs to `recmodels.raw.formats`; how interactions are split, to `split` beside this.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recmodels.catalogue.entries import DatasetEntry
from recmodels.compute.base import Compute
from recmodels.compute.local import LOCAL
from recmodels.data.by_user import Limits, UserPart, filled, numbered, read_by_user
from recmodels.data.funnel import Funnel
from recmodels.data.kcore import k_core_masks
from recmodels.errors import InputError
from recmodels.raw.formats.base import PARTS, RAW_ITEMS, RawTable, Role
from recmodels.raw.formats.registry import format_named
from recmodels.raw.manifest import RawManifest, as_hashed
from recmodels.schemas.tables import INTERACTIONS, ITEMS, KNN, REVIEWS, USERS, embedding_schema

_COUNTED_AS = {Role.REVIEWS: "review", Role.METADATA: "metadata", Role.INTERACTIONS: "interaction", Role.ITEMS: "item"}
_DROPPED = ("duplicates", "unwanted")


@dataclass(frozen=True)
class Dump:
    """
    A data set as tables.

    Attributes
    ----------
    items, users, reviews, rejects
        Schemas `ITEMS`, `USERS`, `REVIEWS` and `REJECTS`.
    interactions
        Schema `INTERACTIONS`; `split` is null unless the import brings one.
    counts
        What happened to the rows, by name.
    """

    items: pl.DataFrame
    users: pl.DataFrame
    reviews: pl.DataFrame
    interactions: pl.DataFrame
    rejects: pl.DataFrame
    counts: dict[str, int]


def load_dump(
    manifest: RawManifest, entry: DatasetEntry, *, compute: Compute = LOCAL, limits: Limits | None = None
) -> Dump:
    """
    Read the raw files of a data set into tables.

    Ids are contiguous and follow the sorted asins and reviewer ids, so that the order of the raw lines does not
    matter. Of rows with equal user, item and time one is kept, then of each pair the earliest, then the k-core; user
    and item degrees count pairs. A format that numbers users and items itself keeps its ids and rows.

    Parameters
    ----------
    manifest, entry
        The raw files, and the data set.
    compute
        Where blocks of the interactions are parsed and parts of the users are worked on.
    limits
        Where the interactions are cut, and what is held in memory of them; nothing of the tables depends on it.

    Raises
    ------
    InputError
        If a file is no longer the one of the manifest or cannot be read as its format, or nothing is left after the
        k-core.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import mkdtemp
    >>> from recmodels.catalogue.entries import load_catalogue
    >>> from recmodels.data.raw_files import prepare_raw_files
    >>> demo = load_catalogue()["demo"]
    >>> dump = load_dump(prepare_raw_files(demo, Path(mkdtemp())), demo)
    >>> dump.interactions.columns
    ['user_id', 'item_id', 'rating', 'timestamp', 'split']
    >>> dump.users.height, dump.items.height, dump.rejects.height
    (600, 300, 0)
    """
    form = format_named(manifest.format).with_columns(manifest.columns)
    rejects: list[pl.DataFrame] = []
    counts: dict[str, int] = {}

    def count(role: Role, read: RawTable, *dropped: str) -> pl.DataFrame:
        rejects.append(read.rejects)
        kind = _COUNTED_AS[role]
        counts.update({f"{kind}_lines": read.lines, f"{kind}_rejects": read.rejects.height})
        counts.update({f"{kind}_{name}": getattr(read, name) for name in dropped})
        return read.table

    asins, reviewers = (pl.Series(name, [], dtype=pl.String) for name in ("asin", "reviewer_id"))
    roles = [form.interactions, *(role for role in PARTS if role in manifest.files)]
    with ExitStack() as stack:
        paths = [stack.enter_context(as_hashed(manifest.files[role])) for role in roles]
        if form.numbered:
            read, parts = form.read_interactions(paths[0]), []
        else:
            splits = ["train", *(PARTS[role] for role in roles[1:])] if len(roles) > 1 else [None]
            files = list(zip(paths, splits, strict=True))
            read, parts = read_by_user(form, files, compute, limits or Limits())
    table = count(form.interactions, read)
    reviews = pl.DataFrame(schema=REVIEWS)
    if form.numbered:
        counts["repeated_pairs"] = read.duplicates
    else:
        kept = _core(parts, manifest, entry.sources[manifest.format].k_core, counts)
        counts["repeated_pairs"] += read.duplicates
        table, texts, reviewers, asins = _with_ids(parts, kept)
        if texts is not None:
            reviews = pl.concat([table, texts], how="horizontal").select(REVIEWS.names())

    described = pl.DataFrame(schema={"item_id": pl.Int32, **RAW_ITEMS} if form.numbered else RAW_ITEMS)
    if form.read_items and form.items in manifest.files:
        with as_hashed(manifest.files[form.items]) as path:
            read = form.read_items(path, asins.to_list())
        described = filled(count(form.items, read, *_DROPPED), described.schema)

    if form.numbered:
        item_ids = pl.concat([table["item_id"], described["item_id"]]).unique().sort()
        users = table.select(pl.col("user_id").unique().sort()).with_columns(
            reviewer_id=pl.col("user_id").cast(pl.String)
        )
        _require_every_id(manifest, users["user_id"], item_ids, counts)
        items = pl.DataFrame({"item_id": item_ids}).join(described, on="item_id", how="left")
    else:
        users = pl.DataFrame({"reviewer_id": reviewers}).with_row_index("user_id")
        items = pl.DataFrame({"asin": asins}).with_row_index("item_id").join(described, on="asin", how="left")
    users = users.cast({"user_id": pl.Int32}).select(USERS.names())
    texts = pl.col("asin", "title", "description", "brand", "image_url").fill_null("")
    items = items.with_columns(texts, pl.col("categories").fill_null([])).cast({"item_id": pl.Int32})
    items = items.sort("item_id").select(ITEMS.names())
    counts |= {
        "users": users.height,
        "items": items.height,
        "interactions": table.height,
        "items_without_metadata": items.height - described.height,
        "items_without_text": items_without_text(items),
    }
    return Dump(
        items=items,
        users=users,
        reviews=reviews,
        interactions=table.select(INTERACTIONS.names()),
        rejects=pl.concat(rejects),
        counts=counts,
    )


def _core(
    parts: Sequence[UserPart], manifest: RawManifest, k_core: int, counts: dict[str, int]
) -> list[NDArray[np.bool_]]:
    """Return which rows of each part belong to the k-core, and count the others."""
    items, places = numbered([part.items for part in parts])
    edges = [
        (part.rows["user"].to_numpy(), place[part.rows["item"].to_numpy()])
        for part, place in zip(parts, places, strict=True)
    ]
    masks = k_core_masks(edges, k_core)
    n_pairs, n_kept = sum(mask.size for mask in masks), sum(int(mask.sum()) for mask in masks)
    users_kept = sum(np.unique(users[mask]).size for (users, _), mask in zip(edges, masks, strict=True))
    items_kept = np.zeros(len(items), dtype=np.bool_)
    for (_, own), mask in zip(edges, masks, strict=True):
        items_kept[own[mask]] = True
    counts |= {
        "repeated_rows": sum(part.repeated_rows for part in parts),
        "repeated_pairs": sum(part.repeated_pairs for part in parts),
        "below_core": n_pairs - n_kept,
        "users_below_core": sum(len(part.users) for part in parts) - users_kept,
        "items_below_core": len(items) - int(items_kept.sum()),
    }
    if not n_kept:
        file = manifest.files[format_named(manifest.format).interactions].path.name
        funnel = Funnel.of(counts, pl.DataFrame(schema=INTERACTIONS), file=file, k_core=k_core)
        raise InputError(
            f"data set {manifest.dataset}",
            expected=f"users and items with at least {k_core} interactions",
            found=f"none among {n_pairs:,} interactions ({funnel.text})",
            action=funnel.advice,
        )
    return masks


def _with_ids(
    parts: list[UserPart], kept: Sequence[NDArray[np.bool_]]
) -> tuple[pl.DataFrame, pl.DataFrame | None, pl.Series, pl.Series]:
    """
    Return the kept rows with their ids (schema `INTERACTIONS`, by user and item), their texts, and the names in order.

    The list of parts is empty then: the rows are held once.
    """
    frames: list[pl.DataFrame] = []
    names: list[tuple[pl.Series, pl.Series]] = []
    texts: list[pl.DataFrame] = []
    for mask in kept:
        part = parts.pop(0)
        rows = part.rows.filter(pl.Series(mask))
        own: list[pl.Series] = []
        for column, every in (("user", part.users), ("item", part.items)):
            present = np.bincount(rows[column].to_numpy(), minlength=len(every)) > 0
            own.append(every.filter(pl.Series(present)))
            place = pl.Series(column, (np.cumsum(present) - 1)[rows[column].to_numpy()], dtype=pl.Int32)
            rows = rows.with_columns(place)
        frames.append(rows)
        names.append((own[0], own[1]))
        if part.texts is not None:
            texts.append(part.texts.filter(pl.Series(mask)))
    reviewers, users = numbered([own[0] for own in names])
    asins, items = numbered([own[1] for own in names])
    del names
    ids = [
        tuple(
            pl.Series(name, place[rows[column].to_numpy()], dtype=pl.Int32)
            for name, column, place in (("user_id", "user", user), ("item_id", "item", item))
        )
        for rows, user, item in zip(frames, users, items, strict=True)
    ]
    columns = {
        "user_id": pl.concat([own[0] for own in ids]),
        "item_id": pl.concat([own[1] for own in ids]),
        **{name: pl.concat([rows[name] for rows in frames]) for name in ("rating", "timestamp", "split")},
    }
    text = pl.concat(texts) if texts else None
    del frames, ids, texts
    if len(kept) > 1:
        # Users are in one part each, whose rows are in order: only the users have to be brought into order.
        order = np.argsort(columns["user_id"].to_numpy(), kind="stable")
        for name in columns:
            columns[name] = columns[name].gather(order)
        text = text[order] if text is not None else None
    return pl.DataFrame(columns), text, reviewers, asins


def _require_every_id(manifest: RawManifest, user_ids: pl.Series, item_ids: pl.Series, counts: dict[str, int]) -> None:
    for name, ids in (("users", user_ids), ("items", item_ids)):
        highest = int(ids.to_numpy().max())
        if len(ids) != highest + 1:
            rejected = counts["interaction_rejects"]
            raise InputError(
                f"{manifest.files[Role.INTERACTIONS].path}, ids of {name}",
                expected=f"every id from 0 to {highest:,}",
                found=f"{highest + 1 - len(ids):,} of them nowhere ({rejected:,} lines were rejected)",
                action="Number the ids of the import from 0 without gaps.",
            )


def read_image_embeddings(manifest: RawManifest, items: pl.DataFrame) -> pl.DataFrame:
    """
    Return the image features of the items (`item_id`, `asin`) in id order, zero rows if the data set has none.

    Raises
    ------
    InputError
        If the file is no longer the one of the manifest, or is none of its format.
    """
    return _ready(manifest, Role.IMAGE_FEATURES, items, embedding_schema("item_id", 1))


def read_text_features(manifest: RawManifest, items: pl.DataFrame) -> pl.DataFrame:
    """Return the ready text features in id order, as `read_image_embeddings`."""
    return _ready(manifest, Role.TEXT_FEATURES, items, embedding_schema("item_id", 1))


def read_imported_knn(
    manifest: RawManifest, role: Literal[Role.IMAGE_KNN, Role.TEXT_KNN], items: pl.DataFrame
) -> pl.DataFrame:
    """Return a ready neighbour table (schema `KNN`), as `read_image_embeddings`."""
    return _ready(manifest, role, items, KNN)


def _ready(manifest: RawManifest, role: Role, items: pl.DataFrame, schema: pl.Schema) -> pl.DataFrame:
    if role not in manifest.files:
        return pl.DataFrame(schema=schema)
    form = format_named(manifest.format).with_columns(manifest.columns)
    if form.read_order:
        items = _with_rows(form.read_order, manifest, form.items, items)
    with as_hashed(manifest.files[role]) as path:
        return form.readers[role](path, items)


def _with_rows(
    read_order: Callable[[Path], pl.Series], manifest: RawManifest, items_role: Role, items: pl.DataFrame
) -> pl.DataFrame:
    """Return the items with the row that each has in feature arrays, null where it has none."""
    role = next((role for role in (Role.FEATURE_IDS, items_role) if role in manifest.files), None)
    if role is None:
        raise InputError(
            f"data set {manifest.dataset}",
            expected=f"a file `{items_role}` or `{Role.FEATURE_IDS}`, which says whose each row of the features is",
            found="neither",
        )
    with as_hashed(manifest.files[role]) as path:
        asins = read_order(path)
    order = pl.DataFrame({"asin": asins, "row": range(len(asins))}, schema={"asin": pl.String, "row": pl.Int64})
    order = order.drop_nulls().unique("asin", keep="first")
    joined = items.join(order, on="asin", how="left", maintain_order="left")
    return joined.with_columns(n_rows=pl.lit(len(asins), dtype=pl.Int64))


def items_without_text(items: pl.DataFrame) -> int:
    """Return how many items have neither title, description, brand nor category."""
    bare = pl.all_horizontal(pl.col("title", "description", "brand") == "", pl.col("categories").list.len() == 0)
    return items.filter(bare).height
