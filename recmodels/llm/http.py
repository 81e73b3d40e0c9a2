"""How the servers are reached: httpx clients whose requests go through aiohttp."""

from typing import Any

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

from recmodels.llm.config import LLMConfig

_CONNECT_SECONDS = 10.0
_SPARE_CONNECTIONS = 4


def client_options(config: LLMConfig) -> dict[str, Any]:
    """
    Return the options of an `httpx.AsyncClient` for a run with this configuration.

    The connections are aiohttp's: with 64 calls in flight httpx's own pool takes milliseconds a call. Proxies of the
    environment (``HTTP_PROXY``, ``HTTPS_PROXY``, ``NO_PROXY``) are used; redirects are not followed.
    """

    def session() -> aiohttp.ClientSession:
        limit = config.in_flight + _SPARE_CONNECTIONS
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=limit, ssl=httpx.create_ssl_context()),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=True,
        )

    return {
        "transport": AiohttpTransport(client=session),
        "timeout": httpx.Timeout(config.timeout, connect=min(config.timeout, _CONNECT_SECONDS)),
        "follow_redirects": False,
    }
