"""
From raw files to tables, whatever their format: one row a pair, the k-core, contiguous ids, items in id order.

How a file of a format is read belongs to `recmodels.raw.formats`; how interactions are split, to `split` beside this.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars as pl

from recmodels.catalogue.entries import DatasetEntry
from recmodels.data.funnel import Funnel
from recmodels.data.kcore import k_core_mask
from recmodels.errors import InputError
from recmodels.raw.formats.base import RAW_INTERACTIONS, RAW_ITEMS, RawTable, Role
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


def load_dump(manifest: RawManifest, entry: DatasetEntry) -> Dump:
    """
    Read the raw files of a data set into tables.

    Ids are contiguous and follow the sorted asins and reviewer ids, so that the order of the raw lines does not
    matter. Of rows with equal user, item and time one is kept, then of each pair the earliest, then the k-core; user
    and item degrees count pairs. A format that numbers users and items itself keeps its ids and rows.

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

    with as_hashed(manifest.files[form.interactions]) as path:
        read = form.read_interactions(path)
    table = count(form.interactions, read)
    has_texts = {"summary", "text"} <= set(table.columns)
    asins = pl.Series("asin", [], dtype=pl.String)
    if form.numbered:
        counts["repeated_pairs"] = read.duplicates
    else:
        table = _core(table, manifest, entry.sources[manifest.format].k_core, counts)
        counts["repeated_pairs"] += read.duplicates
        asins = table["asin"].unique().sort()

    described = pl.DataFrame(schema={"item_id": pl.Int32, **RAW_ITEMS} if form.numbered else RAW_ITEMS)
    if form.read_items and form.items in manifest.files:
        with as_hashed(manifest.files[form.items]) as path:
            read = form.read_items(path, asins.to_list())
        described = _filled(count(form.items, read, *_DROPPED), described.schema)

    if form.numbered:
        item_ids = pl.concat([table["item_id"], described["item_id"]]).unique().sort()
        users = table.select(pl.col("user_id").unique().sort()).with_columns(
            reviewer_id=pl.col("user_id").cast(pl.String)
        )
        _require_every_id(manifest, users["user_id"], item_ids, counts)
        items = pl.DataFrame({"item_id": item_ids}).join(described, on="item_id", how="left")
    else:
        users = table.select(reviewer_id=pl.col("reviewer").unique().sort()).with_row_index("user_id")
        table = table.with_columns(
            user_id=(pl.col("reviewer").rank("dense") - 1).cast(pl.Int32),
            item_id=(pl.col("asin").rank("dense") - 1).cast(pl.Int32),
        ).sort("user_id", "item_id")
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
        reviews=table.select(REVIEWS.names()) if has_texts else pl.DataFrame(schema=REVIEWS),
        interactions=table.select(INTERACTIONS.names()),
        rejects=pl.concat(rejects),
        counts=counts,
    )


def _core(table: pl.DataFrame, manifest: RawManifest, k_core: int, counts: dict[str, int]) -> pl.DataFrame:
    """Return one row of each pair of the k-core, and count the others."""
    table, dropped = distinct_pairs(_filled(table, RAW_INTERACTIONS))
    counts |= dropped
    user_codes = table["reviewer"].rank("dense").to_numpy() - 1
    item_codes = table["asin"].rank("dense").to_numpy() - 1
    in_core = k_core_mask(user_codes, item_codes, k_core)
    kept = table.filter(pl.Series(in_core))
    counts["below_core"] = table.height - kept.height
    for kind, column in (("users", "reviewer"), ("items", "asin")):
        counts[f"{kind}_below_core"] = table[column].n_unique() - kept[column].n_unique()
    if kept.is_empty():
        file = manifest.files[format_named(manifest.format).interactions].path.name
        funnel = Funnel.of(counts, pl.DataFrame(schema=INTERACTIONS), file=file, k_core=k_core)
        raise InputError(
            f"data set {manifest.dataset}",
            expected=f"users and items with at least {k_core} interactions",
            found=f"none among {in_core.size:,} interactions ({funnel.text})",
            action=funnel.advice,
        )
    return kept


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


def _filled(table: pl.DataFrame, schema: pl.Schema) -> pl.DataFrame:
    """Return the columns of a schema, null where the table lacks one."""
    absent = [pl.lit(None, dtype=dtype).alias(name) for name, dtype in schema.items() if name not in table.columns]
    return table.with_columns(absent).select(schema.names()).cast(schema)


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


def distinct_pairs(reviews: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, int]]:
    """
    Keep one row a (reviewer, asin) pair: the earliest, of equal times the first by rating and texts.

    The counts are of `repeated_rows`, dropped for equal user, item and time, and `repeated_pairs`, for a later time.
    """
    first = reviews.sort("reviewer", "asin", "timestamp", "rating", "summary", "text")
    rows = first.unique(["reviewer", "asin", "timestamp"], keep="first", maintain_order=True)
    pairs = rows.unique(["reviewer", "asin"], keep="first", maintain_order=True)
    return pairs, {"repeated_rows": reviews.height - rows.height, "repeated_pairs": rows.height - pairs.height}


def items_without_text(items: pl.DataFrame) -> int:
    """Return how many items have neither title, description, brand nor category."""
    bare = pl.all_horizontal(pl.col("title", "description", "brand") == "", pl.col("categories").list.len() == 0)
    return items.filter(bare).height
