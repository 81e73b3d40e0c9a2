"""Checks of what was read from the raw files and of the split."""

import dagster as dg

from assets.checks.declare import Verdict, recorded_check, recorded_json
from recmodels.data.checks import rejected_shares

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


CHECKS = [
    # All that is made from the raw tables reads one of these two.
    _few_rejects("interactions"),
    _few_rejects("item_ids"),
    k_core_holds,
    published_sizes,
    little_drift,
]
