"""How a server with a JSON API is called: through aiohttp, with every fault sorted by what can be done about it."""

import asyncio
import json
from collections.abc import Mapping
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import httpx

from recmodels.errors import TransientFailure
from recmodels.io.retry_after import retry_after_seconds
from recmodels.llm.base import Unreachable
from recmodels.llm.config import LLMConfig
from recmodels.llm.faults import raise_for_status

_CONNECT_SECONDS = 10.0
_SPARE_CONNECTIONS = 4


class JsonServer:
    """
    One server; its connections are opened with the first call.

    Plain aiohttp: with 64 calls in flight the client's own work bounds the rate, and a layer of httpx above it doubles
    that work. Proxies of the environment (``HTTP_PROXY``, ``HTTPS_PROXY``, ``NO_PROXY``) are used; they are looked up
    once, where aiohttp would start a thread for every call. Redirects are not followed.

    Parameters
    ----------
    address
        What every path is appended to.
    config
        Calls in flight, seconds a call may take, and the model's name for messages.
    headers
        Sent with every call.
    """

    def __init__(self, address: str, config: LLMConfig, headers: Mapping[str, str] | None = None) -> None:
        self.address = address
        self._config = config
        self._headers = {"Content-Type": "application/json", **(headers or {})}
        self._session: aiohttp.ClientSession | None = None

    async def call(
        self, method: str, path: str, body: Mapping[str, object] | None = None, *, optional: bool = False
    ) -> bytes:
        """
        Return the body of a response; with `optional` an empty one from a server that has no such path.

        Raises
        ------
        Busy, TransientFailure
            If trying again can help; Unreachable if the connection broke.
        PermanentFailure
            As `recmodels.llm.faults.raise_for_status`.
        """
        session = self._session = self._session or self._open()
        data = None if body is None else json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
        try:
            async with (
                asyncio.timeout(self._config.timeout),
                session.request(method, self.address + path, data=data, allow_redirects=False) as response,
            ):
                content = await response.read()
        except (aiohttp.ConnectionTimeoutError, ConnectionError) as error:
            raise Unreachable(f"{self.address} cannot be reached: {error or type(error).__name__}") from error
        except TimeoutError as error:
            raise TransientFailure(f"{self.address} did not answer in time") from error
        except aiohttp.ClientError as error:
            raise Unreachable(f"{self.address} cannot be reached: {error or type(error).__name__}") from error
        if optional and response.status in (404, 405):
            return b""
        wait = retry_after_seconds(response.headers.get("Retry-After"))
        raise_for_status(response.status, content, wait, address=self.address, model=self._config.model)
        return content

    async def close(self) -> None:
        """Close the connections."""
        if self._session:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        server, seconds = urlsplit(self.address), self._config.timeout
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=self._config.in_flight + _SPARE_CONNECTIONS, ssl=httpx.create_ssl_context()
            ),
            headers=self._headers,
            timeout=aiohttp.ClientTimeout(sock_connect=min(seconds, _CONNECT_SECONDS), sock_read=seconds),
            cookie_jar=aiohttp.DummyCookieJar(),
            proxy=None if proxy_bypass(server.hostname or "") else getproxies().get(server.scheme),
        )
