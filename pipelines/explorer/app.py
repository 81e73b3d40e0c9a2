"""
The application: the page, the API and the report, for one server on this machine.

Only what is asked of the machine itself is answered: a request whose Host is another name, as after a DNS rebinding, is
refused. Pages load nothing from elsewhere, apart from pictures where the reader has asked for them.
"""

import functools
import ipaddress
import os
import socket
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

import anyio.to_thread
import psutil
from anyio import CapacityLimiter
from jinja2 import Environment
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipelines.explorer.endpoints import ENDPOINTS, Endpoint, openapi
from pipelines.explorer.results import Results
from recmodels.errors import InputError, MissingObject, RecmodelsError
from recmodels.validation import validated

LOOPBACK = ("127.0.0.1", "localhost", "::1", "[::1]")

_NOTHING = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_PAGE = f"{_NOTHING}; script-src 'self'; style-src 'self'; connect-src 'self'"
POLICY = f"{_PAGE}; img-src 'none'"
POLICY_WITH_PICTURES = f"{_PAGE}; img-src http: https:"
REPORT_POLICY = f"{_NOTHING}; style-src 'unsafe-inline'; img-src data:; sandbox"
_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
    "content-security-policy": POLICY,
}
_STATIC = {"explorer.css": "text/css", "explorer.js": "text/javascript"}
_WORKERS = 8

_Respond = Callable[[Request], Awaitable[Response]]


def explorer_app(results: Results, hosts: list[str] | None = None) -> Starlette:
    """Return the application over results; `hosts` are the names it may be asked for under, by default loopback's."""
    static = files("pipelines.explorer") / "static"
    page = (static / "explorer.html").read_text()
    docs = Environment(autoescape=True).from_string((static / "docs.html.j2").read_text()).render(api=openapi())
    # What is asked all the time gets as many threads as there are cores: more would only take turns.
    quick, limiter = CapacityLimiter(os.cpu_count() or 1), CapacityLimiter(_WORKERS)

    async def show_page(request: Request) -> Response:
        pictures = request.query_params.get("pictures") == "1"
        return HTMLResponse(page, headers={"content-security-policy": POLICY_WITH_PICTURES if pictures else POLICY})

    async def show_docs(_: Request) -> Response:
        return HTMLResponse(docs)

    async def show_openapi(_: Request) -> Response:
        return JSONResponse(openapi())

    async def no_icon(_: Request) -> Response:
        return Response(status_code=204)

    async def show_report(request: Request) -> Response:
        look_up = functools.partial(results.report, request.path_params["dataset"])
        path = await anyio.to_thread.run_sync(look_up, limiter=limiter)
        return FileResponse(path, media_type="text/html", headers={"content-security-policy": REPORT_POLICY})

    return Starlette(
        routes=[
            Route("/", show_page),
            Route("/docs", show_docs),
            Route("/openapi.json", show_openapi),
            Route("/favicon.ico", no_icon),
            Route("/report/{dataset}", show_report),
            *(Route(f"/{name}", _served((static / name).read_text(), kind)) for name, kind in _STATIC.items()),
            *(
                Route(endpoint.path, _answering(endpoint, results, quick if endpoint.quick else limiter))
                for endpoint in ENDPOINTS
            ),
        ],
        middleware=[
            Middleware(_Headers),
            Middleware(TrustedHostMiddleware, allowed_hosts=hosts or list(LOOPBACK), www_redirect=False),
        ],
        exception_handlers={RecmodelsError: _refusal},
    )


def own_names(host: str, address: str = "") -> list[str]:
    """Return the names under which a server that listens on a host, or is found at an address, may be asked for."""
    names = [host, f"[{host}]", *LOOPBACK]
    try:
        known_as = urlsplit(address).hostname
    except ValueError as error:
        expected = "where browsers find it, such as https://explorer.example"
        raise InputError("address of the explorer", expected=expected, found=repr(address)) from error
    names += [known_as] if known_as else []
    if not is_loopback(host):
        addresses = [address.address for found in psutil.net_if_addrs().values() for address in found]
        names += [socket.gethostname(), *addresses]
    return list(dict.fromkeys(name.lower() for name in names if "*" not in name))


def is_loopback(host: str) -> bool:
    """Tell whether an address is reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _served(text: str, kind: str) -> _Respond:
    async def respond(_: Request) -> Response:
        return Response(text, media_type=kind)

    return respond


def _answering(endpoint: Endpoint, results: Results, limiter: CapacityLimiter) -> _Respond:
    def answer(given: dict[str, Any]) -> Response:
        return JSONResponse(endpoint.respond(results, validated(endpoint.question, given, "parameters")))

    async def respond(request: Request) -> Response:
        given = dict(request.query_params)
        return await anyio.to_thread.run_sync(functools.partial(answer, given), limiter=limiter)

    return respond


async def _refusal(_: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, status_code=404 if isinstance(error, MissingObject) else 400)


class _Headers:
    """Adds the headers that every answer has, where it does not bring its own."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, with_headers)
