"""
The file in which a search keeps its tries, so that a killed one goes on: an Optuna journal, one JSON object a line.

One process at a time searches. What was running when it was killed is tried again; everything that ended stays.
"""

import contextlib
import fcntl
import warnings
from collections.abc import Generator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.pruners import MedianPruner
from optuna.samplers import TPESampler
from optuna.storages import InMemoryStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from recmodels.errors import InputError
from recmodels.io.files import disk_errors_told
from recmodels.tuning.config import Parameter, Space, TuningConfig
from recmodels.tuning.spaces import SAMPLED, Try

_NUMBER, _ORIGIN, _OUTCOME = "number", "origin", "outcome"
_DRAWS = 20
"""How often the search proposes anew where it proposes what was tried already, before it counts as exhausted."""
_STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}

optuna.logging.set_verbosity(optuna.logging.WARNING)


@dataclass(frozen=True)
class Outcome:
    """What came of a try."""

    state: str
    """``complete``, ``pruned``, ``failed`` or ``unfinished``."""
    valid_recall: float | None
    """Best validation Recall@20; None before the first epoch."""
    best_epoch: int | None
    """Where it was."""
    epochs: int
    """How many there were; of a model in closed form, choices."""
    seconds: float
    """Wall time."""
    reason: str = ""
    """Why it failed."""


@dataclass(frozen=True)
class Tried:
    """A try that has ended: its number from 0, why it was made, the values of what is searched, what came of it."""

    number: int
    origin: str
    values: Try
    outcome: Outcome


class Running:
    """A try in progress, to which its validation curve is reported."""

    def __init__(self, trial: optuna.Trial, number: int, origin: str) -> None:
        self.trial = trial
        self.number, self.origin = number, origin

    @property
    def values(self) -> Try:
        """The values of what is searched."""
        return dict(self.trial.params)

    def is_hopeless(self, epoch: int, valid_recall: float) -> bool:
        """Take note of an epoch and tell whether the try is to be pruned."""
        self.trial.report(valid_recall, epoch)
        return self.trial.should_prune()


class Study:
    """The tries of one search, in order, by Optuna's study; of `tuning` the seed and the pruning count."""

    def __init__(self, study: optuna.Study, space: Space, tuning: TuningConfig) -> None:
        self._study, self._tuning = study, tuning
        self._distributions = {name: _distribution(parameter) for name, parameter in space.items()}
        for trial in [trial for trial in study.trials if not trial.state.is_finished()]:
            # Nobody runs it: this process alone has the file open.
            if trial.state is TrialState.WAITING:
                # Killed between queueing and beginning it: the first that waits is what is begun, the rest follow.
                study.ask()
            self._tell(trial.number, trial.user_attrs.get(_OUTCOME, {"state": "failed", "valid_recall": None}))

    @property
    def tried(self) -> list[Tried]:
        """The tries that have ended, in order."""
        ended = [trial for trial in self._study.trials if trial.state.is_finished() and _OUTCOME in trial.user_attrs]
        return [_tried(trial) for trial in ended]

    def begin(self, number: int, first: tuple[str, Try] | None) -> Running | None:
        """
        Begin a try; return None if there is nothing left that was not tried.

        The proposal depends on seed, number and the tries before it alone, so that a search that was killed goes on
        as if it had not been. `first` has reason and values of a try that is not left to the search.
        """
        known = [tried.values for tried in self.tried]
        if first is not None:
            return Running(self._ask(number, *first), number, first[0])
        for draw in range(_DRAWS):
            seed = int(np.random.SeedSequence([self._tuning.seed, number, draw]).generate_state(1)[0])
            self._study.sampler = TPESampler(n_startup_trials=self._tuning.startup_trials, seed=seed)
            trial = self._ask(number, SAMPLED, {})
            if trial.params not in known:
                return Running(trial, number, SAMPLED)
            self._study.tell(trial, state=TrialState.FAIL)
        return None

    def _ask(self, number: int, origin: str, values: Try) -> optuna.Trial:
        self._study.enqueue_trial(values, user_attrs={_NUMBER: number, _ORIGIN: origin})
        return self._study.ask(self._distributions)

    def end(self, running: Running, outcome: Outcome) -> Tried:
        """Keep what came of a try."""
        told = asdict(outcome)
        running.trial.set_user_attr(_OUTCOME, told)
        return _tried(self._tell(running.trial.number, told))

    def _tell(self, number: int, outcome: dict[str, Any]) -> FrozenTrial:
        value = outcome["valid_recall"] if outcome["state"] == "complete" else None
        return self._study.tell(number, value, state=_STATES[outcome["state"]])


@contextlib.contextmanager
def opened_study(folder: Path | None, space: Space, tuning: TuningConfig) -> Generator[Study]:
    """
    Open the study in a folder, or a new one; it is closed, and whole, whatever ends the block.

    The folder is made if it is missing; without one the tries are kept in memory alone.

    Raises
    ------
    InputError
        If another process searches there, the file is damaged, or the disk is full.
    """
    pruner = MedianPruner(n_startup_trials=tuning.startup_trials, n_warmup_steps=tuning.warmup_epochs)
    if folder is None:
        yield Study(optuna.create_study(storage=InMemoryStorage(), pruner=pruner, direction="maximize"), space, tuning)
        return
    path = folder / "tries.jsonl"
    with disk_errors_told(path):
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InputError(
                    str(folder),
                    expected="one search at a time",
                    found="another process that searches there",
                    action="Wait for it, or end it.",
                ) from error
            _mend(path)
            try:
                storage = JournalStorage(JournalFileBackend(str(path)))
                study = optuna.create_study(
                    study_name="tries", storage=storage, pruner=pruner, direction="maximize", load_if_exists=True
                )
                opened = Study(study, space, tuning)
            except (ValueError, KeyError) as error:
                raise InputError(
                    str(path), expected="an Optuna journal", found=str(error), action="Move it away to start anew."
                ) from error
            yield opened


def importances(tried: list[Tried], space: Space) -> dict[str, float]:
    """
    Return how much each setting mattered, the most important first; the shares add up to 1, or all are 0.

    They are PED-ANOVA's (Watanabe et al., IJCAI 2023) over the tries that are complete; nothing for less than four.
    """
    complete = [each for each in tried if each.outcome.state == "complete"]
    if len(complete) < 4:
        return {}
    study = optuna.create_study(direction="maximize")
    distributions = {name: _distribution(parameter) for name, parameter in space.items()}
    study.add_trials(
        [
            optuna.create_trial(params=each.values, distributions=distributions, value=each.outcome.valid_recall)
            for each in complete
        ]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return optuna.importance.get_param_importances(study)


def _tried(trial: FrozenTrial) -> Tried:
    attributes: dict[str, Any] = trial.user_attrs
    return Tried(
        attributes[_NUMBER],
        attributes[_ORIGIN],
        dict(trial.params),
        Outcome(**cast("dict[str, Any]", attributes[_OUTCOME])),
    )


def _distribution(parameter: Parameter) -> BaseDistribution:
    low, high = parameter.low, parameter.high
    if low is None or high is None:
        return CategoricalDistribution(parameter.choices)
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, log=parameter.log)
    return FloatDistribution(low, high, log=parameter.log)


def _mend(path: Path) -> None:
    """Drop what a killed writer left: its lock, and the part of a line at the end."""
    path.with_name(f"{path.name}.lock").unlink(missing_ok=True)
    if not path.exists():
        return
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with path.open("r+b") as file:
            file.truncate(whole)
