"""Tables from the raw files: items, users, reviews, the split interactions, and what was rejected."""

from collections.abc import Iterator
from functools import partial

import dagster as dg
import polars as pl

from assets.support.checks import Verdict, recorded_check, table_check
from assets.support.lineage import (
    CONSOLE,
    PREVIEW_CHARACTERS,
    inline_image,
    inline_table,
    materialized,
    recorded_json,
    records_read,
)
from assets.support.partitions import entry_of
from assets.support.resources import ComputeResource, DataRoot, compute_metadata
from assets.support.stage import stage_multi_asset
from recmodels.data.by_user import Limits
from recmodels.data.checks import (
    differences,
    fewest_interactions,
    first_rejects,
    most_shared_title,
    rejected_shares,
    sizes,
    untitled,
)
from recmodels.data.prepare import prepare_tables
from recmodels.data.split import split_digest, without_training
from recmodels.raw.manifest import RawManifest
from recmodels.reporting.tables import funnel_table, shortened, split_sizes
from recmodels.schemas.results import LIST_LENGTHS
from recmodels.settings import table_settings

CODE_VERSION = "2"
GROUP = "interactions"
FUNNEL = "funnel"
"""Metadata entry with the steps that the rows went through, as a list of ``{"step": name, "rows": number}``."""
CUT_CORE = "cut_core"
"""Metadata entry with what was lost of a file that is a k-core already by its name; empty of any other."""


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
def read_raw_dumps(
    context: dg.AssetExecutionContext, data_root: DataRoot, compute: ComputeResource, raw_dumps: str
) -> Iterator[dg.MaterializeResult[object]]:
    """Read the raw files, keep the k-core, number users and items, and split each user's rows."""
    from recmodels.reporting.charts import rows_of_users_and_items

    manifest = RawManifest.parse(raw_dumps)
    entry = entry_of(context.partition_key).read_as(manifest.format)
    source = entry.sources[manifest.format]
    engine = compute.open()
    prepared = prepare_tables(manifest, entry, compute=engine, limits=Limits(scratch=data_root.staging))
    dump, interactions, funnel = prepared.dump, prepared.interactions, prepared.funnel
    cold_users, cold_items = without_training(interactions, dump.users.height, dump.items.height)
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
            CONSOLE: funnel.text,
            FUNNEL: dg.MetadataValue.json([{"step": step, "rows": rows} for step, rows in funnel.steps.items()]),
            "what_became_of_the_rows": inline_table(funnel_table(funnel.steps)),
            CUT_CORE: dg.MetadataValue.json(funnel.cut_core if not source.generated else {}),
            "split": f"{source.split}, seed {source.split_seed}",
            "splits": inline_table(split_sizes(interactions)),
            "activity": inline_image(rows_of_users_and_items(interactions)),
            "k_core": source.k_core,
            "sizes": dg.MetadataValue.json(found.model_dump()),
            "fewest_interactions": dg.MetadataValue.json(fewest_interactions(interactions)),
            "differences_from_published": dg.MetadataValue.json(compared),
            "users_without_training_rows": len(cold_users),
            "items_without_training_rows": len(cold_items),
            **compute_metadata(engine),
        },
        "rejects": {
            "counts": dg.MetadataValue.json(dump.counts),
            "first_rejects": dg.MetadataValue.json(first_rejects(dump.rejects, dump.counts)),
        },
    }
    digest = split_digest(interactions)
    record = partial(materialized, context, inputs=records_read(context), split=digest, entry=entry)
    for name, table in tables.items():
        yield record(table, key=dg.AssetKey(name), metadata=about.get(name))


MAX_REJECTED_SHARE = 0.01
MAX_DRIFT = 0.1
"""Largest relative change of the number of interactions since the last materialisation that is not worth a warning."""


def _few_rejects(asset: str) -> dg.AssetChecksDefinition:
    """Return the check on an asset that others read: nothing reads the rejects, so that there it would stop nobody."""

    @recorded_check(
        asset,
        f"At most {MAX_REJECTED_SHARE:.0%} of the lines of each raw file could not be read.",
        blocking=True,
        of="rejects",
    )
    def few_rejects(records: list[dg.AssetMaterialization]) -> Verdict:
        counts, first = (recorded_json(records[0], entry) for entry in ("counts", "first_rejects"))
        shares = rejected_shares(counts)
        measured = {f"rejected_share_of_{kind}": share for kind, share in shares.items()}
        worst = max(shares, key=lambda kind: shares[kind])
        if shares[worst] <= MAX_REJECTED_SHARE:
            return Verdict(measured)
        return Verdict(
            measured,
            f"{counts[f'{worst}_rejects']:,} of {counts[f'{worst}_lines']:,} {worst} lines could not be read "
            f"({shares[worst]:.1%}), expected at most {MAX_REJECTED_SHARE:.0%}; the first is {first[worst]}. Correct "
            "the file and materialise raw_dumps again; tables/rejects under the data root lists each.",
        )

    return few_rejects


@recorded_check("interactions", "Every user and item has as many interactions as the k-core asks for.", blocking=True)
def k_core_holds(records: list[dg.AssetMaterialization]) -> Verdict:
    """Compare the fewest interactions with k, as recorded while the table was made."""
    k, fewest = int(str(records[0].metadata["k_core"].value)), recorded_json(records[0], "fewest_interactions")
    measured = {"k": k, **{f"fewest_of_a_{kind}": count for kind, count in fewest.items()}}
    kind = min(fewest, key=lambda name: fewest[name])
    if fewest[kind] >= k:
        return Verdict(measured)
    return Verdict(
        measured,
        f"Some {kind} has {fewest[kind]} interactions, expected at least {k}: the {k}-core does not hold. "
        "Lower k_core of the data set in the catalogue, or use raw files that keep it.",
    )


