"""The search itself: one training after another, until the budget is spent. Which settings come next is the study's."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from recmodels.errors import InputError, PermanentFailure
from recmodels.io.digest import digest_of
from recmodels.models.config import AnyConfig, ClosedFormConfig
from recmodels.models.inputs import TrainingData
from recmodels.models.registry import build_model
from recmodels.schemas.tables import TRIES
from recmodels.training.trainer import EpochRecord, fit
from recmodels.tuning.config import Space, TuningConfig
from recmodels.tuning.spaces import as_settings, first_tries, search_space, with_effect
from recmodels.tuning.study import Outcome, Running, Study, Tried, importances, opened_study

Configure = Callable[[Mapping[str, Any]], AnyConfig]
"""From overrides to a model's configuration, as `resolve_config` and `recmodels.settings.training_config` make it."""


@dataclass(frozen=True, eq=False)
class TuningResult:
    """What a search found."""

    table: pl.DataFrame
    """The tries (schema `recmodels.schemas.tuning.Tries`)."""
    importances: dict[str, float]
    """How much each setting mattered, the most important first (`recmodels.tuning.study.importances`)."""
    exhausted: bool
    """Whether the search ended because there was nothing left to try."""


def tune(
    model: str,
    configure: Configure,
    data: TrainingData,
    tuning: TuningConfig,
    *,
    folder: Path | None = None,
    key: str = "",
    on_epoch: Callable[[int, EpochRecord], None] = lambda number, record: None,
    on_try: Callable[[Tried], None] = lambda tried: None,
) -> TuningResult:
    """
    Search the settings of a model by validation Recall@20: today's first, then the published grid, then by TPE.

    A try is trained as the model always is. It is pruned where it falls behind the median of the tries before it, and
    kept as failed where the model or its training refuses the settings. The data hold no test rows.

    Parameters
    ----------
    model
        Name in the registry.
    configure
        Makes the model's configuration from the overrides of a try; from none, the one that holds today.
    data
        Training and validation pairs, and what the model reads beside them.
    tuning
        Budget, seed, pruning and space.
    folder
        Where the tries are kept, in a folder of their own for everything that decides about them; if it holds some of
        the same search, that goes on after them. None keeps nothing.
    key
        Digest of data and code: under another key, nothing that was tried before counts.
    on_epoch
        Called with the number of the try after each of its epochs.
    on_try
        Called after each try.

    Raises
    ------
    PermanentFailure
        If the model or its training refuses today's settings.
    InputError
        If no try was complete within the budget, another process searches in the folder, or as `search_space`.

    Examples
    --------
    >>> from functools import partial
    >>> from recmodels.models.example import example_data
    >>> from recmodels.models.registry import resolve_config
    >>> from recmodels.tuning.result import tuned_settings
    >>> result = tune("ease", partial(resolve_config, "ease"), example_data(), TuningConfig(trials=8))
    >>> result.table["origin"].unique(maintain_order=True).to_list()
    ['current', 'published', 'sampled']
    >>> tuned_settings(result.table)
    {'penalties': [...]}
    """
    config = configure({})
    space = with_effect(search_space(model, config, tuning), data)
    if not space:
        raise InputError(
            f"search space of {model}", expected="a setting that has an effect on these data", found="none"
        )
    first = first_tries(config, space)
    own = folder / search_key(model, config, space, tuning, key) if folder is not None else None
    with opened_study(own, space, tuning) as study:
        search = _Search(model, configure, data, tuning, space, on_epoch)
        unfinished: Tried | None = None
        exhausted = False
        while (number := len(study.tried)) < tuning.trials and (left := _seconds_left(study, tuning)) > 0:
            running = study.begin(number, first[number] if number < len(first) else None)
            if running is None:
                exhausted = True
                break
            outcome = search.outcome(running, left)
            if outcome.state == "unfinished":
                unfinished = Tried(number, running.origin, running.values, outcome)
                break
            on_try(study.end(running, outcome))
        tried = _within(study.tried, tuning)
    if not any(each.outcome.state == "complete" for each in tried):
        raise InputError(
            f"tuning of {model}",
            expected="a complete try within the budget",
            found=f"{len(tried)} tries, none of them complete",
            action="Give it more hours or tries.",
        )
    table = _table([*tried, *([unfinished] if unfinished else [])], space, tuning)
    return TuningResult(table, importances(tried, space), exhausted)


