"""Asking a language model for every answer that the cache lacks: concurrent and resumable."""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from math import ceil
from typing import Any, TypeVar

from recmodels.errors import PermanentFailure, TransientFailure
from recmodels.llm.base import AnswerFormat, Backend, BudgetReached, InvalidAnswer, Prompt, PromptRejected, RunStopped
from recmodels.llm.cache import HEARTBEAT_SECONDS, CallCache, Usage
from recmodels.llm.caller import Caller, Tally
from recmodels.llm.config import LLMConfig

_MIN_DEAD_STREAK = 16
_MAX_DEAD_SHARE = 0.02
_POLL_SECONDS = 0.2
_TICK_SECONDS = 1.0
_PROGRESS_SECONDS = 60.0

T = TypeVar("T")


@dataclass(frozen=True)
class Progress:
    """How far a run is: rows with an answer, of how many; answered calls a second; seconds left, None if unknown."""

    done: int
    total: int
    rate: float
    seconds_left: float | None


ProgressCallback = Callable[[Progress], None]


@dataclass
class Outcome:
    """What became of every row that had a prompt."""

    answers: dict[int, str] = field(default_factory=dict[int, str])
    """What was wanted, by row, for rows whose answer is valid."""
    from_cache: int = 0
    """Rows that needed no call of this run at its start."""
    invalid: dict[int, str] = field(default_factory=dict[int, str])
    """Why the answer could not be used, for rows whose repair was invalid too."""
    dead: dict[int, str] = field(default_factory=dict[int, str])
    """Why no answer came, for rows whose calls failed for good."""
    tally: Tally = field(default_factory=Tally)
    """Counts of calls."""


@dataclass(frozen=True)
class _Question:
    """A call to make: its key, the rows it is for (they share one prompt), and the unusable answer it is to replace."""

    key: bytes
    rows: tuple[int, ...]
    tokens: int
    unusable: tuple[str, InvalidAnswer] | None = None


