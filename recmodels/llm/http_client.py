"""The HTTP client of the language model servers."""

import json as jsonlib
from typing import Any

import aiohttp
import httpx

from recmodels.profiles.config import ProfileConfig

_CONNECT_SECONDS = 10.0
_SPARE_CONNECTIONS = 4


class JsonClient(httpx.AsyncClient):
    """
    An httpx client for a JSON API whose requests go straight to aiohttp.

    With 64 calls in flight the client's own work bounds the rate: httpx's connection pool takes milliseconds a call,
    and what comes before it (joining addresses, cookies, redirects, flows of authentication) half of the rest. None of
    that is needed to post JSON to two addresses, so `request` leaves it out. Redirects are not followed.

    Parameters
    ----------
    in_flight
        Calls at a time.
    options
        Options of `httpx.AsyncClient`. Of its timeout, ``connect`` and ``read`` are kept.
    """

    def __init__(self, *, in_flight: int, **options: Any) -> None:
        super().__init__(**options)
        self._connections = in_flight + _SPARE_CONNECTIONS
        self._targets: dict[tuple[str, str], httpx.Request] = {}
        self._session: aiohttp.ClientSession | None = None

    async def request(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, method: str, url: str, *, json: Any = None
    ) -> httpx.Response:
        """
        Send one request and read its response; `url` may be relative to the client's base.

        Raises
        ------
        aiohttp.ClientError, TimeoutError
            If there is no complete response.
        """
        target = self._targets.get((method, url))
        if target is None:
            target = self._targets[method, url] = self.build_request(method, url)
        session = self._session = self._session or self._open()
        body = None if json is None else jsonlib.dumps(json, ensure_ascii=False, separators=(",", ":")).encode()
        async with session.request(method, str(target.url), data=body, allow_redirects=False) as answer:
            content = await answer.read()
        response = httpx.Response(answer.status, headers=answer.raw_headers, content=content, request=target)
        for hook in self.event_hooks["response"]:
            await hook(response)
        return response

    async def aclose(self) -> None:
        """Close the connections."""
        if self._session:
            await self._session.close()
        await super().aclose()

    def _open(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._connections, ssl=httpx.create_ssl_context()),
            headers={**self.headers, "Content-Type": "application/json"},
            timeout=aiohttp.ClientTimeout(sock_connect=self.timeout.connect, sock_read=self.timeout.read),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )


def connection_options(config: ProfileConfig) -> dict[str, Any]:
    """Return the options of a `JsonClient` for a run with this configuration."""
    return {
        "in_flight": config.in_flight,
        "timeout": httpx.Timeout(config.timeout, connect=min(config.timeout, _CONNECT_SECONDS)),
    }
