"""Item and user profiles as a table to write: what the asset graph, the command line and a notebook call."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from recmodels.errors import TransientFailure
from recmodels.io.sqlite import MEMORY
from recmodels.llm.base import Backend, Prompt, RunStopped
from recmodels.llm.cache import CallCache, ModelIdentity, key_function
from recmodels.llm.factory import make_backend
from recmodels.llm.runner import Outcome, ProgressCallback, Run, run_blocking
from recmodels.profiles.answers import profile_answers
from recmodels.profiles.config import ProfileConfig
from recmodels.profiles.extractive import extract_item_profile, extract_user_profile
from recmodels.profiles.inputs import ItemInputs, ItemSource, UserInputs, UserSource
from recmodels.profiles.prompts import TEMPLATE_VERSION, item_prompt, user_prompt
from recmodels.schemas.tables import ITEM_PROFILES, USER_PROFILES

NO_INPUT = "none"
"""`source` of a row whose item or user has no text at all: the profile is empty and nobody was asked."""

FALLBACK = "fallback"
"""`source` of a row whose model gave no usable answer: the profile is the extractive one."""

FALLBACKS = pl.Schema({"id": pl.Int32, "reason": pl.String})
"""Rows that fell back, and why."""

Stats = dict[str, float | int | str]


@dataclass(frozen=True)
class Explanation:
    """What one profile was made from, for the report."""

    id: int
    inputs: ItemInputs | UserInputs


@dataclass(frozen=True)
class ProfileTask:
    """A profile table to write: a row for every id of its source, from 0; made by `item_task` and `user_task`."""

    id_column: str
    schema: pl.Schema
    rows: int
    inputs: Callable[[int], ItemInputs | UserInputs]
    """Returns what the profile of an id is made from."""
    domain: str
    """The data set's words for what it sells, as in "gift cards"."""
    config: ProfileConfig
    ask: Callable[[Any, str, int], Prompt]
    """Returns the prompt for inputs, given the domain and the most words of a profile."""
    extract: Callable[[Any], str]
    """Returns the extractive profile of inputs."""

    def prompt(self, row: int) -> Prompt | None:
        """Return what a language model is asked about an id; None where there is nothing to ask about."""
        inputs = self.inputs(row)
        return None if inputs.empty else self.ask(inputs, self.domain, self.config.max_words)

    def extractive(self, row: int) -> str:
        """Return the profile of an id without a language model; empty where there is nothing to write it from."""
        return self.extract(self.inputs(row))

    def explain(self, row: int) -> Explanation:
        """Return what the profile of an id is made from."""
        return Explanation(row, self.inputs(row))


def item_task(
    items: pl.DataFrame, reviews: pl.DataFrame, interactions: pl.DataFrame, *, domain: str, config: ProfileConfig
) -> ProfileTask:
    """
    Return the task of a profile for every item.

    Parameters
    ----------
    items, reviews, interactions
        ITEMS, REVIEWS and INTERACTIONS tables with all splits; held-out rows are dropped before any prompt is built.
    domain
        As in `ProfileTask`.
    """
    source = ItemSource(items, reviews, interactions, config)
    return ProfileTask(
        "item_id", ITEM_PROFILES, len(source), source.__getitem__, domain, config, item_prompt, extract_item_profile
    )


def user_task(
    items: pl.DataFrame,
    item_profiles: pl.DataFrame | None,
    reviews: pl.DataFrame,
    interactions: pl.DataFrame,
    *,
    n_users: int,
    domain: str,
    config: ProfileConfig,
) -> ProfileTask:
    """
    Return the task of a profile for every user, from titles, profiles and own reviews of the training items.

    Parameters
    ----------
    items, item_profiles, reviews, interactions
        ITEMS, ITEM_PROFILES, REVIEWS and INTERACTIONS tables with all splits; held-out rows are dropped before any
        prompt is built. Without reviews (no rows) the history is titles and profiles. While there are no item profiles
        yet (None), as for an estimate, extractive ones stand in for them.
    """
    if item_profiles is None:
        stand_in = item_task(items, reviews, interactions, domain=domain, config=config)
        item_profiles = pl.DataFrame({"profile": map(stand_in.extractive, range(stand_in.rows))})
    source = UserSource(items, item_profiles, reviews, interactions, n_users=n_users, config=config)
    return ProfileTask(
        "user_id", USER_PROFILES, len(source), source.__getitem__, domain, config, user_prompt, extract_user_profile
    )


@dataclass(frozen=True)
class ProfileResult:
    """
    A finished profile table, ITEM_PROFILES or USER_PROFILES, with flat counts and labels for metadata.

    ``rows = answered + fallback + empty``. `dead_letters` (id, reason) are rows whose calls failed for good; they carry
    the fallback and are asked again by the next run. `unusable` are rows whose answers were of no use; so do they.
    """

    table: pl.DataFrame
    stats: Stats
    dead_letters: pl.DataFrame
    unusable: pl.DataFrame


