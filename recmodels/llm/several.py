"""Several servers of one model behind the protocol of a back-end: each call goes to the one that has least to do."""

import asyncio
import time
from collections.abc import Mapping, Sequence

from recmodels.errors import InputError
from recmodels.llm.base import Backend, Busy, Prompt, Reply, Unreachable

_REST_SECONDS = 10.0
"""How long a server that cannot be reached is not asked, unless a ping reaches it; a busy one may name its own."""


class SeveralServers:
    """
    Servers of one model, which have to have the same weights: an answer is kept as the model's, whoever gave it.

    A server that cannot be reached, or is busy, rests while others answer its calls; faults of all of them at once are
    those of the whole. There may be as many calls in flight as all of them together allow.
    """

    def __init__(self, servers: Sequence[Backend]) -> None:
        self._servers = list(servers)
        self._calls = [0] * len(self._servers)
        self._rests_until = [0.0] * len(self._servers)
        self.model = self._servers[0].model
        self.address = ", ".join(server.address for server in self._servers)
        self.batch_size = self._servers[0].batch_size
        self.in_flight = sum(server.in_flight for server in self._servers)
        self.parameters: Mapping[str, object] = self._servers[0].parameters

    async def start(self) -> str:
        """
        Return the digest of the model.

        Raises
        ------
        InputError
            If a server lacks the model, or has another under its name.
        TransientFailure
            If a server does not answer.
        """
        digests = await asyncio.gather(*(server.start() for server in self._servers))
        for server, digest in zip(self._servers, digests, strict=True):
            if digest != digests[0]:
                raise InputError(
                    f"model {self.model!r} at {server.address}",
                    expected=f"the weights that {self._servers[0].address} has, digest {digests[0]}",
                    found=f"digest {digest}",
                    action="Load the same model on all servers of the setting server, or name one of them.",
                )
        return digests[0]

    async def answer(self, prompts: Sequence[Prompt]) -> list[Reply]:
        """Answer by the server with the fewest calls in flight; where that is away or busy, by the next."""
        failure: Unreachable | Busy | None = None
        for _ in self._servers:
            now = time.monotonic()
            awake = [at for at, until in enumerate(self._rests_until) if until <= now]
            # Where all rest one is asked all the same: the run decides how long it waits for what it says.
            if failure and not awake:
                break
            chosen = min(awake or range(len(self._servers)), key=self._calls.__getitem__)
            self._calls[chosen] += 1
            try:
                return await self._servers[chosen].answer(prompts)
            except (Unreachable, Busy) as error:
                failure = error
                rest = error.retry_after if isinstance(error, Busy) else None
                self._rests_until[chosen] = time.monotonic() + (_REST_SECONDS if rest is None else rest)
            finally:
                self._calls[chosen] -= 1
        assert failure is not None  # noqa: S101 - every server was asked and failed
        raise failure

    async def ping(self) -> None:
        """Return if one of them is there; those that are rest no longer."""
        found = await asyncio.gather(*(server.ping() for server in self._servers), return_exceptions=True)
        for at, error in enumerate(found):
            if error is None:
                self._rests_until[at] = 0.0
        if all(found):
            raise next(error for error in found if error)

    async def close(self) -> None:
        """Close the connections to all of them."""
        await asyncio.gather(*(server.close() for server in self._servers))
