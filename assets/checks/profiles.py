"""Checks of profiles."""

import dagster as dg
import polars as pl

from assets.checks.declare import Verdict, table_check
from recmodels.profiles.config import MAX_FALLBACK_SHARE


def _few_fallbacks(name: str, id_column: str) -> dg.AssetChecksDefinition:
    @table_check(name, f"At most {MAX_FALLBACK_SHARE:.0%} of the profiles fell back to the extractive summariser.")
    def few_fallbacks(profiles: pl.DataFrame) -> Verdict:
        fallbacks = profiles.filter(pl.col("source").str.starts_with("fallback"))
        share = fallbacks.height / max(1, profiles.height)
        measured = {"fallback_share": share, "empty_profiles": int((profiles["profile"] == "").sum())}
        if share <= MAX_FALLBACK_SHARE:
            return Verdict(measured)
        return Verdict(
            measured,
            f"{fallbacks.height:,} of {profiles.height:,} profiles ({share:.1%}) fell back to the extractive "
            f"summariser, expected at most {MAX_FALLBACK_SHARE:.0%}; the first is that of {id_column} "
            f"{fallbacks[id_column][0]}. Mend the back-end (`unanswered` of {name} has the reasons) and materialise "
            f"{name} again: what was answered is kept.",
        )

    return few_fallbacks


CHECKS = [_few_fallbacks("item_profiles", "item_id"), _few_fallbacks("user_profiles", "user_id")]
