"""One call to a model, made until it is answered or fails for good: retries, pauses, budget, and the counts."""

import asyncio
from dataclasses import dataclass, replace
from math import ceil

from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from recmodels.errors import RecmodelsError, TransientFailure
from recmodels.llm.base import Backend, BudgetReached, Busy, Prompt, Reply, RunStopped, estimate_tokens
from recmodels.llm.breaker import Breaker
from recmodels.llm.config import LLMConfig

_ESTIMATE_MARGIN = 1.25
_LONGEST_ANSWER = 100_000
_MAX_BACKOFF_GROWTH = 60


@dataclass
class Tally:
    """What a run did. Every call ends as exactly one of replies, faults, busy, rejected and cancelled."""

    calls: int = 0
    """Prompts sent to the model, repetitions and repairs included."""
    replies: int = 0
    faults: int = 0
    busy: int = 0
    rejected: int = 0
    cancelled: int = 0
    """How calls ended: an answer of whatever quality; a 5xx, timeout, broken connection or unreadable reply; a 429;
    another 4xx; the run's own end."""
    repairs: int = 0
    """Answered calls that showed the model its unusable answer."""
    resampled: int = 0
    """Answered calls that asked again, sampled otherwise, as it had repeated itself."""
    outages: int = 0
    """Times the server was away and came back."""
    prompt_tokens: int = 0
    answer_tokens: int = 0
    estimated_tokens: int = 0
    """All three of the replies, as in `recmodels.llm.cache.Usage`."""


class Caller:
    """Calls a started back-end within a configuration's attempts, pauses, patience and budget, and counts the calls."""

    def __init__(self, backend: Backend, config: LLMConfig, tally: Tally) -> None:
        self._backend = backend
        self._config = config
        self._tally = tally
        self._breaker = Breaker(backend.ping, config.patience, config.backoff)
        self._reserved = (0, 0)
        self._released = asyncio.Condition()
        self._attempt = AsyncRetrying(
            retry=retry_if_exception(
                lambda error: isinstance(error, TransientFailure) and type(error) is not RunStopped
            ),
            stop=stop_after_attempt(config.max_attempts),
            wait=wait_exponential_jitter(
                multiplier=config.backoff / 2, jitter=config.backoff, max=_MAX_BACKOFF_GROWTH * config.backoff
            ),
            reraise=True,
        ).wraps(self._call_once)

    async def call(self, prompts: list[Prompt]) -> list[Reply]:
        """
        Return the answers to a batch of prompts.

        Raises
        ------
        BudgetReached
            If the call could exceed the budget.
        RunStopped
            If the server is gone or has no time.
        TransientFailure
            If all attempts failed.
        PermanentFailure
            As `Backend.answer`.
        """
        estimated = sum(prompt.tokens for prompt in prompts)
        size = ceil(_ESTIMATE_MARGIN * estimated), len(prompts) * self._config.answer_tokens
        async with self._released:
            await self._released.wait_for(lambda: self._fits(*size))
            self._reserve(*size)
        try:
            replies = await self._attempt(prompts)
            tally = self._tally
            tally.estimated_tokens += estimated
            for prompt, reply in zip(prompts, replies, strict=True):
                answer = estimate_tokens(reply.text) if reply.answer_tokens is None else reply.answer_tokens
                tally.prompt_tokens += prompt.tokens if reply.prompt_tokens is None else reply.prompt_tokens
                tally.answer_tokens += answer
            return replies
        finally:
            async with self._released:
                self._reserve(-size[0], -size[1])
                self._released.notify_all()

    async def close(self) -> None:
        """Stop looking for the server, and count its outages."""
        await self._breaker.close()
        self._tally.outages = self._breaker.outages

    def _reserve(self, prompt_tokens: int, answer_tokens: int) -> None:
        self._reserved = self._reserved[0] + prompt_tokens, self._reserved[1] + answer_tokens

    def _fits(self, prompt_tokens: int, answer_tokens: int) -> bool:
        """Tell whether a call of this size fits into the budget beside those in flight. Raise if it never will."""
        config, tally = self._config, self._tally
        prompts, answers = self._reserved
        if config.within_budget(
            tally.prompt_tokens + prompts + prompt_tokens, tally.answer_tokens + answers + answer_tokens
        ):
            return True
        if answers:  # calls in flight usually take less than was set aside for them
            return False
        used: list[str] = []
        if config.budget_tokens is not None:
            used.append(f"{tally.prompt_tokens + tally.answer_tokens} of {config.budget_tokens} tokens")
        if config.budget_cost is not None:
            used.append(f"{config.cost(tally.prompt_tokens, tally.answer_tokens):.4f} of {config.budget_cost}")
        raise BudgetReached(f"the budget is used up ({', '.join(used)}) and the next call could exceed it")

    async def _call_once(self, prompts: list[Prompt]) -> list[Reply]:
        """Call the model until it answers or fails by its own fault: a 429 and an outage are waited for."""
        tally = self._tally
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
