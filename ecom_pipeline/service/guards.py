"""What stands before every answer: limits of size, rate and time, keys, headers, and one form for errors.

On the floor of `service`.
"""

import asyncio
import logging
import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ecom_pipeline.errors import JournalError
from ecom_pipeline.service import measures
from ecom_pipeline.service.keys import Key, find_key, read_keys
from ecom_pipeline.service.problems import Problem, internal, of_status, of_validation

log = logging.getLogger(__name__)
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")  # as a host is named
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True, slots=True)
class Limits:
    """What a client may ask for.

    Attributes:
        body_bytes: of a request.
        per_second: requests of one key, or of one address where no keys are asked for.
        seconds: that an answer may take.
        at_once: requests that are worked on at the same time; others wait.
    """

    body_bytes: int = 1_000_000
    per_second: int = 200
    seconds: float = 10.0
    at_once: int = field(default_factory=lambda: os.cpu_count() or 1)


def require(scope: str, keys: Path | None) -> Any:
    """A dependency: the request brings a key of a scope.

    Args:
        scope: one of `keys.SCOPES`.
        keys: file of the keys, read anew for each request, so that a revoked key is worthless at once; None: no key is
            asked for.
    """

    async def check(request: Request) -> None:
        if keys is None:
            return
        key = request.state.key
        if key is None:
            raise _no_key()
        if scope not in key.scopes:
            raise Problem(
                status=403,
                type="scope-missing",
                title="the key does not reach so far",
                detail=f"1 scope is missing: {scope!r}; the key {key.name!r} has {', '.join(key.scopes)}",
                must=f"the key must have the scope {scope!r}",
                action="use another key, or have one made by `ecom keys add`",
            )

    return Depends(check)


def add_guards(
    app: FastAPI, limits: Limits, *, origins: Sequence[str], keys: Path | None, hosts: Sequence[str]
) -> None:
    """Put limits, measures and headers around an app, and give its errors their form.

    Args:
        app: to be guarded.
        limits: of requests.
        origins: of pages elsewhere that may call from a browser.
        keys: file of the keys; None: no key is asked for.
        hosts: names under which it may be asked where no key is asked for.
    """
    app.add_middleware(Guard, limits=limits, keys=keys, hosts=tuple(hosts))
    _add_error_forms(app)
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],
            expose_headers=["X-Experiment"],
        )


class Guard:
    """Every request passes through here, and every answer."""

    def __init__(self, app: ASGIApp, *, limits: Limits, keys: Path | None, hosts: Sequence[str]) -> None:
        self._app, self._limits, self._keys, self._hosts = app, limits, keys, hosts
        self._limiter = MovingWindowRateLimiter(MemoryStorage())
        self._rate = RateLimitItemPerSecond(limits.per_second)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0

        async def told(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            self._refuse(Request(scope))
            async with asyncio.timeout(self._limits.seconds):
                await self._app(scope, receive, told)
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets the one form
            problem = self._problem(error, scope)
            if not status:  # else the answer has begun, and its client sees that it breaks off
                await problem.response()(scope, receive, told)
        path = getattr(scope.get("route"), "path", "unknown")
        measures.seen(path, scope["method"], status, time.perf_counter() - started)

    def _refuse(self, request: Request) -> None:
        if self._keys is None:
            _refuse_other_names(request, self._hosts)
        _refuse_size(request, self._limits.body_bytes)
        key = request.state.key = _key_of(request, self._keys)
        address = request.client.host if request.client else ""
        if not self._limiter.hit(self._rate, "key" if key else "address", key.name if key else address):
            raise _too_many(self._limits.per_second)

    def _problem(self, error: Exception, scope: Scope) -> Problem:
        if isinstance(error, Problem):
            return error
        if isinstance(error, TimeoutError):
            return _too_slow(self._limits.seconds)
        # the path that was asked for may hold ids of people; the route does not
        log.exception("%s %s failed", scope["method"], getattr(scope.get("route"), "path", "unknown"))
        return internal()


def _add_error_forms(app: FastAPI) -> None:
    @app.exception_handler(Problem)
    async def problem(_: Request, error: Problem) -> Response:
        return error.response()

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        return of_validation(error).response()

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        return of_status(request, error).response()

    @app.exception_handler(JournalError)
    async def not_kept(_: Request, error: JournalError) -> Response:
        log.error("%s", error)
        return _not_kept().response()


def _key_of(request: Request, keys: Path | None) -> Key | None:
    """Which a request brings; one that is not valid is none."""
    secret = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
    return find_key(read_keys(keys), secret) if keys and secret else None


def _refuse_other_names(request: Request, names: Sequence[str]) -> None:
    """A page elsewhere may have its own name lead to this machine, and would read as if it were of here."""
    name = re.sub(r":[0-9]+$", "", request.headers.get("host", "")).lower()
    if name not in names:
        raise Problem(
            status=421,
            type="host-unknown",
            title="the service is not called so",
            detail=f"1 request for the host {name[:200]!r}",
            must=f"without keys the host must be one of {', '.join(names)}",
            action="use http://127.0.0.1, or make a key by `ecom keys add`",
        )


def _refuse_size(request: Request, most: int) -> None:
    length = request.headers.get("content-length", "0")
    if not length.isdigit() or int(length) > most or "transfer-encoding" in request.headers:
        raise Problem(
            status=413,
            type="body-too-large",
            title="the body is too large",
            detail=f"1 request of {length if length != '0' else 'unknown'} bytes",
            must=f"a body must have a length that is told, of at most {most:,} bytes",
            action="send smaller batches",
        )


def _no_key() -> Problem:
    return Problem(
        status=401,
        type="key-missing",
        title="no valid key",
        detail="0 valid keys were sent",
        must="the header Authorization must be 'Bearer ' and a key of this service",
        action="ask whoever runs the service for a key; `ecom keys add` makes one",
        headers=(("WWW-Authenticate", "Bearer"),),
    )


def _not_kept() -> Problem:
    return Problem(
        status=503,
        type="journal-closed",
        title="the journal cannot be used",
        detail="1 request, of which nothing is known to be kept; why stands in the service's log",
        must="the journal's file, or its server, must be there and writable",
        action="send the same again, with the same event_ids, when the service is mended",
    )


def _too_many(per_second: int) -> Problem:
    return Problem(
        status=429,
        type="too-many-requests",
        title="too many requests",
        detail=f"more than {per_second} in a second",
        must=f"a key or an address may ask {per_second} times a second",
        action="wait a second, or send events in batches",
        headers=(("Retry-After", "1"),),
    )


def _too_slow(seconds: float) -> Problem:
    return Problem(
        status=503,
        type="too-slow",
        title="the answer took too long",
        detail=f"1 request took longer than {seconds:g} s",
        must=f"an answer must be there within {seconds:g} s",
        action="try again; events may be sent again under the same event_ids",
        headers=(("Retry-After", "1"),),
    )
