"""From raw files to tables: deduplication, k-core and contiguous ids, whatever the release."""

from dataclasses import dataclass
from typing import Literal

import polars as pl

from recmodels.catalogue.entries import DatasetEntry, Role, Source
from recmodels.data.kcore import k_core_mask
from recmodels.errors import InputError
from recmodels.raw.formats.image_features import read_image_features
from recmodels.raw.formats.metadata import RAW_ITEMS, read_metadata
from recmodels.raw.formats.mmrec import read_feature_array, read_interactions, read_items, read_neighbours
from recmodels.raw.formats.reviews import ReviewFormat, read_reviews
from recmodels.raw.manifest import RawManifest, as_hashed
from recmodels.schemas.data import Split
from recmodels.schemas.tables import INTERACTIONS, ITEMS, KNN, REJECTS, REVIEWS, USERS, embedding_schema


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
    and item degrees count pairs.

    Raises
    ------
    InputError
        If a file is no longer the one of the manifest or cannot be read as its format, or nothing is left after the
        k-core.
    """
    source = entry.sources[manifest.format]
    if manifest.format == "mmrec":
        return _load_import(manifest)
    return _load_reviews(manifest, source, manifest.format)


def read_image_embeddings(manifest: RawManifest, items: pl.DataFrame) -> pl.DataFrame:
    """
    Return the image features of the items in id order, zero rows if the data set has none.

    Raises
    ------
    InputError
        As `read_image_features`.
    """
    file = manifest.files.get(Role.IMAGE_FEATURES)
    if file is None:
        return pl.DataFrame(schema=embedding_schema("item_id", 1))
    with as_hashed(file) as path:
        if manifest.format == "mmrec":
            return read_feature_array(path, items.height)
        return read_image_features(path, items["asin"].to_list())


def read_text_features(manifest: RawManifest, items: pl.DataFrame) -> pl.DataFrame:
    """
    Return the ready text features of an import in id order, zero rows if it has none.

    Raises
    ------
    InputError
        As `read_feature_array`.
    """
    file = manifest.files.get(Role.TEXT_FEATURES)
    if file is None:
        return pl.DataFrame(schema=embedding_schema("item_id", 1))
    with as_hashed(file) as path:
        return read_feature_array(path, items.height)


def read_imported_knn(
    manifest: RawManifest, role: Literal[Role.IMAGE_KNN, Role.TEXT_KNN], items: pl.DataFrame
) -> pl.DataFrame:
    """
    Return a ready neighbour table of an import (schema `KNN`), zero rows if it has none.

    Raises
    ------
    InputError
        As `read_neighbours`.
    """
    file = manifest.files.get(role)
    if file is None:
        return pl.DataFrame(schema=KNN)
    with as_hashed(file) as path:
        return read_neighbours(path, items.height)


def _load_reviews(manifest: RawManifest, source: Source, source_format: ReviewFormat) -> Dump:
    with as_hashed(manifest.files[Role.REVIEWS]) as path:
        reviews = read_reviews(path, source_format)
    counts = {"review_lines": reviews.lines, "review_rejects": reviews.rejects.height}
    table, dropped = distinct_pairs(reviews.table)
    counts |= dropped
    rejects = [reviews.rejects]
    user_codes = table["reviewer"].rank("dense").to_numpy() - 1
    item_codes = table["asin"].rank("dense").to_numpy() - 1
    in_core = k_core_mask(user_codes, item_codes, source.k_core)
    counts["below_core"] = table.height - int(in_core.sum())
    table = table.filter(pl.Series(in_core))
    if table.is_empty():
        raise InputError(
            f"data set {manifest.dataset}",
            expected=f"users and items with at least {source.k_core} interactions",
            found=f"none among {in_core.size:,} interactions",
            action="Lower k_core in the catalogue entry.",
        )
    users = table.select(reviewer_id=pl.col("reviewer").unique().sort()).with_row_index("user_id")
    users = users.cast({"user_id": pl.Int32}).select(USERS.names())
    asins = table["asin"].unique().sort()
    table = table.with_columns(
        user_id=(pl.col("reviewer").rank("dense") - 1).cast(pl.Int32),
        item_id=(pl.col("asin").rank("dense") - 1).cast(pl.Int32),
    ).sort("user_id", "item_id")

    described = pl.DataFrame(schema=RAW_ITEMS)
    if Role.METADATA in manifest.files:
        with as_hashed(manifest.files[Role.METADATA]) as path:
            metadata = read_metadata(path, source_format, asins.to_list())
        described = metadata.table
        rejects.append(metadata.rejects)
        counts |= {
            "metadata_lines": metadata.lines,
            "metadata_rejects": metadata.rejects.height,
            "metadata_duplicates": metadata.duplicates,
            "metadata_unwanted": metadata.unwanted,
        }
    numbered = pl.DataFrame({"asin": asins}).with_row_index("item_id").cast({"item_id": pl.Int32})
    items = _complete(numbered.join(described, on="asin", how="left"))
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
        reviews=table.select(REVIEWS.names()),
        interactions=table.select("user_id", "item_id", "rating", "timestamp", split=pl.lit(None, dtype=Split)).select(
            INTERACTIONS.names()
        ),
        rejects=pl.concat(rejects) if rejects else pl.DataFrame(schema=REJECTS),
        counts=counts,
    )


def distinct_pairs(reviews: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, int]]:
    """
    Keep one row a (reviewer, asin) pair: the earliest, of equal times the first by rating and texts.

    Returns
    -------
    tuple
        The rows, and the counts `repeated_rows` (dropped for equal user, item and time) and `repeated_pairs`
        (dropped for a later time).
    """
    first = reviews.sort("reviewer", "asin", "timestamp", "rating", "summary", "text")
    rows = first.unique(["reviewer", "asin", "timestamp"], keep="first", maintain_order=True)
    pairs = rows.unique(["reviewer", "asin"], keep="first", maintain_order=True)
    return pairs, {"repeated_rows": reviews.height - rows.height, "repeated_pairs": rows.height - pairs.height}


def items_without_text(items: pl.DataFrame) -> int:
    """Return how many items have neither title, description, brand nor category."""
    bare = (pl.col("title", "description", "brand") == "").and_(pl.col("categories").list.len() == 0)
    return items.filter(pl.all_horizontal(bare)).height


def _complete(items: pl.DataFrame) -> pl.DataFrame:
    """Return the items in id order, with empty texts where nothing is known."""
    texts = pl.col("asin", "title", "description", "brand", "image_url").fill_null("")
    return items.with_columns(texts, pl.col("categories").fill_null([])).sort("item_id").select(ITEMS.names())


def _load_import(manifest: RawManifest) -> Dump:
    with as_hashed(manifest.files[Role.INTERACTIONS]) as path:
        imported = read_interactions(path)
    with as_hashed(manifest.files[Role.ITEMS]) as items_path:
        described = read_items(items_path)
    item_ids = pl.concat([imported.table["item_id"], described.table["item_id"]]).unique()
    for name, ids in (("userID", imported.table["user_id"].unique()), ("itemID", item_ids)):
        highest = int(ids.to_numpy().max())
        if len(ids) != highest + 1:
            raise InputError(
                f"{path}, {name}",
                expected=f"every id from 0 to {highest:,}",
                found=f"{highest + 1 - len(ids):,} of them nowhere ({imported.rejects.height:,} lines were rejected)",
                action="Number the ids of the import from 0 without gaps.",
            )
    users = pl.DataFrame({"user_id": imported.table["user_id"].unique().sort()})
    items = _complete(pl.DataFrame({"item_id": item_ids.sort()}).join(described.table, on="item_id", how="left"))
    counts = {
        "interaction_lines": imported.lines,
        "interaction_rejects": imported.rejects.height,
        "repeated_pairs": imported.duplicates,
        "item_lines": described.lines,
        "item_rejects": described.rejects.height,
        "item_duplicates": described.duplicates,
        "users": users.height,
        "items": items.height,
        "interactions": imported.table.height,
        "items_without_metadata": items.height - described.table.height,
        "items_without_text": items_without_text(items),
    }
    return Dump(
        items=items,
        users=users.with_columns(reviewer_id=pl.col("user_id").cast(pl.String)),
        reviews=pl.DataFrame(schema=REVIEWS),
        interactions=imported.table,
        rejects=pl.concat([imported.rejects, described.rejects]),
        counts=counts,
    )
