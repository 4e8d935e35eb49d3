from __future__ import annotations

import asyncio
import signal
import sys
import threading
import time

import pytest
from conftest import TOKEN
from web_server import serving, users

from analytics_batcher import Client, Vitally
from analytics_batcher.integrations.asgi import RequestContext, lifespan, request_context, with_lifespan
from analytics_batcher.receiver import Receiver, Reply, SegmentWire

UVICORN = ["-m", "uvicorn", "--port", "0"]


@pytest.fixture
def segment():
    """A Segment-compatible vendor."""
    with Receiver(wire=SegmentWire(write_key="write-key")) as running:
        yield running


@pytest.fixture
def serve(segment, wait_until):
    """Serves an application of `programs/asgi_sites.py` by uvicorn."""
    pytest.importorskip("uvicorn", reason="uvicorn is not installed")
    pytest.importorskip("fastapi", reason="FastAPI is not installed")
    if sys.platform == "win32":
        pytest.skip("it is about SIGTERM")

    def start(application):
        return serving(wait_until, [*UVICORN, f"asgi_sites:{application}"], {"RECEIVER": segment.url})

    return start


@pytest.mark.parametrize("application", ["starlette", "fastapi"])
def test_what_requests_track_is_delivered_when_the_server_ends(segment, serve, application):
    """SIGTERM right after requests: each message is delivered once, what the application's own lifespan tracks too."""
    with serve(application) as site:
        for _ in range(20):
            site.get()
        ended = site.end(signal.SIGTERM)

    assert ended.status == -signal.SIGTERM, ended.errors
    assert users(segment) == sorted([*site.tracked, "own-lifespan"])
    assert "Traceback" not in ended.errors


def test_a_request_that_outlasts_the_signal_is_heard_too(segment, serve, wait_until):
    """What a request tracks after the SIGTERM that it was in the middle of is delivered."""
    with serve("starlette") as site:
        site.get()
        answer = site.begin("/slow")
        wait_until(lambda: site.program.has_said("A request has begun"))
        site.program.signal(signal.SIGTERM)
        answer()
        ended = site.program.end()

    assert users(segment) == sorted([*site.tracked, "own-lifespan"]), ended.errors


def test_a_call_says_of_its_request_what_it_asks_for(segment, serve):
    """In the loop, in a serving thread, in a background task: what was asked for of the right request, only that."""
    with serve("fastapi") as site:
        first = site.get("/track", **{"User-Agent": "one", "Cookie": "secret", "Referer": "http://elsewhere"})["user"]
        second = site.get("/slow", **{"User-Agent": "two"})["user"]
        site.end(signal.SIGTERM)

    said = {message["userId"]: message["context"] for message in segment.messages}
    for context in said.values():
        context.pop("library", None)
    assert said[first] == {"ip": "127.0.0.1", "userAgent": "one", "page": {"path": "/track"}}
    assert said[second] == {"ip": "127.0.0.1", "userAgent": "two", "page": {"path": "/slow"}}
    assert said["background"] == {"page": {"path": "/slow"}}
    assert said["own-lifespan"] == {}


# The parts, without a server

SCOPE = {
    "type": "http",
    "path": "/a/b",
    "query_string": b"q=1&r=%20",
    "client": ("203.0.113.7", 1234),
    "headers": [(b"user-agent", b"agent"), (b"accept-language", b"de-CH, en;q=0.5"), (b"referer", b"http://before/")],
}


async def _nothing(*_):
    return None


def within(scope, *fields):
    """What `request_context` gives within a request."""
    found = []

    async def app(*_):
        found.append(request_context(*fields))

    asyncio.run(RequestContext(app)(scope, _nothing, _nothing))
    return found[0]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([], None),
        (["ip"], {"ip": "203.0.113.7"}),
        (["user_agent", "locale"], {"userAgent": "agent", "locale": "de-CH"}),
        (["path", "search"], {"page": {"path": "/a/b", "search": "?q=1&r=%20"}}),
        (["referrer"], {"page": {"referrer": "http://before/"}}),
    ],
)
def test_each_field_has_segments_name(fields, expected):
    """A field is written as Segment's specification of `context` names it, and nothing that was not asked for is."""
    assert within(SCOPE, *fields) == expected


def test_what_a_request_does_not_say_is_left_out():
    """A request without client, headers and query has no such fields, and one that has none of them no context."""
    bare = {"type": "websocket", "path": "/", "query_string": b"", "client": None, "headers": []}
    assert within(bare, "ip", "user_agent", "locale", "search", "referrer") is None
    assert within(bare, "ip", "path") == {"page": {"path": "/"}}


def test_outside_a_request_there_is_no_context():
    """Before a request, after it, and in the lifespan there is nothing to say."""

    async def main():
        assert request_context("path") is None
        await RequestContext(_nothing)(SCOPE, _nothing, _nothing)
        return request_context("path")

    assert asyncio.run(main()) is None
    assert within({"type": "lifespan"}, "path") is None


def test_concurrent_requests_do_not_see_each_other():
    """Each of many requests at once is told its own path, in tasks that it starts too."""

    async def app(scope, *_):
        await asyncio.sleep(0)
        inner = asyncio.ensure_future(_later())
        assert request_context("path") == await inner == {"page": {"path": scope["path"]}}

    async def _later():
        await asyncio.sleep(0)
        return request_context("path")

    async def main():
        serve = RequestContext(app)
        await asyncio.gather(*(serve({**SCOPE, "path": f"/{n}"}, _nothing, _nothing) for n in range(50)))

    asyncio.run(main())


