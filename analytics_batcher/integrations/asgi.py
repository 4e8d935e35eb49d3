"""Starlette, FastAPI and other ASGI applications: the client's end within the server's, and the current request.

Example::

    from fastapi import FastAPI
    from analytics_batcher import Client, Segment
    from analytics_batcher.integrations.asgi import RequestContext, lifespan, request_context

    client = Client(Segment("..."))
    app = FastAPI(lifespan=lifespan(client))
    app.add_middleware(RequestContext)


    @app.get("/reports")
    async def open_report():
        client.track("user-1", "Report Opened", context=request_context("path", "user_agent"))
"""

from __future__ import annotations

from contextlib import asynccontextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
    from contextlib import AbstractAsyncContextManager

    from .. import Client

    Scope = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
    Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
    Application = Callable[[Scope, Receive, Send], Awaitable[None]]
    Lifespan = Callable[[Any], AbstractAsyncContextManager[Any]]

_scope: ContextVar[Mapping[str, Any] | None] = ContextVar("analytics_batcher_request", default=None)


def lifespan(
    client: Client | Callable[[], Client], inner: Lifespan | None = None, *, timeout: float | None = None
) -> Lifespan:
    """The lifespan of a Starlette or FastAPI application: `FastAPI(lifespan=lifespan(client))`.

    At the end, after all requests, it delivers what waits, beside the event loop. The exit hook would come too late:
    uvicorn ends by the signal that it was sent. Endpoints find the client in `request.state.analytics`.

    Args:
        client: The client; or what makes one, at each start. A test that starts the application twice needs the latter.
        inner: The application's own lifespan, which begins later and ends earlier; its state is kept.
        timeout: Seconds that the end may take; `None`: the client's `shutdown_timeout`.
    """

    @asynccontextmanager
    async def around(app: Any) -> AsyncIterator[dict[str, Any]]:
        made = client() if callable(client) else client
        try:
            async with nullcontext() if inner is None else inner(app) as state:
                yield {**(state or {}), "analytics": made}
        finally:
            await made.ashutdown(timeout)

    return around


def with_lifespan(app: Application, client: Client, *, timeout: float | None = None) -> Application:
    """Let an ASGI application that has no lifespan, as Django's, deliver what waits when its server ends.

    Args:
        app: The application.
        client: The client.
        timeout: As for `lifespan`.

    Returns:
        The application to serve.
    """

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await app(scope, receive, send)
            return
        await receive()  # lifespan.startup
        await send({"type": "lifespan.startup.complete"})
        await receive()  # lifespan.shutdown
        await client.ashutdown(timeout)
        await send({"type": "lifespan.shutdown.complete"})

    return serve


class RequestContext:
    """Middleware that lets `request_context` know the request: `app.add_middleware(RequestContext)`.

    Args:
        app: The application.
    """

    def __init__(self, app: Application) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request. Called by the server."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        token = _scope.set(scope)
        try:
            await self._app(scope, receive, send)
        finally:
            _scope.reset(token)


def request_context(*fields: str) -> dict[str, Any] | None:
    """What a call's `context` is to say of the current request, in Segment's terms, and no more than is asked for.

    `client.track(user, "Paid", context=request_context("path", "ip"))`, in an endpoint, in a thread that serves it, or
    in a background task. Only Segment-shaped destinations have a `context`; others leave it out.

    Args:
        fields: Any of `ip` (the server's idea of the client's address; behind a proxy it must be told to believe that
            one), `user_agent`, `locale`, `path`, `search` (the query, which may hold secrets) and `referrer`.

    Returns:
        What is known of these; `None` outside a request, or if it is nothing.

    Raises:
        ValueError: If there is no such field.
    """
    unknown = set(fields) - _FIELDS.keys()
    if unknown:
        raise ValueError(f"request_context: there is no {min(unknown)!r}; allowed is {' or '.join(map(repr, _FIELDS))}")
    scope = _scope.get()
    context: dict[str, Any] = {}
    for field in fields if scope is not None else ():
        group, name, read = _FIELDS[field]
        value = read(scope)
        if value:
            (context.setdefault(group, {}) if group else context)[name] = value
    return context or None


def _header(scope: Mapping[str, Any], name: bytes) -> str | None:
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), None)


_FIELDS: Final[dict[str, tuple[str, str, Callable[[Any], str | None]]]] = {
    "ip": ("", "ip", lambda scope: (scope.get("client") or (None,))[0]),
    "user_agent": ("", "userAgent", lambda scope: _header(scope, b"user-agent")),
    "locale": ("", "locale", lambda scope: (_header(scope, b"accept-language") or "").partition(",")[0].strip()),
    "path": ("page", "path", lambda scope: scope["path"]),
    "search": ("page", "search", lambda scope: (query := scope["query_string"].decode("latin-1")) and f"?{query}"),
    "referrer": ("page", "referrer", lambda scope: _header(scope, b"referer")),
}
"""Each field's place in Segment's `context`, and where it is in the request."""
