"""What stands before every answer: limits of size, rate and time, keys, headers, and one form for errors.

On the floor of `service`.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from ecom_pipeline.errors import JournalError
from ecom_pipeline.service import measures
from ecom_pipeline.service.keys import find_key, read_keys
from ecom_pipeline.service.problems import Problem, internal, of_status, of_validation

log = logging.getLogger(__name__)
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
    at_once: int = 4


def require(scope: str, keys: Path | None) -> Any:
    """A dependency: the request brings a key of a scope.

    Args:
        scope: one of `keys.SCOPES`.
        keys: file of the keys, read anew for each request, so that a revoked key is worthless at once; None: no key is
            asked for.
    """

    def check(request: Request) -> None:
        if keys is None:
            return
        secret = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
        key = find_key(read_keys(keys), secret)
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


def add_guards(app: FastAPI, limits: Limits, *, origins: Sequence[str], hosts: Sequence[str]) -> None:
    """Put limits, measures and headers around an app, and give its errors their form.

    Args:
        app: to be guarded.
        limits: of requests.
        origins: of pages elsewhere that may call from a browser.
        hosts: names under which it may be asked; none: any. A service that asks for no key needs them: the owner of a page
            elsewhere can let his own name lead to this machine, and his page is then of one origin with the service.
    """
    limiter, rate = MovingWindowRateLimiter(MemoryStorage()), RateLimitItemPerSecond(limits.per_second)

    async def within_limits(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        _refuse_host(request, hosts)
        _refuse_size(request, limits.body_bytes)
        who = request.headers.get("authorization") or (request.client.host if request.client else "")
        if not limiter.hit(rate, str(hash(who))):
            raise _too_many(limits.per_second)
        try:
            return await asyncio.wait_for(answer(request), limits.seconds)
        except TimeoutError as error:
            raise _too_slow(limits.seconds) from error

    @app.middleware("http")
    async def guard(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        started = time.perf_counter()
        try:
            response = await within_limits(request, answer)
        except Problem as problem:
            response = problem.response()
        except Exception:
            log.exception("%s %s failed", request.method, request.url.path)
            response = internal().response()
        path = getattr(request.scope.get("route"), "path", "unknown")
        measures.seen(path, request.method, response.status_code, time.perf_counter() - started)
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    _add_error_forms(app)
    if origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=list(origins), allow_methods=["GET", "POST"], allow_headers=["*"]
        )


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


def _refuse_host(request: Request, hosts: Sequence[str]) -> None:
    if hosts and request.url.hostname not in hosts:
        raise Problem(
            status=421,
            type="host-unknown",
            title="the service does not go by this name",
            detail=f"1 request for {(request.url.hostname or '')[:200]!r}",
            must=f"without keys it must be asked as {' or '.join(hosts)}",
            action="ask it so, or have keys made by `ecom keys add`",
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
        title="nothing was kept",
        detail="1 request; why stands in the service's log",
        must="the journal must be writable",
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