def test_an_unknown_field_is_refused():
    """A field that there is not is a `ValueError` that names those that there are, outside a request too."""
    with pytest.raises(ValueError, match="there is no 'cookie'; allowed is 'ip' or"):
        request_context("ip", "cookie")


def test_a_lifespan_makes_a_client_at_each_start(receiver):
    """Given what makes a client, each start has a new one in its state, and delivers by it at its end."""
    made = []

    def make():
        made.append(Client(Vitally(api_token=TOKEN, base_url=receiver.url), flush_interval=60))
        return made[-1]

    async def main():
        around = lifespan(make)
        for name in ("first", "second"):
            async with around(None) as state:
                assert state["analytics"] is made[-1]
                assert state["analytics"].track(name, "e", account_id="a")

    asyncio.run(main())
    assert len(made) == 2
    assert users(receiver) == ["first", "second"]


def test_a_lifespan_delivers_though_the_application_failed(receiver):
    """What was tracked is delivered, and the application's own error goes on."""
    client = Client(Vitally(api_token=TOKEN, base_url=receiver.url), flush_interval=60)

    async def main():
        async with lifespan(client)(None):
            client.track("u1", "e", account_id="a")
            raise KeyError("the application's")

    with pytest.raises(KeyError, match="the application's"):
        asyncio.run(main())
    assert users(receiver) == ["u1"]


def test_an_application_gets_a_lifespan(receiver):
    """`with_lifespan` answers the server's two messages, delivers before the second, and hands requests on."""
    client = Client(Vitally(api_token=TOKEN, base_url=receiver.url), flush_interval=60)
    served, sent = [], []

    async def app(scope, *_):
        served.append(scope["type"])
        client.track("u1", "e", account_id="a")

    async def send(message):
        sent.append((message["type"], len(receiver.messages)))

    async def main():
        serve = with_lifespan(app, client)
        await serve({"type": "http"}, _nothing, send)
        await serve({"type": "lifespan"}, _nothing, send)

    asyncio.run(main())
    assert served == ["http"]
    assert sent == [("lifespan.startup.complete", 0), ("lifespan.shutdown.complete", 1)]


# What is awaited


def test_an_awaited_flush_lets_the_loop_go_on(make_client, receiver):
    """A ticker in the loop goes on ticking while a flush, and then a shutdown, wait for a slow vendor."""
    receiver.script(Reply(delay=0.6), Reply(delay=0.6))
    client = make_client()
    late = []

    async def tick():
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.005)
            late.append(time.monotonic() - before - 0.005)

    async def main():
        ticking = asyncio.ensure_future(tick())
        client.track("u1", "e", account_id="a")
        flushed = await client.aflush(10)
        client.track("u2", "e", account_id="a")
        ended = await client.ashutdown(10)
        ticking.cancel()
        return flushed, ended

    flushed, ended = asyncio.run(main())
    assert (flushed.delivered, ended.delivered) == (1, 1)
    assert len(late) > 40  # of about 240
    assert max(late) < 0.4  # less than one answer takes


def test_an_awaited_flush_keeps_its_deadline_where_the_executor_is_full(make_client, receiver):
    """An application that has filled the loop's executor delays no flush."""
    client = make_client(flush_interval=60)
    client.track("u1", "e", account_id="a")
    free = threading.Event()

    async def main():
        busy = [asyncio.get_running_loop().run_in_executor(None, free.wait, 20) for _ in range(64)]
        started = time.monotonic()
        flushed = await client.aflush(5)
        took = time.monotonic() - started
        free.set()
        await asyncio.gather(*busy)
        return flushed, took

    flushed, took = asyncio.run(main())
    assert flushed.delivered == len(receiver.messages) == 1
    assert took < 6


def test_an_awaited_flush_that_is_given_up_does_not_hold_the_loops_end(make_client, receiver):
    """Who stops waiting is let go at once, and so is the loop; what was to be delivered still is."""
    receiver.script(Reply(delay=2.0))
    client = make_client()
    client.track("u1", "e", account_id="a")

    async def main():
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(client.aflush(20), 0.1)

    started = time.monotonic()
    asyncio.run(main())
    assert time.monotonic() - started < 1.5
    assert client.flush(10).pending == 0
    assert len(receiver.messages) == 1


def test_an_awaited_flush_that_is_given_up_disturbs_nobody(make_client, receiver):
    """It ends later, while the loop still runs, and nothing is said of that."""
    receiver.script(Reply(delay=0.3))
    client = make_client()
    client.track("u1", "e", account_id="a")
    said = []

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(client.aflush(20), 0.05)
        (waiting,) = [thread for thread in threading.enumerate() if thread.name == "analytics-batcher:await"]
        await asyncio.to_thread(waiting.join, 10)
        await asyncio.sleep(0.01)  # what was to be called before is called by then
        return waiting.is_alive()

    assert asyncio.run(main()) is False
    assert not said


def test_what_an_awaited_flush_raises_is_raised(make_client):
    """A wrong timeout is a `ValueError` where it is awaited."""
    with pytest.raises(ValueError, match="timeout=-1"):
        asyncio.run(make_client().aflush(-1))
