"""Checks of profiles."""

import dagster as dg
import polars as pl

from assets.checks.declare import Verdict, table_check
from recmodels.profiles.config import MAX_FALLBACK_SHARE


def _checks(name: str, id_column: str, ids: str) -> list[dg.AssetChecksDefinition]:
    @table_check(name, "There is one profile for every id, in order.", also=[ids])
    def one_profile_an_id(profiles: pl.DataFrame, known: pl.DataFrame) -> Verdict:
        empty = int((profiles["profile"] == "").sum())
        return profiles[id_column].equals(known[id_column]), {"empty_profiles": empty}

    @table_check(name, f"At most {MAX_FALLBACK_SHARE:.0%} of the profiles fell back to the extractive summariser.")
    def few_fallbacks(profiles: pl.DataFrame) -> Verdict:
        share = float(profiles["source"].str.starts_with("fallback").mean() or 0.0)  # type: ignore[arg-type]
        return share <= MAX_FALLBACK_SHARE, {"fallback_share": share}

    return [one_profile_an_id, few_fallbacks]


CHECKS = _checks("item_profiles", "item_id", "item_ids") + _checks("user_profiles", "user_id", "users")
