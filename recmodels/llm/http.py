"""How a server with a JSON API is called: through aiohttp, with every fault sorted by what can be done about it."""

import asyncio
import json
from collections.abc import Mapping
from typing import TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import httpx
from pydantic import BaseModel, ValidationError

from recmodels.errors import InputError, PermanentFailure, TransientFailure
from recmodels.io.retry_after import retry_after_seconds
from recmodels.llm.base import Busy, PromptRejected, Unreachable
from recmodels.llm.config import LLMConfig

_CONNECT_SECONDS = 10.0
_SPARE_CONNECTIONS = 4

Answer = TypeVar("Answer", bound=BaseModel)


class JsonServer:
    """
    One server; its connections are opened with the first call.

    Plain aiohttp: with 64 calls in flight the client's own work bounds the rate, and a layer of httpx above it doubles
    that work. Proxies of the environment (``HTTP_PROXY``, ``HTTPS_PROXY``, ``NO_PROXY``) are used; they are looked up
    once, where aiohttp would start a thread for every call. Redirects are not followed. Paths are appended to the
    address, headers sent with every call; of the configuration the calls in flight, the seconds a call may take and the
    model's name, for messages, count.
    """

    def __init__(self, address: str, config: LLMConfig, headers: Mapping[str, str] | None = None) -> None:
        self.address = address
        self._config = config
        self._headers = {"Content-Type": "application/json", **(headers or {})}
        self._session: aiohttp.ClientSession | None = None

    async def call(
        self, method: str, path: str, answer: type[Answer], body: Mapping[str, object] | None = None
    ) -> Answer:
        """
        Return what a server answers, as a pydantic class reads it.

        Raises
        ------
        Busy, TransientFailure
            If trying again can help; Unreachable if the connection broke.
        PermanentFailure
            As `raise_for_status`.
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
        wait = retry_after_seconds(response.headers.get("Retry-After"))
        raise_for_status(response.status, content, wait, address=self.address, model=self._config.model)
        try:
            return answer.model_validate_json(content)
        except ValidationError as error:
            raise TransientFailure(f"{self.address} sent an unreadable reply ({type(error).__name__})") from error

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


def raise_for_status(status: int, body: bytes, retry_after: float | None, *, address: str, model: str) -> None:
    """
    Raise the fault that a status of 400 or more stands for.

    Raises
    ------
    Busy
        429.
    TransientFailure
        408, 409, 425 and 5xx.
    InputError
        404: the address or the model is not there.
    PermanentFailure
        401 and 403.
    PromptRejected
        Any other 4xx.
    """
    if status < 400:
        return
    message = f"{address} answered {status}: {' '.join(body.decode(errors='replace').split())[:300]}"
    if status == 429:
        raise Busy(message, retry_after)
    if status in (408, 409, 425) or status >= 500:
        raise TransientFailure(message)
    if status in (401, 403):
        raise PermanentFailure(f"{message}. Check the key in the variable that the setting api_key_variable names.")
    if status == 404:
        raise InputError(
            f"model {model!r}",
            expected=f"a model that {address} serves",
            found=message,
            action="Check the settings server and model, or load the model on the server.",
        )
    raise PromptRejected(message)