class Run:
    """
    One run over the rows of a table, with a started `backend`.

    The `cache` is open, inside `CallCache.run` if calls are to be made. `prompt` returns the prompt of a row, or None
    for a row without input, `key` the cache key of a prompt; `answers` says how answers are read and repaired.
    `progress` is called at the start, then every second to every minute, and at the end.
    """

    def __init__(
        self,
        backend: Backend,
        cache: CallCache,
        config: LLMConfig,
        answers: AnswerFormat,
        prompt: Callable[[int], Prompt | None],
        key: Callable[[Prompt], bytes],
        progress: ProgressCallback | None = None,
    ) -> None:
        self.outcome = Outcome()
        self._backend = backend
        self._cache = cache
        self._answers = answers
        self._prompt = prompt
        self._key = key
        self._progress = progress
        self._retry_fallbacks = config.retry_fallbacks
        self._other_temperature = config.other_temperature
        self._caller = Caller(backend, config, self.outcome.tally)
        self._todo: deque[_Question] = deque()
        self._claimed: deque[_Question] = deque()
        self._held: list[_Question] = []
        self._given_up: list[_Question] = []
        self._to_forget: list[bytes] = []
        self._rows = 0
        self._dead_streak = 0
        self._stop: Exception | None = None
        self._started = 0.0

    @property
    def missing(self) -> int:
        """How many calls there are still to make, as far as is known: a repair shows only after its first answer."""
        return len(self._todo)

    @property
    def missing_tokens(self) -> int:
        """Estimated prompt tokens of the missing calls."""
        return sum(question.tokens for question in self._todo)

    def look_up(self, rows: int) -> None:
        """Take the answers of rows 0..rows-1 from the cache; what it lacks is left for `ask`."""
        questions: dict[bytes, list[int]] = {}
        tokens: dict[bytes, int] = {}
        for row in range(rows):
            prompt = self._prompt(row)
            if prompt is not None:
                key = self._key(prompt)
                questions.setdefault(key, []).append(row)
                tokens[key] = prompt.tokens
        self._rows = sum(map(len, questions.values()))
        self._todo.extend(_Question(key, tuple(same), tokens[key]) for key, same in questions.items())
        for _ in ("first answers", "repairs"):
            asked = list(self._todo)
            self._todo.clear()
            answers = self._cache.load([question.key for question in asked])
            for question in asked:
                if question.key in answers:
                    self._settle(question, answers[question.key])
                else:
                    self._todo.append(question)
        if self._retry_fallbacks:
            self._reopen_invalid()
        self.outcome.from_cache = len(self.outcome.answers)

    async def ask(self) -> None:
        """
        Ask the model for everything that is missing.

        Raises
        ------
        RunStopped
            If the server is gone, or nothing but faults comes back. Starting the run again goes on from the cache.
        BudgetReached
            If the next call could exceed the budget.
        PermanentFailure
            If the server refuses every prompt, the model or the key.
        """
        self._started = asyncio.get_running_loop().time()
        batch_size = self._backend.batch_size
        if batch_size > 1:
            # A batch takes as long as its longest prompt.
            self._todo = deque(sorted(self._todo, key=lambda question: -question.tokens))
        workers = min(self._backend.in_flight, ceil(len(self._todo) / batch_size))
        self._cache.forget(self._to_forget)
        try:
            async with asyncio.TaskGroup() as tasks:
                beat = tasks.create_task(self._until_stopped(self._beat()))
                await asyncio.gather(*(self._until_stopped(self._work()) for _ in range(workers)))
                beat.cancel()
        finally:
            await self._caller.close()
            self._cache.heartbeat(self._usage())
        if self._progress:
            self._progress(self._state())
        if isinstance(self._stop, RunStopped | BudgetReached):
            safe = f"{len(self.outcome.answers)} of {self._rows} {self._answers.name}s are safe in the cache"
            raise type(self._stop)(f"{self._stop}. {safe}; start the run again to go on from there.") from self._stop
        if self._stop:
            raise self._stop

    async def _until_stopped(self, task: Coroutine[Any, Any, None]) -> None:
        """Let the workers finish the calls they have paid for when one of them, or the heartbeat, fails."""
        try:
            await task
        except Exception as error:
            self._stop = self._stop or error

    async def _work(self) -> None:
        while batch := await self._take():
            await self._answer(batch)

    async def _take(self) -> list[_Question]:
        """Return the next questions, claimed; none when there is nothing left or the run stops."""
        while self._stop is None:
            if self._claimed:
                return [self._claimed.popleft() for _ in range(min(self._backend.batch_size, len(self._claimed)))]
            if self._todo:
                self._claim()
            elif self._held:
                # Another process asks these: nothing here can tell when it is done.
                await asyncio.sleep(_POLL_SECONDS)
                self._todo.extend(self._held)
                self._held.clear()
            else:
                break
        return []

    def _claim(self) -> None:
        size = min(self._backend.in_flight * self._backend.batch_size, len(self._todo))
        questions = [self._todo.popleft() for _ in range(size)]
        claims = self._cache.claim([question.key for question in questions])
        for question in questions:
            if question.key in claims.ours:
                self._claimed.append(question)
            elif question.key in claims.held:
                self._held.append(question)
            else:
                self._settle(question, claims.answered[question.key])

    async def _answer(self, batch: list[_Question]) -> None:
        keys = [question.key for question in batch]
        try:
            replies = await self._caller.call([self._prompt_of(question) for question in batch])
        except RunStopped:
            raise
        except (PromptRejected, TransientFailure) as error:
            self._cache.release(keys)
            for question in batch:
                self.outcome.dead.update(dict.fromkeys(question.rows, str(error)))
            self._dead_streak += len(batch)
            if self._dead_streak >= max(_MIN_DEAD_STREAK, ceil(_MAX_DEAD_SHARE * self._rows)):
                message = f"{self._dead_streak} prompts in a row failed for good, the last with: {error}"
                kind = PermanentFailure if isinstance(error, PromptRejected) else RunStopped
                raise kind(message) from error
            return
        self._dead_streak = 0
        self._cache.store(list(zip(keys, replies, strict=True)))
        for question, reply in zip(batch, replies, strict=True):
            if question.unusable:
                resampled = question.unusable[1].repeats_itself
                self.outcome.tally.resampled += resampled
                self.outcome.tally.repairs += not resampled
            self._settle(question, reply.text)

    def _prompt_of(self, question: _Question) -> Prompt:
        prompt = self._prompt(question.rows[0])
        if prompt is None:
            raise AssertionError(f"row {question.rows[0]} has lost its input during the run")
        if not question.unusable:
            return prompt
        text, fault = question.unusable
        if fault.repeats_itself:
            return replace(prompt, temperature=self._other_temperature)
        return self._answers.repair(prompt, text, fault.reason)

    def _settle(self, question: _Question, text: str) -> None:
        """Take an answer: what was wanted, or a reason to ask once more, or the end of the attempts."""
        answer = self._answers.parse(text)
        if not isinstance(answer, InvalidAnswer):
            self.outcome.answers.update(dict.fromkeys(question.rows, answer))
        elif question.unusable:
            self.outcome.invalid.update(dict.fromkeys(question.rows, answer.reason))
            self._given_up.append(question)
        else:
            unusable = (text, answer)
            repair = self._prompt_of(replace(question, unusable=unusable))
            self._todo.append(_Question(self._key(repair), question.rows, repair.tokens, unusable))

    def _reopen_invalid(self) -> None:
        """Put the first questions of rows that were given up back; `ask` forgets their answers."""
        for question in self._given_up:
            first = self._prompt_of(replace(question, unusable=None))
            self._to_forget += [self._key(first), question.key]
            self._todo.append(_Question(self._key(first), question.rows, first.tokens))
        self._given_up.clear()
        self.outcome.invalid.clear()

    async def _beat(self) -> None:
        """Keep the run's claims alive, and report progress: every second at first, every minute in a long run."""
        clock = asyncio.get_running_loop().time
        next_heartbeat = next_progress = clock()
        while True:
            now = clock()
            if now >= next_heartbeat:
                self._cache.heartbeat(self._usage())
                next_heartbeat = now + HEARTBEAT_SECONDS
            if self._progress and now >= next_progress:
                self._progress(self._state())
                next_progress = now + min(max(_TICK_SECONDS, 0.05 * (now - self._started)), _PROGRESS_SECONDS)
            await asyncio.sleep(_TICK_SECONDS)

    def _usage(self) -> Usage:
        tally = self.outcome.tally
        seconds = asyncio.get_running_loop().time() - self._started
        return Usage(tally.replies, seconds, tally.estimated_tokens, tally.prompt_tokens, tally.answer_tokens)

    def _state(self) -> Progress:
        outcome = self.outcome
        done = len(outcome.answers) + len(outcome.invalid) + len(outcome.dead)
        seconds = asyncio.get_running_loop().time() - self._started
        settled = done - outcome.from_cache
        left = (self._rows - done) * seconds / settled if settled else None
        return Progress(done, self._rows, outcome.tally.replies / max(seconds, 1e-9), left)


def run_blocking(coroutine: Coroutine[Any, Any, T]) -> T:
    """
    Run a coroutine to its end from ordinary code.

    Inside a running event loop, as in a notebook, it gets a thread with a loop of its own; an interrupt cancels it.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    task: asyncio.Task[T] | None = None

    async def main() -> T:
        nonlocal task
        task = asyncio.ensure_future(coroutine)
        return await task

    with ThreadPoolExecutor(1) as thread:
        future = thread.submit(asyncio.run, main())
        try:
            return future.result()
        except KeyboardInterrupt:
            if task:
                task.get_loop().call_soon_threadsafe(task.cancel)
            raise
