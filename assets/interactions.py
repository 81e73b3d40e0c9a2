"""Tables from the raw files: items, users, reviews, the split interactions, and what was rejected."""

from collections.abc import Iterator

import dagster as dg

from assets.lineage import inline_image, inline_table, materialized
from assets.partitions import entry_of
from assets.stage import stage_multi_asset
from recmodels.data.checks import differences, fewest_interactions, first_rejects, sizes
from recmodels.data.dump import load_dump
from recmodels.data.raw import RawManifest
from recmodels.data.split import split_digest, split_interactions, without_training
from recmodels.reporting.tables import split_sizes
from recmodels.settings import table_settings

CODE_VERSION = "1"
GROUP = "interactions"


def _table(key: str, description: str) -> dg.AssetSpec:
    return dg.AssetSpec(
        key,
        deps=["raw_dumps"],
        group_name=GROUP,
        kinds={"polars", "parquet"},
        code_version=CODE_VERSION,
        description=description,
    )


@stage_multi_asset(
    name="read_raw_dumps",
    specs=[
        _table("items", "Items in id order: asin, title, description, brand, categories, price, image address."),
        _table("item_ids", "Items in id order with their asin alone: what trained models keep to name their items."),
        _table("users", "Users in id order with the reviewer id of the raw files."),
        _table("reviews", "Rating, time and text of each kept (user, item) pair; empty for imports without reviews."),
        _table("interactions", "Each kept (user, item) pair with its split: train, valid or test."),
        _table("rejects", "Raw lines that could not be read: file, line, reason, first 200 characters."),
    ],
    settings=table_settings,
    ins={"raw_dumps": dg.AssetIn("raw_dumps")},
)
def read_raw_dumps(context: dg.AssetExecutionContext, raw_dumps: str) -> Iterator[dg.MaterializeResult[object]]:
    """Read the raw files, keep the k-core, number users and items, and split each user's rows."""
    from recmodels.reporting.charts import rows_of_users_and_items

    manifest = RawManifest.parse(raw_dumps)
    entry = entry_of(context.partition_key).read_as(manifest.format)
    source = entry.sources[manifest.format]
    dump = load_dump(manifest, entry)
    interactions = split_interactions(dump.interactions, source.split, seed=source.split_seed)
    cold = without_training(interactions, dump.users.height, dump.items.height)
    tables = {
        "items": dump.items,
        "item_ids": dump.items.select("item_id", "asin"),
        "users": dump.users,
        "reviews": dump.reviews,
        "rejects": dump.rejects,
        "interactions": interactions,
    }
    found = sizes(interactions, dump.users.height, dump.items.height)
    compared = differences(found, entry.published) if entry.published and source.split == "published" else {}
    about = {
        "interactions": {
            "split": f"{source.split}, seed {source.split_seed}",
            "splits": inline_table(split_sizes(interactions)),
            "activity": inline_image(rows_of_users_and_items(interactions)),
            "k_core": source.k_core,
            "sizes": dg.MetadataValue.json(found.model_dump()),
            "fewest_interactions": dg.MetadataValue.json(fewest_interactions(interactions)),
            "differences_from_published": dg.MetadataValue.json(compared),
            "users_without_training_rows": len(cold.users),
            "items_without_training_rows": len(cold.items),
        },
        "rejects": {
            "counts": dg.MetadataValue.json(dump.counts),
            "first_rejects": dg.MetadataValue.json(first_rejects(dump.rejects, dump.counts)),
        },
    }
    digest = split_digest(interactions)
    for name, table in tables.items():
        yield materialized(context, table, key=dg.AssetKey(name), metadata=about.get(name), split=digest, entry=entry)
