"""Asking a language model for every profile that the cache lacks: concurrent, resumable, within a budget."""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from math import ceil
from typing import Any, TypeVar

from recmodels.errors import PermanentFailure, RecmodelsError, TransientFailure
from recmodels.llm.backend import Backend, Busy, PromptRejected, Reply
from recmodels.llm.breaker import Breaker, RunStopped
from recmodels.llm.cache import HEARTBEAT_SECONDS, CallCache, Usage
from recmodels.profiles.answers import ProfileAnswer, parse_answer, repair_prompt
from recmodels.profiles.config import MAX_FALLBACK_SHARE, ProfileConfig
from recmodels.profiles.inputs import estimate_tokens
from recmodels.profiles.prompts import Prompt

_MIN_DEAD_STREAK = 16
_POLL_SECONDS = 0.2
_TICK_SECONDS = 1.0
_PROGRESS_SECONDS = 60.0
_BUDGET_POLL_SECONDS = 0.02
_ESTIMATE_MARGIN = 1.25
_LONGEST_ANSWER = 100_000

T = TypeVar("T")


class BudgetReached(PermanentFailure):
    """The next call could exceed the budget. What has been paid for is in the cache."""


@dataclass(frozen=True)
class Progress:
    """How far a run is: rows with a profile, of how many; answered calls a second; seconds left, None if unknown."""

    done: int
    total: int
    rate: float
    seconds_left: float | None


ProgressCallback = Callable[[Progress], None]


@dataclass
class Tally:
    """
    What a run did. Every call ends as exactly one of replies, faults, busy, rejected and cancelled.

    Parameters
    ----------
    calls
        Prompts sent to the model, repetitions and repairs included.
    replies, faults, busy, rejected, cancelled
        How they ended: an answer of whatever quality; a 5xx, timeout, broken connection or unreadable reply; a 429;
        another 4xx; the run's own end.
    repairs
        Calls that showed the model its unusable answer.
    outages
        Times the server was away and came back.
    prompt_tokens, answer_tokens, estimated_tokens
        Of the replies, as in `Usage`.
    """

    calls: int = 0
    replies: int = 0
    faults: int = 0
    busy: int = 0
    rejected: int = 0
    cancelled: int = 0
    repairs: int = 0
    outages: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0
    estimated_tokens: int = 0


@dataclass
class Outcome:
    """
    What became of every row that had a prompt.

    Parameters
    ----------
    profiles
        Profile by row, for rows whose answer is valid.
    from_cache
        Rows that needed no call of this run at its start.
    invalid
        Why the answer could not be used, for rows whose repair was invalid too.
    dead
        Why no answer came, for rows whose calls failed for good.
    tally
        Counts of calls.
    """

    profiles: dict[int, str] = field(default_factory=dict[int, str])
    from_cache: int = 0
    invalid: dict[int, str] = field(default_factory=dict[int, str])
    dead: dict[int, str] = field(default_factory=dict[int, str])
    tally: Tally = field(default_factory=Tally)


@dataclass(frozen=True)
class _Question:
    """A call to make: its key, the rows it is for (they share one prompt), and the unusable answer it should repair."""

    key: bytes
    rows: tuple[int, ...]
    tokens: int
    unusable: tuple[str, str] | None = None