@recorded_check("interactions", "A published split has exactly the published numbers.", blocking=True)
def published_sizes(records: list[dg.AssetMaterialization]) -> Verdict:
    """Compare users, items and rows of each split with those that papers report."""
    differing = recorded_json(records[0], "differences_from_published")
    measured = {"differing": dg.MetadataValue.json(differing)}
    if not differing:
        return Verdict(measured)
    name, (found, published) = next(iter(differing.items()))
    return Verdict(
        measured,
        f"{len(differing)} of the published numbers differ, expected none: {found:,} {name} instead of {published:,}. "
        "Use the files of the published split, or correct `published` of the data set in the catalogue.",
    )


@recorded_check(
    "interactions",
    f"The number of rows changed by at most {MAX_DRIFT:.0%} since the last materialisation.",
    blocking=False,
    n_records=2,
)
def little_drift(records: list[dg.AssetMaterialization]) -> Verdict:
    """Compare the row counts of the last two materialisations."""
    counts = [int(str(record.metadata["dagster/row_count"].value)) for record in records]
    drift = abs(counts[0] - counts[-1]) / max(1, counts[-1])
    measured = {"rows": counts[0], "rows_before": counts[-1], "drift": drift}
    if drift <= MAX_DRIFT:
        return Verdict(measured)
    return Verdict(
        measured,
        f"{counts[0]:,} rows are {drift:.0%} off the {counts[-1]:,} of the last time, expected at most "
        f"{MAX_DRIFT:.0%}. Compare the files that raw_dumps recorded both times; if they are meant, nothing is to do.",
    )


@recorded_check(
    "interactions",
    "A file that is a k-core already by its name keeps all of its users, items and pairs.",
    blocking=False,
)
def keeps_its_core(records: list[dg.AssetMaterialization]) -> Verdict:
    """Look at what the k-core dropped, as recorded while the table was made; earlier versions recorded nothing."""
    lost = recorded_json(records[0], CUT_CORE, optional=True)
    if not lost:
        return Verdict({"pairs_lost": 0})
    return Verdict(
        lost,
        f"{lost['pairs_lost']:,} of {lost['pairs']:,} pairs, {lost['users_lost']:,} users and {lost['items_lost']:,} "
        f"items fell below k_core = {lost['k_core']}, expected none: {lost['file']} is a {lost['core_by_name']}-core "
        "already by its name, which counts repeated rows. Set k_core = 1 in the catalogue entry to keep them.",
    )


MAX_LISTED_SHARE = 0.25
"""Of the items, the share that the longest list measured may hold and still say what a model has learned."""


@recorded_check(
    "interactions", f"The lists that are measured hold at most {MAX_LISTED_SHARE:.0%} of the items.", blocking=False
)
def lists_leave_most_items_out(records: list[dg.AssetMaterialization]) -> Verdict:
    """Compare the longest list that is measured with the number of items, as recorded while the table was made."""
    n_items, longest = int(recorded_json(records[0], "sizes")["items"]), max(LIST_LENGTHS)
    measured = {"items": n_items, "longest_list": longest}
    if longest <= MAX_LISTED_SHARE * n_items:
        return Verdict(measured)
    return Verdict(
        measured,
        f"Lists of {longest} are measured and there are {n_items:,} items, expected at least "
        f"{longest / MAX_LISTED_SHARE:.0f}: recall@{longest} is about {min(1, longest / n_items):.2f} for a list in "
        f"random order. Compare models by ndcg@{min(LIST_LENGTHS)}, or use raw files with more items.",
    )


MAX_TITLE_SHARE = 0.5
MAX_UNTITLED_SHARE = 0.75
"""Of the items that the metadata describes; half of those of the published Baby have no title."""


@table_check(
    "items",
    f"At most {MAX_TITLE_SHARE:.0%} of the items share one title, at most {MAX_UNTITLED_SHARE:.0%} of those described "
    "have none.",
    blocking=False,
)
def titles_tell_items_apart(items: pl.DataFrame) -> Verdict:
    """Count the items that have the commonest title, and those that have none although the metadata has them."""
    title, n_sharing = most_shared_title(items)
    n_untitled, n_described = untitled(items)
    shown = shortened(title, PREVIEW_CHARACTERS)
    measured = {"items_that_share_a_title": n_sharing, "title": shown, "described_items_without_title": n_untitled}
    if n_untitled > MAX_UNTITLED_SHARE * n_described:
        return Verdict(
            measured,
            f"{n_untitled:,} of {n_described:,} items that the metadata describes ({n_untitled / n_described:.0%}) "
            f"have no title, or one that is markup alone, expected at most {MAX_UNTITLED_SHARE:.0%}. Lists name them "
            "by their description or asin: correct the titles in the metadata file and materialise raw_dumps again.",
        )
    if n_sharing < 2 or n_sharing <= MAX_TITLE_SHARE * items.height:
        return Verdict(measured)
    return Verdict(
        measured,
        f"{n_sharing:,} of {items.height:,} items ({n_sharing / items.height:.0%}) have the title {shown!r}, expected "
        f"at most {MAX_TITLE_SHARE:.0%} with one title. Profiles and recommendations name them so: correct the titles "
        "in the metadata file and materialise raw_dumps again.",
    )


# All that is made from the raw tables reads one of these two.
few_rejects_checks = [_few_rejects("interactions"), _few_rejects("item_ids")]
