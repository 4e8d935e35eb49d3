"""A Starlette and a FastAPI application, as `tests/test_asgi.py` has uvicorn serve them. They deliver to `RECEIVER`."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from itertools import count

from fastapi import BackgroundTasks, FastAPI, Request
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.routing import Route

from analytics_batcher import Client, Segment
from analytics_batcher.integrations.asgi import RequestContext, lifespan, request_context

NUMBERS = count()
client = Client(Segment("write-key", base_url=os.environ["RECEIVER"]), flush_interval=60, shutdown_timeout=10)


def track(event="Requested"):
    """Track a message with what is asked of the request; what the answer says."""
    user = f"{os.getpid()}-{next(NUMBERS)}"
    context = request_context("ip", "user_agent", "path")
    return {"user": user, "accepted": client.track(user, event, context=context), "pid": os.getpid()}


@asynccontextmanager
async def own(_):
    """Track a message at the end, by the application's own lifespan, and have a state."""
    yield {"color": "green"}
    client.track("own-lifespan", "Ended")


async def tracks(request):
    """Track a message; `/slow` takes its time before that."""
    if request.url.path == "/slow":
        os.write(2, b"A request has begun\n")
        await asyncio.sleep(0.7)
    assert request.state.analytics is client
    assert request.state.color == "green"
    return JSONResponse(track())


starlette = Starlette(
    routes=[Route("/track", tracks), Route("/slow", tracks)],
    middleware=[Middleware(RequestContext)],
    lifespan=lifespan(client, own),
)

fastapi = FastAPI(lifespan=lifespan(client, own))
fastapi.add_middleware(RequestContext)


@fastapi.get("/track")
async def fast(request: Request):
    """As Starlette's."""
    assert request.state.analytics is client
    return track()


@fastapi.get("/slow")
def slow(background: BackgroundTasks):
    """Be served by a thread, and track once more in the background, after the answer."""
    background.add_task(work)
    return track()


def work():
    """Track a message in the background."""
    client.track("background", "Worked", context=request_context("path"))