@dataclass(frozen=True)
class Estimate:
    """What a run would do, counted without a call."""

    rows: int
    """Rows of the table."""
    empty: int
    """Those without any input."""
    cached: int
    """Rows that the cache already answers, for the model as it was last seen."""
    calls: int
    """Prompts that would be asked; a few repairs may come on top."""
    prompt_tokens: int
    answer_tokens: int
    """Tokens of these calls. Corrected by what the model's last run took; before its first run the answers are taken
    as long as they may be."""
    seconds: float | None
    """At the rate of the model's last run; None before its first."""
    cost: float
    """At the configured prices."""
    within_budget: bool
    """Whether the budget would last."""


def write(task: ProfileTask, cache_path: Path, progress: ProgressCallback | None = None) -> ProfileResult:
    """
    Write the profiles of a task.

    Parameters
    ----------
    cache_path
        SQLite file with the finished calls, made if missing. Data sets may share one. Not used by ``extractive``.
    progress
        Called at the start, then every second to every minute, and at the end.

    Raises
    ------
    RunStopped
        If the language model is gone; starting again goes on from the cache.
    PermanentFailure
        If the model, the key or the configuration must change first, or the budget is used up.
    """
    started = time.perf_counter()
    if task.config.backend == "extractive":
        outcome = Outcome({row: text for row in range(task.rows) if (text := task.extractive(row))})
        stats: Stats = {}
    else:
        backend = make_backend(task.config, profile_answers(task.config))
        outcome, stats = run_blocking(_ask(task, backend, cache_path, progress))
    return _assemble(task, outcome, stats, time.perf_counter() - started)


def estimate(task: ProfileTask, cache_path: Path) -> Estimate:
    """Say what `write` would do, without a call. Parameters as there."""
    config = task.config
    prompts = sum(task.prompt(row) is not None for row in range(task.rows))
    if config.backend == "extractive":
        return Estimate(task.rows, task.rows - prompts, 0, 0, 0, 0, 0.0, 0.0, True)
    backend = make_backend(config, profile_answers(config))
    # A dry run must not leave a file behind.
    with CallCache(cache_path if cache_path.exists() else MEMORY) as cache:
        last_seen = config.backend, backend.model, backend.address
        identity = ModelIdentity(*last_seen, cache.known_digest(*last_seen) or "")
        run = _run(task, backend, cache, identity)
        usage = cache.last_usage(*last_seen)
    prompt_tokens, answer_tokens, seconds = run.missing_tokens, run.missing * config.answer_tokens, None
    if usage:
        prompt_tokens = round(prompt_tokens * usage.prompt_tokens / usage.estimated_tokens)
        answer_tokens = round(run.missing * usage.answer_tokens / usage.calls)
        seconds = run.missing * usage.seconds / usage.calls
    return Estimate(
        rows=task.rows,
        empty=task.rows - prompts,
        cached=run.outcome.from_cache,
        calls=run.missing,
        prompt_tokens=prompt_tokens,
        answer_tokens=answer_tokens,
        seconds=seconds,
        cost=config.cost(prompt_tokens, answer_tokens),
        within_budget=config.within_budget(prompt_tokens, answer_tokens),
    )


def _run(
    task: ProfileTask,
    backend: Backend,
    cache: CallCache,
    identity: ModelIdentity,
    progress: ProgressCallback | None = None,
) -> Run:
    answers = profile_answers(task.config)
    key = key_function(identity, answers.version, backend.parameters)
    run = Run(backend, cache, task.config, answers, task.prompt, key, progress)
    run.look_up(task.rows)
    return run


async def _ask(
    task: ProfileTask, backend: Backend, cache_path: Path, progress: ProgressCallback | None
) -> tuple[Outcome, Stats]:
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
            run = _run(task, backend, cache, identity, progress)
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
    return run.outcome, {
        "from_cache": run.outcome.from_cache,
        "invalid": len(run.outcome.invalid),
        "dead_letters": len(run.outcome.dead),
        **asdict(tally),
        **({"cost": cost} if (cost := task.config.cost(tally.prompt_tokens, tally.answer_tokens)) else {}),
        "model": backend.model,
        "model_digest": digest,
        "address": backend.address,
        "server_reached": int(absent is None),
    }


def _assemble(task: ProfileTask, outcome: Outcome, stats: Stats, seconds: float) -> ProfileResult:
    config = task.config
    profiles = dict(outcome.answers)
    sources = [NO_INPUT] * task.rows
    for row in profiles:
        sources[row] = config.source
    for row in (*outcome.invalid, *outcome.dead):
        profiles[row] = task.extractive(row)
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
    counts: Stats = {
        "rows": task.rows,
        "answered": len(outcome.answers),
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
        dead_letters=pl.DataFrame(sorted(outcome.dead.items()), schema=FALLBACKS, orient="row"),
        unusable=pl.DataFrame(sorted(outcome.invalid.items()), schema=FALLBACKS, orient="row"),
    )
