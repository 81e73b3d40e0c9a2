"""Profiles: what an item is and what a user likes, in a few sentences, from training rows only."""

from collections.abc import Sequence
from typing import Any

import dagster as dg
import polars as pl

from assets.support.checks import Verdict, recorded_check
from assets.support.lineage import inline_table, materialized, settings_held
from assets.support.partitions import entry_of
from assets.support.resources import DataRoot
from assets.support.stage import stage_asset
from recmodels.errors import InputError
from recmodels.llm.runner import Progress
from recmodels.profiles.config import ProfileConfig
from recmodels.profiles.write import ProfileTask, item_task, user_task, write
from recmodels.reporting.examples import example_items, example_users, profiles_and_evidence
from recmodels.settings import Settings, profile_config, profile_settings

CODE_VERSION = "1"
GROUP = "profiles"
CACHE = "profiles.sqlite"
N_EXAMPLES = 3
EXAMPLE_CHARACTERS = 400
UNANSWERED = "unanswered"
"""Metadata entry with the first rows that fell back and why: those without an answer before the others."""
UNANSWERED_SHOWN = 20
LIMIT = "max_fallback_share"
RESERVED = ("server", "api_key_variable")
"""Settings that the catalogue and the environment decide about, never a run."""


class ProfilesConfig(dg.Config):
    """Which back-end writes the profiles of a run."""

    backend: str = ""
    """`extractive` (no LLM), `ollama`, `openai` or `transformers`; empty for the catalogue's."""

    settings: dict[str, Any] = {}
    """Further settings of the back-end, such as model or temperature, by name. Unknown keys fail, and so do server and
    api_key_variable: they are set in the catalogue or the environment."""


@stage_asset(
    group_name=GROUP,
    settings=profile_settings,
    kinds={"polars", "parquet"},
    code_version=CODE_VERSION,
    pool="llm",
)
def item_profiles(
    context: dg.AssetExecutionContext,
    config: ProfilesConfig,
    data_root: DataRoot,
    items: pl.DataFrame,
    reviews: pl.DataFrame,
    interactions: pl.DataFrame,
) -> dg.MaterializeResult[pl.DataFrame]:
    """
    A short profile of every item.

    From title and description, or from training reviews where there is no description (BLAST, stage 1). `source` names
    who wrote it.
    """
    entry = entry_of(context.partition_key)
    settings = profile_config(entry, *run_settings(config))
    task = item_task(items, reviews, interactions, domain=entry.domain, config=settings)
    shown = example_items(interactions, N_EXAMPLES)
    names = items["asin"].alias("item")
    return _written(context, data_root, task, shown, names, profile_settings(entry, *run_settings(config)))


@stage_asset(
    group_name=GROUP,
    settings=profile_settings,
    kinds={"polars", "parquet"},
    code_version=CODE_VERSION,
    pool="llm",
)
def user_profiles(
    context: dg.AssetExecutionContext,
    config: ProfilesConfig,
    data_root: DataRoot,
    items: pl.DataFrame,
    item_profiles: pl.DataFrame,
    users: pl.DataFrame,
    reviews: pl.DataFrame,
    interactions: pl.DataFrame,
) -> dg.MaterializeResult[pl.DataFrame]:
    """
    A short profile of every user, from titles, item profiles and own reviews of the training items (BLAST, stage 1).

    `source` names who wrote it.
    """
    entry = entry_of(context.partition_key)
    settings = profile_config(entry, *run_settings(config))
    task = user_task(
        items, item_profiles, reviews, interactions, n_users=users.height, domain=entry.domain, config=settings
    )
    shown = example_users(interactions, N_EXAMPLES)
    names = users["reviewer_id"].alias("user")
    return _written(context, data_root, task, shown, names, profile_settings(entry, *run_settings(config)))


def run_settings(config: ProfilesConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """
    Return the settings of a run by name, in two layers.

    Whoever may start a run, as in the user interface, must not be able to send a secret of this deployment to a server
    of their choice: where calls go and which key goes with them is not up to a run.

    Raises
    ------
    InputError
        If they name a server or a key.
    """
    reserved = [name for name in RESERVED if name in config.settings]
    if reserved:
        raise InputError(
            "settings of a run",
            expected=f"none of {', '.join(RESERVED)}, which say where secrets are sent",
            found=", ".join(reserved),
            action="Set them for the data set in the file that RECMODELS_CATALOGUE names, or the server by OLLAMA_HOST "
            "or OPENAI_BASE_URL in the environment.",
        )
    return {"backend": config.backend} if config.backend else {}, config.settings


def _logged(context: dg.AssetExecutionContext):
    def log(progress: Progress) -> None:
        left = "" if progress.seconds_left is None else f", {progress.seconds_left:.0f} s left"
        context.log.info(f"{progress.done:,} of {progress.total:,} profiles, {progress.rate:.1f} a second{left}")

    return log


def _written(
    context: dg.AssetExecutionContext,
    data_root: DataRoot,
    task: ProfileTask,
    shown: Sequence[int],
    names: pl.Series,
    used: Settings,
) -> dg.MaterializeResult[pl.DataFrame]:
    result = write(task, data_root.cache(CACHE), _logged(context))
    unanswered = pl.concat([result.dead_letters, result.unusable])
    examples = profiles_and_evidence(result.table, [task.explain(row) for row in shown], names)
    return materialized(
        context,
        result.table,
        used=used,
        metadata={
            "examples": inline_table(examples, EXAMPLE_CHARACTERS),
            **result.stats,
            **({} if unanswered.is_empty() else {UNANSWERED: inline_table(unanswered.head(UNANSWERED_SHOWN))}),
        },
    )


def _few_fallbacks(name: str, id_column: str) -> dg.AssetChecksDefinition:
    @recorded_check(
        name, "No more profiles fell back to the extractive summariser than max_fallback_share allows.", blocking=True
    )
    def few_fallbacks(records: list[dg.AssetMaterialization]) -> Verdict:
        entries = records[0].metadata
        rows, fallbacks, dead = (_count(entries.get(key)) for key in ("rows", "fallback", "dead_letters"))
        limit = settings_held(records[0]).get(LIMIT, ProfileConfig().max_fallback_share)
        share = fallbacks / max(1, rows)
        measured = {"fallback_share": share, "empty_profiles": _count(entries.get("empty"))}
        if share <= limit:
            return Verdict(measured)
        shown = entries.get(UNANSWERED)
        examples = [row.data for row in shown.records[:2]] if isinstance(shown, dg.TableMetadataValue) else []
        told = "; ".join(f"{id_column} {row['id']}: {str(row['reason']).rstrip('.')}" for row in examples)
        cures = [
            "Mend the server and materialise again: what was answered is kept." if dead else "",
            "Raise answer_tokens, set sampling or name a larger model." if fallbacks > dead else "",
        ]
        return Verdict(
            measured,
            f"{fallbacks:,} of {rows:,} profiles ({share:.1%}) fell back to the extractive summariser, expected at "
            f"most {limit:.1%} ({LIMIT}): {told}. {' '.join(filter(None, cures))} To accept it, raise {LIMIT}; then "
            f"materialise {name} again.",
        )

    return few_fallbacks


def _count(entry: dg.MetadataValue | None) -> int:
    return int(str(entry.value)) if entry else 0


fallback_checks = [_few_fallbacks("item_profiles", "item_id"), _few_fallbacks("user_profiles", "user_id")]