class ProfileRun:
    """
    One run over the rows of a table.

    Parameters
    ----------
    backend
        A started back-end.
    cache
        The open cache, inside `CallCache.run` if calls are to be made.
    config
        Bounds.
    prompt
        The prompt of a row, None for a row without input. Called again for a row rather than kept.
    key
        The cache key of a prompt.
    progress
        Called at the start, then every second to every minute, and at the end.
    """

    def __init__(
        self,
        backend: Backend,
        cache: CallCache,
        config: ProfileConfig,
        prompt: Callable[[int], Prompt | None],
        key: Callable[[Prompt], bytes],
        progress: ProgressCallback | None = None,
    ) -> None:
        self.outcome = Outcome()
        self._backend = backend
        self._cache = cache
        self._config = config
        self._prompt = prompt
        self._key = key
        self._progress = progress
        self._breaker = Breaker(backend.ping, config.patience, config.backoff)
        self._todo: deque[_Question] = deque()
        self._claimed: deque[_Question] = deque()
        self._held: list[_Question] = []
        self._given_up: list[_Question] = []
        self._to_forget: list[bytes] = []
        self._reserved_prompt_tokens = 0
        self._reserved_answer_tokens = 0
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
        if self._config.retry_fallbacks:
            self._reopen_invalid()
        self.outcome.from_cache = len(self.outcome.profiles)

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
        clock = asyncio.get_running_loop().time
        self._started = clock()
        batch_size = self._backend.batch_size
        if batch_size > 1:
            # A batch takes as long as its longest prompt.
            self._todo = deque(sorted(self._todo, key=lambda question: -question.tokens))
        workers = min(self._backend.in_flight, ceil(len(self._todo) / batch_size))
        self._cache.forget(self._to_forget)
        beat = asyncio.create_task(self._beat())
        try:
            await asyncio.gather(*(self._work() for _ in range(workers)))
        finally:
            beat.cancel()
            await self._breaker.close()
            self.outcome.tally.outages = self._breaker.outages
            self._cache.heartbeat(self._usage())
        if self._progress:
            self._progress(self._state())
        if isinstance(self._stop, RunStopped):
            raise RunStopped(f"{self._stop}. {self._resume_note()}") from self._stop
        if self._stop:
            raise self._stop

    async def _work(self) -> None:
        try:
            while batch := await self._take():
                await self._answer(batch)
        except Exception as error:
            # The other workers finish the calls they have paid for; then `ask` raises.
            self._stop = self._stop or error

    async def _take(self) -> list[_Question]:
        """Return the next questions, claimed; none when there is nothing left or the run stops."""
        while self._stop is None:
            if self._claimed:
                return [self._claimed.popleft() for _ in range(min(self._backend.batch_size, len(self._claimed)))]
            if self._todo:
                self._claim()
            elif self._held:
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
        tally = self.outcome.tally
        keys = [question.key for question in batch]
        try:
            replies = await self._call([self._prompt_of(question) for question in batch])
        except RunStopped:
            raise
        except (PromptRejected, TransientFailure) as error:
            self._cache.release(keys)
            for question in batch:
                self.outcome.dead.update(dict.fromkeys(question.rows, str(error)))
            self._dead_streak += len(batch)
            limit = max(_MIN_DEAD_STREAK, ceil(MAX_FALLBACK_SHARE * self._rows))
            if self._dead_streak >= limit:
                message = f"{self._dead_streak} prompts in a row failed for good, the last with: {error}"
                kind = PermanentFailure if isinstance(error, PromptRejected) else RunStopped
                raise kind(message) from error
            return
        self._dead_streak = 0
        self._cache.store(list(zip(keys, replies, strict=True)))
        for question, reply in zip(batch, replies, strict=True):
            tally.repairs += question.unusable is not None
            self._settle(question, reply.text)

    async def _call(self, prompts: list[Prompt]) -> list[Reply]:
        """Answer the prompts, with repetitions, and note what they took."""
        tally = self.outcome.tally
        estimated = sum(prompt.tokens for prompt in prompts)
        prompt_bound = ceil(_ESTIMATE_MARGIN * estimated)
        answer_bound = len(prompts) * self._config.answer_tokens
        await self._await_budget(prompt_bound, answer_bound)
        self._reserved_prompt_tokens += prompt_bound
        self._reserved_answer_tokens += answer_bound
        try:
            replies = await self._persist(prompts)
        finally:
            self._reserved_prompt_tokens -= prompt_bound
            self._reserved_answer_tokens -= answer_bound
        tally.estimated_tokens += estimated
        for prompt, reply in zip(prompts, replies, strict=True):
            tally.prompt_tokens += prompt.tokens if reply.prompt_tokens is None else reply.prompt_tokens
            tally.answer_tokens += estimate_tokens(reply.text) if reply.answer_tokens is None else reply.answer_tokens
        return replies

    async def _persist(self, prompts: list[Prompt]) -> list[Reply]:
        """Repeat a failing call, after exponentially growing pauses with jitter."""
        pause = self._config.backoff
        for _ in range(self._config.max_attempts - 1):
            try:
                return await self._attempt(prompts)
            except RunStopped:
                raise
            except TransientFailure:
                await asyncio.sleep(pause * (0.5 + random.random()))  # noqa: S311
                pause = min(2 * pause, 60 * self._config.backoff)
        return await self._attempt(prompts)

    async def _attempt(self, prompts: list[Prompt]) -> list[Reply]:
        """Call the model until it answers or fails by its own fault: a 429 and an outage are waited for."""
        tally = self.outcome.tally
        while True:
            await self._breaker.ready()
            outages = self._breaker.outages
            tally.calls += len(prompts)
            try:
                replies = await self._backend.answer(prompts)
            except Busy as error:
                tally.busy += len(prompts)
                self._breaker.failed(error)
            except TransientFailure as error:
                tally.faults += len(prompts)
                self._breaker.failed(error)
                await self._breaker.ready()
                if self._breaker.outages == outages:
                    raise
            except RecmodelsError:
                tally.rejected += len(prompts)
                raise
            except BaseException:
                tally.cancelled += len(prompts)
                raise
            else:
                tally.replies += len(prompts)
                self._breaker.succeeded()
                # An endless answer is cut before it is read, so that the cache gives back exactly what was read.
                return [replace(reply, text=reply.text[:_LONGEST_ANSWER]) for reply in replies]

    async def _await_budget(self, prompt_tokens: int, answer_tokens: int) -> None:
        """Return when a call of this size fits into the budget beside those in flight. Raise if it never will."""
        config, tally = self._config, self.outcome.tally
        while True:
            prompts = tally.prompt_tokens + self._reserved_prompt_tokens + prompt_tokens
            answers = tally.answer_tokens + self._reserved_answer_tokens + answer_tokens
            over = ""
            if config.budget_tokens is not None and prompts + answers > config.budget_tokens:
                over = f"{tally.prompt_tokens + tally.answer_tokens} of {config.budget_tokens} tokens"
            elif config.budget_cost is not None and config.cost(prompts, answers) > config.budget_cost:
                over = f"{config.cost(tally.prompt_tokens, tally.answer_tokens):.4f} of {config.budget_cost}"
            if not over:
                return
            if self._reserved_answer_tokens == 0:
                raise BudgetReached(
                    f"the budget is used up ({over}) and the next call could exceed it. {self._resume_note()}"
                )
            # Calls in flight usually take less than was set aside for them.
            await asyncio.sleep(_BUDGET_POLL_SECONDS)

    def _prompt_of(self, question: _Question) -> Prompt:
        prompt = self._prompt(question.rows[0])
        if prompt is None:
            raise AssertionError(f"row {question.rows[0]} has lost its input during the run")
        return repair_prompt(prompt, *question.unusable) if question.unusable else prompt

    def _settle(self, question: _Question, text: str) -> None:
        """Take an answer: a profile, or a reason to ask once more, or the end of the attempts."""
        answer = parse_answer(text)
        if isinstance(answer, ProfileAnswer):
            self.outcome.profiles.update(dict.fromkeys(question.rows, answer.summarization))
        elif question.unusable:
            self.outcome.invalid.update(dict.fromkeys(question.rows, answer.reason))
            self._given_up.append(question)
        else:
            unusable = (text, answer.reason)
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

    def _resume_note(self) -> str:
        return (
            f"{len(self.outcome.profiles)} of {self._rows} profiles are safe in the cache; "
            "start the run again to go on from there."
        )

    def _usage(self) -> Usage:
        tally = self.outcome.tally
        seconds = asyncio.get_running_loop().time() - self._started
        return Usage(tally.replies, seconds, tally.estimated_tokens, tally.prompt_tokens, tally.answer_tokens)

    def _state(self) -> Progress:
        outcome = self.outcome
        done = len(outcome.profiles) + len(outcome.invalid) + len(outcome.dead)
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