def search_key(model: str, config: AnyConfig, space: Space, tuning: TuningConfig, key: str) -> str:
    """Return the digest of everything that decides about the tries of a search; its budget does not."""
    decisive = tuning.model_dump(mode="json", exclude={"trials", "hours", "spaces"})
    parts = [config.model_dump(mode="json"), {name: p.model_dump(mode="json") for name, p in space.items()}, decisive]
    return digest_of(key, model, str(config.names_batch_size), *(json.dumps(part, sort_keys=True) for part in parts))


class _OutOfTime(Exception):
    """The hours are over in the middle of a try."""


class _Hopeless(Exception):
    """The try is pruned."""


@dataclass(frozen=True)
class _Search:
    model: str
    configure: Configure
    data: TrainingData
    tuning: TuningConfig
    space: Space
    on_epoch: Callable[[int, EpochRecord], None]

    def outcome(self, running: Running, seconds_left: float) -> Outcome:
        """Train once and return what came of it."""
        started = time.perf_counter()
        curve: list[float] = []

        def watch(record: EpochRecord) -> None:
            curve.append(record.valid_recall)
            self.on_epoch(running.number, record)
            if not closed_form and running.is_hopeless(record.epoch, record.valid_recall):
                raise _Hopeless
            if time.perf_counter() - started > seconds_left:
                raise _OutOfTime

        state, reason = "complete", ""
        closed_form = False
        try:
            settings = as_settings(running.values, self.space, self.tuning.of_every_try)
            config = self.configure(settings)
            closed_form = isinstance(config, ClosedFormConfig)
            built = build_model(self.model, config, self.data, self.tuning.seed)
            fit(built, self.data, seed=self.tuning.seed, on_epoch=[watch])
        except _Hopeless:
            state = "pruned"
        except _OutOfTime:
            state = "unfinished"
        except PermanentFailure as error:
            if running.number == 0:
                raise
            state, reason = "failed", str(error)
        best = max(curve, default=None)
        return Outcome(
            state=state,
            valid_recall=best,
            best_epoch=None if best is None else curve.index(best),
            epochs=len(curve),
            seconds=time.perf_counter() - started,
            reason=reason,
        )


def _seconds_left(study: Study, tuning: TuningConfig) -> float:
    limit = float("inf") if tuning.hours is None else tuning.hours * 3600
    return limit - sum(each.outcome.seconds for each in study.tried)


def _within(tried: list[Tried], tuning: TuningConfig) -> list[Tried]:
    """Return the tries that the budget has room to begin."""
    kept: list[Tried] = []
    left = float("inf") if tuning.hours is None else tuning.hours * 3600
    for each in tried[: tuning.trials]:
        if left <= 0:
            break
        kept.append(each)
        left -= each.outcome.seconds
    return kept


def _table(tried: list[Tried], space: Space, tuning: TuningConfig) -> pl.DataFrame:
    recalls = [each.outcome.valid_recall if each.outcome.state == "complete" else None for each in tried]
    best = recalls.index(max(recall for recall in recalls if recall is not None))
    rows = [
        {
            "number": each.number,
            "origin": each.origin,
            "state": each.outcome.state,
            "settings": json.dumps(as_settings(each.values, space, tuning.of_every_try), sort_keys=True),
            "seed": tuning.seed,
            "valid_recall": each.outcome.valid_recall,
            "best_epoch": each.outcome.best_epoch,
            "epochs": each.outcome.epochs,
            "seconds": each.outcome.seconds,
            "chosen": number == best,
            "reason": each.outcome.reason,
        }
        for number, each in enumerate(tried)
    ]
    return pl.DataFrame(rows, schema=TRIES)
