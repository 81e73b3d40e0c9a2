"""Item and user profiles: the functions that the asset graph and a notebook call."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import polars as pl

from recmodels.errors import TransientFailure
from recmodels.llm.backend import Backend, make_backend
from recmodels.llm.cache import CallCache, ModelIdentity, key_function
from recmodels.llm.runner import Outcome, ProfileRun, ProgressCallback, RunStopped, run_blocking
from recmodels.profiles.config import ProfileConfig
from recmodels.profiles.extractive import extract_item_profile, extract_user_profile
from recmodels.profiles.inputs import ItemInputs, ItemSource, UserInputs, UserSource
from recmodels.profiles.prompts import TEMPLATE_VERSION, Prompt, item_prompt, user_prompt
from recmodels.schemas.tables import ITEM_PROFILES, USER_PROFILES

NO_INPUT = "none"
"""`source` of a row whose item or user has no text at all: the profile is empty and nobody was asked."""

FALLBACK = "fallback"
"""`source` of a row whose model gave no usable answer: the profile is the extractive one."""

DEAD_LETTERS = pl.Schema({"id": pl.Int32, "reason": pl.String})
"""Rows whose calls failed for good, and why."""


@dataclass(frozen=True)
class ProfileResult:
    """
    A finished profile table.

    Parameters
    ----------
    table
        ITEM_PROFILES or USER_PROFILES: a row for every id, in id order.
    stats
        Flat counts and labels for metadata. ``rows = answered + fallback + empty``.
    dead_letters
        Rows whose calls failed for good (id, reason); they carry the fallback and are asked again by the next run.
    """

    table: pl.DataFrame
    stats: dict[str, float | int | str]
    dead_letters: pl.DataFrame


@dataclass(frozen=True)
class Explanation:
    """What one profile was made from, for the report."""

    id: int
    inputs: ItemInputs | UserInputs
    prompt: Prompt


@dataclass(frozen=True)
class Estimate:
    """
    What a run would do, counted without a call.

    Parameters
    ----------
    rows, empty
        Rows of the table, and those without any input.
    cached
        Rows that the cache already answers, for the model as it was last seen.
    calls
        Prompts that would be asked; a few repairs may come on top.
    prompt_tokens, answer_tokens
        Of these calls. Corrected by what the model's last run took; before its first run the answers are taken as long
        as they may be.
    seconds
        At the rate of the model's last run; None before its first.
    cost
        At the configured prices.
    within_budget
        Whether the budget would last.
    """

    rows: int
    empty: int
    cached: int
    calls: int
    prompt_tokens: int
    answer_tokens: int
    seconds: float | None
    cost: float
    within_budget: bool


@dataclass(frozen=True)
class _Task:
    """One table to write: how to get the prompt and the extractive profile of a row."""

    id_column: str
    schema: pl.Schema
    rows: int
    prompt: Callable[[int], Prompt | None]
    extract: Callable[[int], str]
    config: ProfileConfig


def write_item_profiles(
    items: pl.DataFrame,
    reviews: pl.DataFrame,
    interactions: pl.DataFrame,
    *,
    domain: str,
    config: ProfileConfig,
    cache_path: Path,
    progress: ProgressCallback | None = None,
) -> ProfileResult:
    """
    Write a profile for every item.

    Parameters
    ----------
    items, reviews, interactions
        ITEMS, REVIEWS and INTERACTIONS tables with all splits; held-out rows are dropped before any prompt is built.
    domain
        The data set's words for what it sells, as in "gift cards".
    config
        Back-end and bounds.
    cache_path
        SQLite file with the finished calls, made if missing. Data sets may share one. Not used by ``extractive``.
    progress
        Called at the start, then every second to every minute, and at the end.
    """
    return _write(_item_task(ItemSource(items, reviews, interactions, config), domain, config), cache_path, progress)


def write_user_profiles(
    items: pl.DataFrame,
    item_profiles: pl.DataFrame,
    reviews: pl.DataFrame,
    interactions: pl.DataFrame,
    *,
    n_users: int,
    domain: str,
    config: ProfileConfig,
    cache_path: Path,
    progress: ProgressCallback | None = None,
) -> ProfileResult:
    """
    Write a profile for every user, from titles, profiles and own reviews of the training items.

    Parameters
    ----------
    items, item_profiles, reviews, interactions
        ITEMS, ITEM_PROFILES, REVIEWS and INTERACTIONS tables with all splits; held-out rows are dropped before any
        prompt is built. Without reviews (no rows) the history is titles and profiles.
    n_users
        Number of users; ids run from 0.
    domain, config, cache_path, progress
        As for `write_item_profiles`.
    """
    source = UserSource(items, item_profiles, reviews, interactions, n_users=n_users, config=config)
    return _write(_user_task(source, domain, config), cache_path, progress)


def estimate_item_profiles(
    items: pl.DataFrame,
    reviews: pl.DataFrame,
    interactions: pl.DataFrame,
    *,
    domain: str,
    config: ProfileConfig,
    cache_path: Path,
) -> Estimate:
    """Say what `write_item_profiles` would do, without a call. Parameters as there."""
    return _estimate(_item_task(ItemSource(items, reviews, interactions, config), domain, config), cache_path)


def estimate_user_profiles(
    items: pl.DataFrame,
    item_profiles: pl.DataFrame | None,
    reviews: pl.DataFrame,
    interactions: pl.DataFrame,
    *,
    n_users: int,
    domain: str,
    config: ProfileConfig,
    cache_path: Path,
) -> Estimate:
    """
    Say what `write_user_profiles` would do, without a call.

    Parameters as there; while there are no item profiles yet (None), extractive ones stand in for their length.
    """
    if item_profiles is None:
        extractive = config.model_copy(update={"backend": "extractive"})
        source = ItemSource(items, reviews, interactions, extractive)
        item_profiles = _write(_item_task(source, domain, extractive), cache_path, None).table
    source = UserSource(items, item_profiles, reviews, interactions, n_users=n_users, config=config)
    return _estimate(_user_task(source, domain, config), cache_path)


def explain_item(
    item_id: int,
    items: pl.DataFrame,
    reviews: pl.DataFrame,
    interactions: pl.DataFrame,
    *,
    domain: str,
    config: ProfileConfig,
) -> Explanation:
    """Return what the profile of one item was made from."""
    inputs = ItemSource(items, reviews, interactions, config)[item_id]
    return Explanation(item_id, inputs, item_prompt(inputs, domain))


def explain_user(
    user_id: int,
    items: pl.DataFrame,
    item_profiles: pl.DataFrame,
    reviews: pl.DataFrame,
    interactions: pl.DataFrame,
    *,
    n_users: int,
    domain: str,
    config: ProfileConfig,
) -> Explanation:
    """Return what the profile of one user was made from."""
    inputs = UserSource(items, item_profiles, reviews, interactions, n_users=n_users, config=config)[user_id]
    return Explanation(user_id, inputs, user_prompt(inputs, domain))


def _item_task(source: ItemSource, domain: str, config: ProfileConfig) -> _Task:
    def prompt(item_id: int) -> Prompt | None:
        inputs = source[item_id]
        return None if inputs.empty else item_prompt(inputs, domain)

    def extract(item_id: int) -> str:
        return extract_item_profile(source[item_id])

    return _Task("item_id", ITEM_PROFILES, len(source), prompt, extract, config)


def _user_task(source: UserSource, domain: str, config: ProfileConfig) -> _Task:
    def prompt(user_id: int) -> Prompt | None:
        inputs = source[user_id]
        return None if inputs.empty else user_prompt(inputs, domain)

    def extract(user_id: int) -> str:
        return extract_user_profile(source[user_id])

    return _Task("user_id", USER_PROFILES, len(source), prompt, extract, config)


def _write(task: _Task, cache_path: Path, progress: ProgressCallback | None) -> ProfileResult:
    started = time.perf_counter()
    if task.config.backend == "extractive":
        outcome = Outcome(profiles={row: text for row in range(task.rows) if (text := task.extract(row))})
        stats: dict[str, float | int | str] = {}
    else:
        outcome, stats = run_blocking(_ask(task, make_backend(task.config), cache_path, progress))
    return _assemble(task, outcome, stats, time.perf_counter() - started)


async def _ask(
    task: _Task, backend: Backend, cache_path: Path, progress: ProgressCallback | None
) -> tuple[Outcome, dict[str, float | int | str]]:
    with CallCache(cache_path) as cache:
        try:
            name, model, address = task.config.backend, backend.model, backend.address
            absent: TransientFailure | None = None
            try:
                digest = await backend.start()
            except TransientFailure as error:
                known = cache.known_digest(name, model, address)
                if known is None:
                    raise RunStopped(f"the {name} server cannot be asked: {error}. Is it running?") from error
                absent, digest = error, known
            identity = ModelIdentity(name, model, address, digest)
            run = ProfileRun(
                backend, cache, task.config, task.prompt, key_function(identity, backend.parameters), progress
            )
            run.look_up(task.rows)
            if run.missing:
                if absent:
                    raise RunStopped(
                        f"the {name} server cannot be asked for {run.missing} of {task.rows} profiles: {absent}"
                    ) from absent
                with cache.run(identity):
                    await run.ask()
        finally:
            await backend.close()
    tally = run.outcome.tally
    stats: dict[str, float | int | str] = {
        "from_cache": run.outcome.from_cache,
        "invalid": len(run.outcome.invalid),
        "dead_letters": len(run.outcome.dead),
        **asdict(tally),
        "cost": task.config.cost(tally.prompt_tokens, tally.answer_tokens),
        "model": backend.model,
        "model_digest": digest,
        "address": backend.address,
        "server_reached": int(absent is None),
    }
    return run.outcome, stats


def _estimate(task: _Task, cache_path: Path) -> Estimate:
    config = task.config
    prompts = sum(task.prompt(row) is not None for row in range(task.rows))
    if config.backend == "extractive":
        return Estimate(task.rows, task.rows - prompts, 0, 0, 0, 0, 0.0, 0.0, True)
    backend = make_backend(config)
    # A dry run must not leave a file behind.
    with CallCache(cache_path if cache_path.exists() else Path(":memory:")) as cache:
        name, model, address = config.backend, backend.model, backend.address
        digest = cache.known_digest(name, model, address) or ""
        key = key_function(ModelIdentity(name, model, address, digest), backend.parameters)
        run = ProfileRun(backend, cache, config, task.prompt, key)
        run.look_up(task.rows)
        usage = cache.last_usage(name, model, address)
    prompt_tokens, answer_tokens, seconds = run.missing_tokens, run.missing * config.answer_tokens, None
    if usage:
        prompt_tokens = round(prompt_tokens * usage.prompt_tokens / usage.estimated_tokens)
        answer_tokens = round(run.missing * usage.answer_tokens / usage.calls)
        seconds = run.missing * usage.seconds / usage.calls
    cost = config.cost(prompt_tokens, answer_tokens)
    return Estimate(
        rows=task.rows,
        empty=task.rows - prompts,
        cached=run.outcome.from_cache,
        calls=run.missing,
        prompt_tokens=prompt_tokens,
        answer_tokens=answer_tokens,
        seconds=seconds,
        cost=cost,
        within_budget=(config.budget_tokens is None or prompt_tokens + answer_tokens <= config.budget_tokens)
        and (config.budget_cost is None or cost <= config.budget_cost),
    )


def _assemble(task: _Task, outcome: Outcome, stats: dict[str, float | int | str], seconds: float) -> ProfileResult:
    config = task.config
    profiles = dict(outcome.profiles)
    sources = [NO_INPUT] * task.rows
    for row in profiles:
        sources[row] = config.source
    for row in (*outcome.invalid, *outcome.dead):
        profiles[row] = task.extract(row)
        sources[row] = config.labelled(FALLBACK)
    table = pl.DataFrame(
        {
            task.id_column: range(task.rows),
            "profile": [profiles.get(row, "") for row in range(task.rows)],
            "source": sources,
        },
        schema=task.schema,
    )
    fallback = len(outcome.invalid) + len(outcome.dead)
    counts: dict[str, float | int | str] = {
        "rows": task.rows,
        "answered": len(outcome.profiles),
        "fallback": fallback,
        "fallback_share": fallback / max(task.rows, 1),
        "empty": task.rows - len(profiles),
        "backend": config.backend,
        "language_model": "no" if config.backend == "extractive" else "yes",
        "held_out_included": "yes" if config.include_held_out else "no",
        "template_version": TEMPLATE_VERSION,
        "seconds": seconds,
    }
    return ProfileResult(
        table=table,
        stats=counts | stats,
        dead_letters=pl.DataFrame(sorted(outcome.dead.items()), schema=DEAD_LETTERS, orient="row"),
    )
