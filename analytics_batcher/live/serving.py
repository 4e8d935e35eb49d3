"""The page's own paths, beside the vendors' on the same port."""

from __future__ import annotations

import json
import secrets
from functools import cache
from http import HTTPStatus
from importlib import resources
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs

from ..receiver import Reply
from .access import Access
from .curl import curl_of
from .feed import Feed, Filter
from .neutral import neutral_of, note_of
from .weather import KINDS, Weather

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from ..receiver import Request

_ROOT: Final = "/"
_LIVE: Final = "/live/"
_ICON: Final = "/favicon.ico"
_MOST_SAME: Final = 100
_DIGITS: Final = 18
_GENERAL: Final = {
    "Cache-Control": "no-store",
    "Connection": "close",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
# Nothing from elsewhere, no script but the page's own, and no text that becomes one.
_POLICY: Final = (
    "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
_STREAM: Final = "HTTP/1.1 200 OK\r\n{headers}\r\n\r\n"


class Live:
    """The live page of a receiver: what it is given as `pages`.

    Args:
        host: The address that the receiver listens on.
        token: What a browser must bring; empty if none is needed.
        feed: What is kept; None: as much as is usual.
        told: Called with each vendor's request, after it is kept; it must return at once.
    """

    def __init__(
        self,
        host: str,
        token: str = "",
        *,
        feed: Feed | None = None,
        told: Callable[[Request], None] | None = None,
    ) -> None:
        self.feed = Feed() if feed is None else feed
        self.weather = Weather()
        self._access = Access(host, token)
        self._told = told

    def decide(self, request: Request) -> Reply | None:
        """The weather's answer to a vendor's request; None for the normal one."""
        return self.weather.decide(request)

    def watch(self, request: Request, answer: Reply) -> None:
        """Keep a vendor's request, and tell of it."""
        self.feed.add(request, answer)
        if self._told is not None:
            self._told(request)

    def close(self) -> None:
        """End every stream."""
        self.feed.close()

    def page(self, request: Request) -> Generator[bytes, None, None] | None:
        """The answer to a request for the page or what it asks for; None if it is a vendor's."""
        path, _, query = request.path.partition("?")
        # A POST to the root is a vendor's: that of a client whose URL lacks the path.
        ours = path.startswith(_LIVE) or (request.method == "GET" and path in {_ROOT, _ICON})
        if request.method not in {"GET", "POST"} or not ours:
            return None
        if problem := self._access.problem(request):
            return _said(HTTPStatus.FORBIDDEN, problem)
        given = {name: values[-1] for name, values in parse_qs(query).items()}
        if path == _ROOT:
            return self._root(request, given.get("token", ""))
        if path == _ICON:
            return _whole(Reply(HTTPStatus.NO_CONTENT))
        if not self._access.admits(request):
            return _said(HTTPStatus.UNAUTHORIZED, "Open the page with its token first.")
        act = self._act if request.method == "POST" else self._find
        return act(request, path.removeprefix(_LIVE), given) or _said(HTTPStatus.NOT_FOUND, "There is no such thing.")

    def _root(self, request: Request, token: str) -> Generator[bytes, None, None]:
        cookie = self._access.cookie_for(request, token) if token else None
        if cookie is None and not self._access.admits(request):
            return _said(HTTPStatus.UNAUTHORIZED, f"This page needs its token: http://{_host(request)}/?token=...")
        nonce = secrets.token_urlsafe(16)
        headers = {"Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": _POLICY.format(nonce=nonce)}
        if cookie is not None:
            headers["Set-Cookie"] = cookie
        return _whole(Reply(body=_page().replace("{nonce}", nonce).encode(), headers=headers))

    def _find(self, request: Request, path: str, given: dict[str, str]) -> Generator[bytes, None, None] | None:
        name, _, number = path.partition("/")
        if path == "feed":
            # What a browser that comes again has, it says in a header.
            return self._stream(request.headers.get("last-event-id", ""))
        if path == "search":
            return self._search(given.get("text", ""), _number(given.get("after", "")))
        if path == "lines":
            texts = {field: given.get(field, "") for field in ("kind", "user", "event", "text", "vendor")}
            return self._lines(Filter(**texts, faults=given.get("faults") == "1"))
        return self._message(_number(number), f"http://{_host(request)}") if name == "messages" else None

    def _act(self, _: Request, path: str, __: dict[str, str]) -> Generator[bytes, None, None] | None:
        name, _slash, kind = path.partition("/")
        if name == "weather" and self.weather.turn(kind):
            self.feed.wake()
            return _json(self.weather.state())
        if path == "clear":
            self.feed.clear()
            return _json({})
        return None

    def _stream(self, position: str) -> Generator[bytes, None, None]:
        yield _head({"Content-Type": "text/event-stream"})
        yield from self.feed.stream(position, self.weather)

    def _lines(self, wanted: Filter) -> Generator[bytes, None, None]:
        yield _head(
            {
                "Content-Type": "application/x-ndjson",
                "Content-Disposition": 'attachment; filename="messages.jsonl"',
            }
        )
        for entry in self.feed.matching(wanted):
            if entry.text:
                line = entry.text if b"\n" not in entry.text and b"\r" not in entry.text else _one_line(entry.text)
                yield line + b"\n"

    def _search(self, text: str, after: int) -> Generator[bytes, None, None]:
        numbers, until = self.feed.holding(text, after)
        return _json({"numbers": numbers, "until": until})

    def _message(self, number: int, base: str) -> Generator[bytes, None, None]:
        entry = self.feed.entry(number)
        if entry is None:
            return _json({"error": "This message is no longer kept."}, HTTPStatus.NOT_FOUND)
        facts = entry.facts
        sent = entry.text.decode()
        message = json.loads(sent) if sent else {}
        neutral = neutral_of(facts.vendor, message)
        form = json.dumps(neutral, ensure_ascii=False, separators=(",", ":")) if neutral is not None else ""
        return _json(
            {
                "number": entry.number,
                "row": json.loads(entry.row),
                "sent": sent,
                "neutral": sent if neutral == message and sent else form,
                "note": note_of(facts.vendor),
                "faults": entry.faults,
                "warnings": entry.warnings,
                "same": self.feed.same(entry)[:_MOST_SAME],
                "curl": curl_of(facts.vendor, base + facts.path, sent) if sent else "",
                "request": facts._asdict(),
            }
        )


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < _DIGITS else 0


def _host(request: Request) -> str:
    return request.headers.get("host", "")


def _one_line(text: bytes) -> bytes:
    # Line breaks stand between the tokens of JSON only, where any space will do.
    return text.replace(b"\r", b" ").replace(b"\n", b" ")


@cache
def _page() -> str:
    text = resources.files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    kinds = [(name, kind.label, kind.told) for name, kind in KINDS.items()]
    return text.replace("{weather}", json.dumps(kinds).replace("<", "\\u003c"))


def _head(headers: dict[str, str]) -> bytes:
    lines = "\r\n".join(f"{name}: {value}" for name, value in {**_GENERAL, **headers}.items())
    return _STREAM.format(headers=lines).encode()


def _whole(reply: Reply) -> Generator[bytes, None, None]:
    yield Reply(reply.status, body=reply.body, headers={**_GENERAL, **reply.headers}).encode()


def _json(value: Any, status: int = HTTPStatus.OK) -> Generator[bytes, None, None]:
    return _whole(Reply(status, body=json.dumps(value).encode()))


def _said(status: int, text: str) -> Generator[bytes, None, None]:
    return _whole(Reply(status, body=f"{text}\n".encode(), headers={"Content-Type": "text/plain; charset=utf-8"}))
