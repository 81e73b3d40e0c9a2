"""A circuit breaker: calls pause while the server is away or busy, and the run stops when it stays so."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from recmodels.errors import PermanentFailure, TransientFailure
from recmodels.llm.base import Busy, RunStopped, Unreachable

_STREAK = 8
_FIRST_PROBE = 0.1
_LONGEST_PROBE = 5.0
_PING_SECONDS = 10.0
_MAX_DOUBLINGS = 6


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

    Attributes
    ----------
    outages
        Times the server was away.
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
        self._closed = asyncio.Event()
        self._closed.set()
        self._stopped: RunStopped | None = None
        self._waiting: asyncio.Task[None] | None = None

    async def ready(self) -> None:
        """Return when a call may be made. Raise RunStopped when there is no point in waiting."""
        while not self._closed.is_set():
            await self._closed.wait()
            if not self._stopped:
                # The jitter keeps all callers from coming back in the same instant.
                await asyncio.sleep(self._backoff * random.random())  # noqa: S311
        if self._stopped:
            raise self._stopped

    def succeeded(self) -> None:
        """Note an answered call."""
        self._streak = 0
        self._busy_since = None
        self._busy_rounds = 0

    def failed(self, fault: TransientFailure) -> None:
        """Note a failed call."""
        if isinstance(fault, Busy):
            self._leave_alone(fault)
            return
        self._streak += 1
        if isinstance(fault, Unreachable) or self._streak % _STREAK == 0:
            self._open_until(self._server_answers)

    async def close(self) -> None:
        """Stop pinging."""
        if self._waiting:
            self._waiting.cancel()
            await asyncio.wait([self._waiting])

    def _leave_alone(self, fault: Busy) -> None:
        now = asyncio.get_running_loop().time()
        self._busy_since = now if self._busy_since is None else self._busy_since
        if now >= self._resume_at:
            self._busy_rounds = min(self._busy_rounds + 1, _MAX_DOUBLINGS)
        wait = self._backoff * 2.0**self._busy_rounds if fault.retry_after is None else fault.retry_after
        self._resume_at = max(self._resume_at, now + wait)
        if self._resume_at - self._busy_since > self._patience:
            self._stop(f"the server has no time: {fault}")
        self._open_until(self._time_is_up)

    def _stop(self, reason: str) -> None:
        self._stopped = RunStopped(reason)
        self._closed.set()

    def _open_until(self, condition: Callable[[], Coroutine[Any, Any, None]]) -> None:
        if self._closed.is_set() and not self._stopped:
            self._closed.clear()
            self._waiting = asyncio.create_task(condition())
            self._waiting.add_done_callback(lambda _: self._closed.set())

    async def _time_is_up(self) -> None:
        while (wait := self._resume_at - asyncio.get_running_loop().time()) > 0:
            await asyncio.sleep(wait)

    async def _server_answers(self) -> None:
        clock = asyncio.get_running_loop().time
        deadline, longest, missed = clock() + self._patience, _FIRST_PROBE, False
        while True:
            try:
                await asyncio.wait_for(self._ping(), _PING_SECONDS)
                break
            except (Busy, PermanentFailure):
                break  # whatever it says, it is there
            except (TransientFailure, TimeoutError) as fault:
                self.outages += not missed
                missed = True
                wait = longest * random.random()  # noqa: S311
                if clock() + wait > deadline:
                    self._stop(f"the server has been away for {self._patience:g} s: {fault}")
                    return
            await asyncio.sleep(wait)
            longest = min(2 * longest, _LONGEST_PROBE)
        await self._time_is_up()
