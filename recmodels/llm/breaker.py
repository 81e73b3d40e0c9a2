"""A circuit breaker: calls pause while the server is away, and the run stops when it stays away."""

import asyncio
import random
from collections.abc import Awaitable, Callable

from recmodels.errors import PermanentFailure, TransientFailure
from recmodels.llm.backend import Busy, PromptRejected

_STREAK = 8
_FIRST_PROBE = 0.05
_LONGEST_PROBE = 5.0
_PING_SECONDS = 10.0
_MAX_DOUBLINGS = 6


class Unreachable(TransientFailure):
    """The server cannot be reached, or went away during a call."""


class RunStopped(TransientFailure):
    """A run cannot go on now. What it has paid for is in the cache, and starting it again goes on from there."""


class Breaker:
    """
    Decides whether calls may be made.

    It opens on a connection fault, or after eight faults in a row. While it is open nothing but `ping` reaches the
    server, at growing intervals; the first ping that succeeds closes it. If none does within `patience` seconds, or the
    server asks for more patience than that, every caller gets RunStopped.

    Parameters
    ----------
    ping
        Returns if the server is there, raises TransientFailure if not.
    patience
        Seconds.
    backoff
        Seconds to leave a server alone that says 429 without saying for how long; doubles while it keeps saying so.
    """

    def __init__(self, ping: Callable[[], Awaitable[None]], patience: float, backoff: float) -> None:
        self.outages = 0
        self._ping = ping
        self._patience = patience
        self._backoff = backoff
        self._busy_rounds = 0
        self._streak = 0
        self._busy_since: float | None = None
        self._resume_at = 0.0
        self._stopped: RunStopped | None = None
        self._probe: asyncio.Task[None] | None = None

    async def ready(self) -> None:
        """Return when a call may be made. Raise RunStopped when there is no point in waiting."""
        while True:
            if self._stopped:
                raise self._stopped
            if self._probe:
                await asyncio.wait([self._probe])
                continue
            wait = self._resume_at - asyncio.get_running_loop().time()
            if wait <= 0:
                return
            # The jitter keeps all callers from coming back in the same instant.
            await asyncio.sleep(wait * (1.0 + 0.1 * random.random()))  # noqa: S311

    def succeeded(self) -> None:
        """Note an answered call."""
        self._streak = 0
        self._busy_since = None
        self._busy_rounds = 0

    def failed(self, fault: TransientFailure) -> None:
        """Note a failed call."""
        now = asyncio.get_running_loop().time()
        if isinstance(fault, Busy):
            if self._busy_since is None:
                self._busy_since = now
            if now >= self._resume_at:
                self._busy_rounds = min(self._busy_rounds + 1, _MAX_DOUBLINGS)
            wait = self._backoff * 2.0**self._busy_rounds if fault.retry_after is None else fault.retry_after
            self._resume_at = max(self._resume_at, now + wait)
            if self._resume_at - self._busy_since > self._patience:
                self._stopped = RunStopped(f"the server has no time: {fault}")
            return
        self._streak += 1
        if self._probe is None and (isinstance(fault, Unreachable) or self._streak % _STREAK == 0):
            self._probe = asyncio.create_task(self._wait_for_server(fault))

    async def close(self) -> None:
        """Stop pinging."""
        if self._probe:
            self._probe.cancel()
            await asyncio.wait([self._probe])

    async def _wait_for_server(self, fault: TransientFailure) -> None:
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._patience
        pause = _FIRST_PROBE
        missed = False
        try:
            while True:
                try:
                    await asyncio.wait_for(self._ping(), _PING_SECONDS)
                except (Busy, PermanentFailure, PromptRejected):
                    return
                except TimeoutError:
                    missed = True
                except TransientFailure as error:
                    fault = error
                    missed = True
                else:
                    return
                if clock() + pause > deadline:
                    self._stopped = RunStopped(f"the server has been away for {self._patience:g} s: {fault}")
                    return
                await asyncio.sleep(pause * (0.5 + random.random()))  # noqa: S311
                pause = min(2 * pause, _LONGEST_PROBE)
        finally:
            self.outages += missed
            self._probe = None
