"""The live page of `inspect`, over HTTP and without a browser: its feed, its bounds, who may see it, its buttons."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, closing
from importlib import resources
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
from conftest import TOKEN, balanced
from hypothesis import given, settings
from hypothesis import strategies as st
from live_world import KEY, NOW, SITE, VENDORS, WRITE_KEY, rows_of, running, track

import analytics_batcher
from analytics_batcher import Client, Vitally
from analytics_batcher.live.feed import MOST_BROWSERS, Feed, Filter
from analytics_batcher.live.neutral import neutral_of
from analytics_batcher.live.weather import KINDS, Weather
from analytics_batcher.receiver import Receiver, Reply, Request

ROOT = Path(analytics_batcher.__file__).parents[1]
FAULTY, WARNED, NOT_STORED = 1, 2, 4
N, KIND, USER, ACCOUNT, EVENT, SIZE, REQUEST, PLACE, OF, VENDOR, MARK, STATUS, NTH = 0, *range(2, 14)
OF_THE_PAGE = ["/live/feed", "/live/messages/1", "/live/search?text=a", "/live/lines"]


@pytest.fixture
def world():
    """A receiver of all vendors with a live page."""
    with running() as made:
        yield made


def request(*messages, **changes):
    """A request as a receiver tells of it, made without one."""
    body = json.dumps(messages).encode()
    made = {"number": 1, "at": 0.0, "connection": 1, "method": "POST", "path": VENDORS["vitally"], "headers": {}}
    made |= {"body": body, "size": len(body), "messages": list(messages), "status": 200, "stored": True}
    return Request(**{**made, "wire": "vitally", "seconds": 0.01, **changes})


# --- The page ---------------------------------------------------------------------------------------------------------


def test_the_page_is_one_file_that_asks_nobody_else(world):
    """It comes whole, names no other address, runs no script but its own, and makes no text into markup."""
    answer = world.ask("/")
    assert answer.status == 200
    policy = answer.headers["content-security-policy"]
    (nonce,) = set(re.findall(r"'nonce-([^']+)'", policy))
    for part in ("default-src 'none'", "connect-src 'self'", "frame-ancestors 'none'", "form-action 'none'"):
        assert part in policy
    assert "unsafe" not in policy
    assert answer.text.count(f'nonce="{nonce}"') == 2 == answer.text.count("nonce=")
    assert set(re.findall(r"https?://[^\s\"'`]+", answer.text)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|\son\w+=\"", answer.text)
    assert nonce not in world.ask("/").text
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-frame-options"] == "DENY"


def test_the_page_is_in_the_package():
    """Who installs the package has the page's file."""
    assert resources.files("analytics_batcher.live").joinpath("page.html").is_file()


def test_pages_leave_no_trace_and_vendors_keep_their_paths(world):
    """What is the page's is no request to a vendor; all else is as it is without a page."""
    for path in ("/", "/favicon.ico", "/live/messages/1", "/live/nothing"):
        world.ask(path)
    assert world.live.feed.size == (0, 0)
    assert world.ask("/index.html").status == 404
    assert world.post([track()]).status == 200
    found = world.details(1)
    assert found["request"]["number"] == 1
    assert found["request"]["faults"] == ["the method is not POST"]
    assert world.details(2)["faults"] == []


def test_without_pages_a_receiver_is_what_it_was():
    """A test's receiver has no page: a request for one is a fault as any."""
    with Receiver() as receiver:
        with closing(socket.create_connection((urlsplit(receiver.url).hostname, urlsplit(receiver.url).port))) as line:
            line.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert line.recv(64).startswith(b"HTTP/1.1 404")
        assert receiver.faults == ("request 1: the method is not POST",)


def test_a_receiver_need_not_keep_anything(world):
    """With `keep=False` it numbers requests, and holds none of them."""
    for _ in range(3):
        world.post([track()])
    assert (world.receiver.requests, world.receiver.messages) == ((), ())
    assert world.details(3)["request"]["number"] == 3


# --- The feed ---------------------------------------------------------------------------------------------------------


def test_rows_arrive_as_messages_do(world):
    """Each message is a row: kind, user, account, event, bytes as sent, its place in its batch, vendor, status."""
    with world.stream() as stream:
        assert next(stream)[0] == "reset"
        one = track(1, accountId="acme")
        world.post([one, track(2, type="user", traits={"a": 1})])
        rows, _ = rows_of(stream, 2)
    assert rows[0][KIND : SIZE + 1] == ["track", "u1", "acme", "Signed up", len(json.dumps(one))]
    assert rows[0][REQUEST:] == [1, 1, 2, "vitally", NOT_STORED, 400, 1]
    assert (rows[1][KIND], rows[1][MARK]) == ("user", FAULTY | NOT_STORED)
    assert [row[N] for row in rows] == [1, 2]


def test_a_browser_that_comes_again_goes_on_where_it_was(world):
    """Its last event's id brings what came since and nothing twice; that of another run brings all, after a reset."""
    world.post([track(number) for number in range(5)])
    with world.stream() as stream:
        rows, position = rows_of(stream, 5)
    world.post([track(9)])
    with world.stream(position) as stream:
        again, _ = rows_of(stream, 1)
    assert [row[N] for row in again] == [6]
    for foreign in ("0123.0.5", "nonsense", ".."):
        with world.stream(foreign) as stream:
            assert next(stream)[0] == "reset"
            assert len(rows_of(stream, 6)[0]) == 6
    assert len(rows) == 5


def test_clearing_reaches_every_browser(world):
    """After a clear each stream says so once, numbers go on, and nothing older is there to be had."""
    world.post([track(number) for number in range(3)])
    with world.stream() as stream, world.stream() as other:
        positions = [rows_of(one, 3)[1] for one in (stream, other)]
        assert world.act("clear").status == 200
        for one in (stream, other):
            assert next(name for name, _, _ in one if name != "state") == "reset"
        world.post([track(7)])
        assert [row[N] for row in rows_of(stream, 1)[0]] == [4]
    assert world.ask("/live/messages/3").status == 404
    with world.stream(positions[0]) as late:
        assert next(name for name, _, _ in late if name != "state") == "reset"
        assert [row[N] for row in rows_of(late, 1)[0]] == [4]


def test_the_newest_are_kept_within_both_bounds():
    """Beyond a number of messages, or of bytes, the oldest go, with all that was remembered of them."""
    feed = Feed(most_messages=50)
    for number in range(120):
        feed.add(request(track(number)), Reply())
    assert feed.size[0] == 50
    assert feed.entry(70) is None
    assert feed.entry(71).number == 71
    feed.add(request(track(0)), Reply())
    assert json.loads(feed.entry(121).row)[NTH] == 1
    feed.add(request(track(0)), Reply())
    assert json.loads(feed.entry(122).row)[NTH] == 2
    assert len(feed._seen) == 49
    feed = Feed(most_bytes=100_000)
    for number in range(100):
        feed.add(request(track(number, properties={"a": "x" * 5_000})), Reply())
        assert feed.size[1] <= 100_000
    assert 10 < feed.size[0] < 20
    feed.clear()
    assert (feed.size, len(feed._seen)) == ((0, 0), 0)


def test_a_giant_message_is_not_kept_and_says_so(world):
    """What no bound could hold has a row, and no text."""
    world.post([track(properties={"a": "x" * 5_000_000})])
    found = world.details(1)
    assert found["row"][SIZE] > 5_000_000
    assert (found["sent"], found["neutral"], found["curl"]) == ("", "", "")
    assert world.live.feed.size[1] < 10_000


def test_a_browser_that_stands_still_delays_nobody():
    """One that never reads is not queued for: others have all at once, and it gets what is kept when it reads."""
    with running(feed=Feed(most_messages=2_000)) as world, world.stream() as slow, world.stream() as quick:
        for batch in range(100):
            world.post([track(100 * batch + number, properties={"a": "x" * 100}) for number in range(100)])
        numbers = [row[N] for row in rows_of(quick, 2_000)[0]]
        assert numbers == sorted(numbers)
        last = 0
        for name, _, data in slow:
            last = data[-1][N] if name == "message" else last
            if last == 10_000:
                break
        assert world.live.feed.size[0] == 2_000


def test_so_many_browsers_and_no_more(world, wait_until):
    """One too many is told so; when another goes, its place is free."""
    with ExitStack() as stack:
        streams = [stack.enter_context(world.stream()) for _ in range(MOST_BROWSERS)]
        assert all(next(stream)[0] == "reset" for stream in streams)
        with world.stream() as more:
            assert next(more)[0] == "crowded"
    world.post([track()])
    wait_until(lambda: world.live.feed._browsers == 0)
    with world.stream() as stream:
        assert next(stream)[0] == "reset"


def test_open_streams_do_not_hold_the_end_up(world):
    """A receiver with browsers at it stops within its second."""
    with world.stream() as stream:
        next(stream)
        begun = time.monotonic()
        world.receiver.stop()
        assert time.monotonic() - begun < 2.0


def test_the_seconds_have_figures(world):
    """Messages, fill, bytes, answer times and repeats of the last sixty seconds come every second."""
    batch = [track(1), track(2)]
    with world.stream() as stream:
        for _ in range(2):
            world.post(batch)
        figures = next(
            data["figures"] for name, _, data in stream if name == "state" and sum(data["figures"]["messages"]) == 4
        )
    assert {len(values) for values in figures.values()} == {60}
    assert max(figures["fill"]) == 2
    assert sum(figures["bytes"]) == 2 * len(json.dumps(batch))
    assert sum(figures["repeats"]) == 2
    assert 0 < max(figures["answer"]) < 1_000


# --- One message ------------------------------------------------------------------------------------------------------


def test_a_message_is_shown_as_it_was_spelt(world):
    """Numbers, escapes and the order of fields are those of the body, not of a parser."""
    text = (
        '{"type":"track","userId":"u","event":"\\u00e9\\ud83d\\ude00","properties":{"a":1.50,"b":1e2},"messageId":"m"}'
    )
    world.post(None, body=f" [ {text} ,{text}]")
    found = world.details(1)
    assert found["sent"] == text
    assert found["neutral"] == text
    assert found["same"] == [1, 2]
    zipped = gzip.compress(json.dumps({"batch": [track(3, userId="ü")], "writeKey": WRITE_KEY}).encode())
    world.post(None, "segment", body=zipped, Content_Encoding="gzip", **{"Content-Encoding": "gzip"})
    assert json.loads(world.details(3)["sent"]) == track(3, userId="ü")


def test_each_rule_stands_with_the_message_that_breaks_it(world):
    """Faults of one message are shown with it, also behind what is no message; those of the request with all."""
    world.post([1, track(1), {**track(2), "event": 7}])
    good, bad = world.details(1), world.details(2)
    assert (good["faults"], bad["faults"]) == ([], ["event is not a string"])
    assert good["request"]["faults"] == ["message[0]: is not an object"]
    assert "is not an object" in good["request"]["answer"]
    world.post([track(number) for number in range(101)])
    assert world.details(3)["request"]["faults"] == ["the batch holds 101 messages, not 1 to 100"]
    operation = {"type": "person", "action": "event", "identifiers": {"id": "u"}, "name": "e", "data": {}}
    world.post([operation, {**operation, "name": ""}], "customerio", body=json.dumps({"batch": [operation]}))
    lost = world.details(104)
    assert lost["warnings"] == ["data will be lost: what belongs to an event is its attributes"]
    assert lost["row"][MARK] == WARNED


def test_a_request_that_cannot_be_read_has_a_row(world):
    """A wrong token, a broken body, an unknown path: each shows what a vendor objects to."""
    world.post([track()], Authorization="Basic wrong-token")
    world.post(None, body="{")
    world.ask("/v2/batch", "POST")
    for number, part in ((1, "Authorization is not"), (2, "not strict JSON"), (3, "the path is not")):
        found = world.details(number)
        assert found["row"][KIND] == "request"
        assert found["row"][MARK] == FAULTY | NOT_STORED
        assert part in found["request"]["faults"][0]
        assert "wrong-token" not in json.dumps(found)


@pytest.mark.parametrize("vendor", VENDORS)
def test_the_page_never_costs_an_answer(world, vendor):
    """However deep a message is, its sender is answered, and the page has a row for it."""
    depths = [50, 500, *range(960, 1000), 5_000]  # Python's own limit is near 1,000
    for number, depth in enumerate(depths, 1):
        message = f'{{"userId":{"[" * depth + "]" * depth}}}'
        body = f"[{message}]" if vendor == "vitally" else f'{{"batch":[{message}]}}'
        assert world.post(None, vendor, body=body).status in {400, 401}
        assert world.details(number)["number"] == number


# Whatever JSON can be, with the names among it that vendors know.
_NAMES = ["type", "action", "userId", "identifiers", "id", "context", "groupId", "cio_relationships", "name", "traits"]
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5) | st.sampled_from(["track", "identify", "person", "object", "merge", "event", "group"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_NAMES), inner, max_size=6),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(messages=st.lists(_VALUES, max_size=4), vendor=st.sampled_from([*VENDORS, ""]), zipped=st.booleans())
def test_any_json_can_be_taken_apart(messages, vendor, zipped):
    """Each object of a batch has a row that can be read again, whatever stands in it and whatever the headers say."""
    texts = [json.dumps(message) for message in messages]
    body = f"[{','.join(texts)}]" if vendor == "vitally" else f'{{"x":[1],"batch":[{" , ".join(texts)}]}}'
    objects = [message for message in messages if isinstance(message, dict)]
    headers = {"content-encoding": "gzip"} if zipped else {}
    feed = Feed()
    feed.add(
        request(wire=vendor, body=body.encode(), messages=objects, headers=headers, faults=("batch[0] x",)), Reply()
    )
    assert feed.size[0] == max(1, len(objects))
    for number, message in enumerate(objects, 1):
        entry = feed.entry(number)
        assert json.loads(entry.text) == message
        assert len(json.loads(entry.row)) == 14
    assert not any(entry.facts.warnings for entry in feed.matching(Filter()))


def test_no_secret_is_ever_shown(world):
    """Headers that can hold one are shown by name only; the envelope with a key is not shown at all."""
    secrets = {"Cookie": "c-secret", "X-Api-Key": "k-secret", "Proxy-Authorization": "p-secret", "X-Own": "o-secret"}
    for vendor in VENDORS:
        message = track() if vendor != "customerio" else {"type": "person", "action": "identify"}
        world.post([message], vendor, **secrets)
    shown = "".join(world.ask(f"/live/messages/{number}").text for number in (1, 2, 3)) + world.ask("/live/lines").text
    for secret in (*secrets.values(), TOKEN, KEY, "c2l0ZTpjMTAta2V5", WRITE_KEY, "d3JpdGUta2V5LTE6"):
        assert secret not in shown
    assert world.details(1)["request"]["headers"]["authorization"] == "[not shown]"
    assert world.details(1)["request"]["headers"]["content-type"] == "application/json"


def test_every_vendors_form_leads_back_to_the_neutral_one(world):
    """What three clients send of the same calls is shown as the same messages."""
    neutral = {}
    for vendor, client in world.clients().items():
        first = world.live.feed.size[0] + 1
        stamped = {"message_id": "01900000-0000-7000-8000-000000000001", "timestamp": "2026-01-02T03:04:05Z"}
        client.identify("u1", {"plan": "team"}, account_id="acme", **stamped)
        client.track("u1", "Signed up", {"price": 12.5}, **stamped)
        client.account("acme", {"seats": 3}, user_id="u1", **stamped)
        if vendor != "vitally":
            client.page("u1", "Home", {"path": "/"}, **stamped)
            client.alias("anonymous-1", "u1", **stamped)
        if vendor != "segment":
            client.unlink("u1", "acme", **stamped)
        assert client.shutdown(10)
        last = world.live.feed.size[0]
        of_vendor = [json.loads(world.details(number)["neutral"]) for number in range(first, last + 1)]
        neutral[vendor] = {message["type"]: message for message in of_vendor}
    vitally, customerio, segment = (neutral[vendor] for vendor in VENDORS)
    assert vitally["track"] == customerio["track"] == segment["track"]
    assert {**vitally["user"]} == segment["user"]
    vitally["account"]["userId"] = "u1"  # which Vitally has no place for
    assert vitally["account"] == segment["account"]
    assert segment["page"] == customerio["page"]
    # Of these Customer.io takes neither an id nor, mostly, a time.
    for kind, other in (("user", vitally), ("account", vitally), ("unlink", vitally), ("alias", segment)):
        bare = {field: value for field, value in other[kind].items() if field not in {"messageId", "timestamp"}}
        assert customerio[kind].items() >= bare.items()


@pytest.mark.parametrize(
    ("vendor", "message"),
    [
        ("customerio", {"type": "person", "action": "suppress", "identifiers": {"id": "u"}}),
        ("customerio", {"type": "person", "action": "identify", "identifiers": {"email": "a@b.example"}}),
        ("customerio", {"type": "object", "action": "identify", "identifiers": {"object_type_id": "2"}}),
        ("customerio", {"type": ["person"], "action": {}}),
        ("segment", {"type": None}),
        ("vitally", {}),
        ("", {"type": "track"}),
    ],
)
def test_what_has_no_neutral_form_has_none(vendor, message):
    """A vendor's own operations, and what is no message at all, are not made into something that they are not."""
    assert neutral_of(vendor, message) is None


@pytest.mark.skipif(shutil.which("curl") is None, reason="it is curl that is run")
def test_the_curl_sends_the_message_again(world):
    """What is copied has no secret in it, and run in a shell with it in $TOKEN sends the same message, faultless."""
    quotes = {"a": 'it\'s "$TOKEN" `x` \\ \n é'}
    operation = {"type": "person", "action": "identify", "identifiers": {"id": "u"}, "attributes": quotes}
    segment = {"type": "track", "userId": "u", "event": "e", "properties": quotes, "messageId": "m", "timestamp": NOW}
    cases = {
        "vitally": (track(properties=quotes), TOKEN),
        "customerio": (operation, KEY),
        "segment": (segment, WRITE_KEY),
    }
    for vendor, (message, secret) in cases.items():
        world.post([message], vendor)
        number = world.live.feed.size[0]
        command = world.details(number)["curl"]
        assert secret not in command
        environment = {"PATH": os.environ["PATH"], "TOKEN": secret, "SITE_ID": SITE}
        done = subprocess.run(
            ["/bin/sh", "-c", f"{command} -sS -w '%{{http_code}}' -o /dev/null"],
            env=environment, capture_output=True, text=True, check=True, timeout=30,
        )  # fmt: skip
        assert done.stdout == "200"
        again = world.details(number + 1)
        assert again["sent"] == world.details(number)["sent"]
        assert (again["faults"], again["request"]["faults"], again["request"]["stored"]) == ([], [], 1)


# --- Search and download ----------------------------------------------------------------------------------------------


def test_text_is_found_in_whole_messages(world):
    """In either case of letters, and from a number on."""
    world.post([track(1, properties={"deep": {"er": "NeeDle <b>"}}), track(2), track(3, properties={"needle": 1})])
    assert world.ask("/live/search?text=nEEdle").json == {"numbers": [1, 3], "until": 3}
    assert world.ask("/live/search?text=needle&after=1").json == {"numbers": [3], "until": 3}
    assert world.ask(f"/live/search?text={quote('<b>')}").json["numbers"] == [1]
    assert world.ask("/live/search?text=needle&after=x9").json["numbers"] == [1, 3]


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        ("", [1, 2, 3, 4]),
        ("kind=account", [4]),
        ("user=ACME", [2, 4]),
        ("user=u2", [3]),
        ("event=sign", [1, 2]),
        ("text=needle", [3]),
        ("faults=1", []),
        ("vendor=segment", []),
        ("event=sign&user=acme", [2]),
    ],
)
def test_a_download_has_what_the_filter_lets_through(world, query, numbers):
    """As JSON Lines, one message in each, as it was sent."""
    sent = [
        track(1),
        track(2, accountId="acme"),
        track(3, userId="u2", event="Left", properties={"a": "Needle"}),
        {"type": "account", "accountId": "acme", "messageId": "m4"},
    ]
    world.post(None, body=json.dumps(sent, indent=1))
    answer = world.ask(f"/live/lines?{query}")
    assert "attachment" in answer.headers["content-disposition"]
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert [json.loads(line) for line in answer.text.splitlines()] == [sent[number - 1] for number in numbers]


def test_only_faults(world):
    """Messages that a vendor objects to, and those to whose request it does, are what is left."""
    world.post([track(1), {**track(2), "event": ""}])
    assert [json.loads(line)["messageId"] for line in world.ask("/live/lines?faults=1").text.splitlines()] == ["m2"]


# --- Who may see it ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "127.8.9.1", "[::1]", "LOCALHOST"])
def test_names_of_this_machine_are_answered(world, name):
    """With any port: it may be forwarded."""
    for host in (name, f"{name}:8080"):
        assert world.ask("/", Host=host).status == 200
        assert world.ask("/live/lines", Host=host).status == 200


@pytest.mark.parametrize(
    "name",
    [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "192.0.2.1",
        "",
        "[",
        "127.0.0.1:99999",
        "127.0.0.1:x",
    ],
)
def test_a_rebound_name_is_refused(world, name):
    """A page of another site whose name was made to lead here reads nothing, and changes nothing."""
    world.post([track()])
    for path in ("/", *OF_THE_PAGE):
        answer = world.ask(path, Host=name)
        assert answer.status == 403
        assert "Signed up" not in answer.text
    assert world.act("clear", Host=name, Origin=f"http://{name}").status == 403
    assert world.live.feed.size[0] == 1


def test_who_listens_everywhere_knows_addresses_and_no_names():
    """On all addresses any of them may be asked, as DNS has no part in that; a name may not."""
    with running("the-token-of-tests", host="0.0.0.0") as world:  # noqa: S104 - what the page is told, the socket is on loopback
        assert world.ask("/", Host="192.0.2.1:80").status == 401
        assert world.ask("/", Host="evil.example").status == 403


@pytest.mark.parametrize(
    "changes",
    [
        {"X-Analytics-Batcher": None},
        {"Origin": None},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_no_other_page_presses_the_buttons(world, changes):
    """What changes something needs the header that a form cannot set, and this page's own origin."""
    world.post([track()])
    for path in ("clear", "weather/500"):
        assert world.act(path, **changes).status == 403
    assert world.live.feed.size[0] == 1
    assert world.live.weather.now()[0] == "clear"
    assert world.act("clear", **{"Sec-Fetch-Site": "same-origin"}).status == 200


def test_other_sites_cannot_ask_for_what_the_page_asks_for(world):
    """A link to the page may stand anywhere; its data are the page's own, and are no script of anybody's."""
    for path in OF_THE_PAGE:
        assert world.ask(path, Sec_Fetch_Site="cross-site").status == 403
    assert world.ask("/", Sec_Fetch_Site="cross-site").status == 200
    answer = world.ask("/live/search?text=a")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert "access-control-allow-origin" not in answer.headers


def test_a_token_opens_the_page_once_and_a_cookie_from_then_on():
    """Without it nothing is shown; the cookie is not the token, and no script and no other site can use it."""
    token = "the-token-of-tests"
    with running(token) as world:
        world.post([track()])
        for path in ("/", "/?token=", "/?token=wrong", f"/?token={token}x", *OF_THE_PAGE):
            answer = world.ask(path)
            assert answer.status == 401
            assert "Signed up" not in answer.text
        assert world.act("clear").status == 401
        opened = world.ask(f"/?token={token}")
        assert opened.status == 200
        cookie, *attributes = opened.headers["set-cookie"].split("; ")
        assert {"HttpOnly", "SameSite=Strict"} <= set(attributes)
        assert token not in opened.text + cookie
        name, _, value = cookie.partition("=")
        assert world.ask("/live/messages/1", Cookie=f"other=1; {cookie}").json["number"] == 1
        assert world.ask("/", Cookie=cookie).status == 200
        for wrong in (f"{name}={token}", f"{name}=", f"{name}={value}x", f"other={value}"):
            assert world.ask("/live/messages/1", Cookie=wrong).status == 401
        assert world.act("clear", Cookie=cookie).status == 200
        assert token not in repr(vars(world.live)) + repr(vars(world.live._access))
    with running(token) as another:
        assert another.ask("/", Cookie=cookie).status == 401


# --- The weather ------------------------------------------------------------------------------------------------------


def test_the_weather_ends_by_itself():
    """Each kind lasts its seconds, a new one takes the old one's place, and a clear sky ends it at once."""
    now = [100.0]
    weather = Weather(lambda: now[0])
    assert (weather.state()["name"], weather.decide(request(track()))) == ("clear", None)
    for name, kind in KINDS.items():
        assert weather.turn(name)
        now[0] += kind.seconds - 0.5
        assert weather.state() == {"name": name, "left": 1, "told": kind.told}
        now[0] += 0.5
        assert weather.state()["name"] == "clear"
    weather.turn("500")
    weather.turn("429")
    now[0] += 2.5
    reply = weather.decide(request(track()))
    assert (reply.status, reply.headers["Retry-After"]) == (429, "8")
    assert weather.turn("clear")
    assert weather.decide(request(track())) is None
    assert not weather.turn("hail")


def test_buttons_make_weather(world):
    """429 with Retry-After, 500, 207, and none of it for ever."""
    for name, status in (("429", 429), ("500", 500), ("207", 207)):
        state = world.act(f"weather/{name}").json
        assert state["name"] == name
        assert 0 < state["left"] <= 10
        answer = world.post([track(1)])
        assert answer.status == status
        assert ("retry-after" in answer.headers) == (status == 429)
    assert world.act("weather/clear").json["name"] == "clear"
    assert world.post([track(2)]).status == 200
    assert world.act("weather/hail").status == 404
    marks = [world.details(number)["row"][MARK] for number in (1, 2, 3, 4)]
    assert marks == [NOT_STORED, NOT_STORED, 0, 0]


def test_weather_is_told_to_every_browser(world):
    """What one page turned on, another one shows, with the seconds that are left."""
    with world.stream() as stream:
        rows = next(data["weather"] for name, _, data in stream if name == "state")
        assert rows["name"] == "clear"
        world.act("weather/500")
        told = next(data["weather"] for name, _, data in stream if name == "state" and data["weather"]["left"])
        assert told["name"] == "500"
        assert told["left"] in {9, 10}


def test_a_hang_answers_nobody_and_ends(world):
    """While it lasts there is no answer; then what waits is cut off, and its thread is gone."""
    now = [0.0]
    weather = Weather(lambda: now[0])
    weather.turn("hang")
    now[0] = 29.9  # seconds: so that the test waits for the last tenth only
    world.live.weather = weather
    begun = time.monotonic()
    with pytest.raises(ConnectionResetError):
        world.post([track()])
    assert 0.05 < time.monotonic() - begun < 2.0
    assert world.details(1)["request"]["status"] is None
    assert world.details(1)["row"][MARK] == NOT_STORED


@pytest.mark.parametrize("vendor", VENDORS)
def test_an_application_copes_with_one_in_ten_refused(world, vendor):
    """Those messages are rejected, always the same ones, the others are delivered, and every one is accounted for."""
    world.act("weather/tenth")
    client = world.clients(flush_interval=0.01)[vendor]
    for number in range(200):
        client.track(f"u{number}", "e", {}, message_id=f"m-{number}", account_id="acme")
    client.flush(20)
    stats = client.stats()
    client.shutdown(5)
    assert balanced(stats)
    assert stats.pending == 0
    assert 8 <= stats.dropped["rejected"] <= 40
    assert stats.delivered == 200 - stats.dropped["rejected"]
    refused = [json.loads(line) for line in world.ask("/live/lines?faults=1").text.splitlines()]
    assert len(refused) == (stats.dropped["rejected"] if vendor == "customerio" else 0)


def test_an_application_copes_with_a_207(world):
    """Customer.io refuses the first message of the batch by its index, and the others are delivered."""
    world.act("weather/207")
    client = world.clients(flush_interval=10)["customerio"]
    for number in range(5):
        client.track("u", "e", {}, message_id=f"m-{number}")
    client.flush(10)
    stats = client.stats()
    client.shutdown(1)
    assert (stats.delivered, stats.dropped) == (4, {"rejected": 1})
    assert [world.details(number)["row"][MARK] for number in range(1, 6)] == [FAULTY | NOT_STORED, 0, 0, 0, 0]


# --- The command ------------------------------------------------------------------------------------------------------


def inspect(*arguments, **variables):
    """Start the command; its output is read by the test."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ANALYTICS_BATCHER_")}
    return subprocess.Popen(
        [sys.executable, "-m", "analytics_batcher", "inspect", "--token", TOKEN, *arguments],
        cwd=ROOT, env={**kept, **variables}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def ended(process):
    """End it by Ctrl-C; everything that it still said."""
    try:
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=10)
    finally:
        process.kill()
    assert process.returncode == 0, said
    return said


def test_the_command_serves_the_page():
    """`inspect` names the page's address, serves it, and goes on telling of requests in lines."""
    process = inspect()
    url = process.stderr.readline().strip().partition("=")[2]
    try:
        assert process.stderr.readline() == f"open {url}/\n"
        client = Client(Vitally(api_token=TOKEN, base_url=url))
        client.track("u", "e")
        assert client.shutdown(10)
        with closing(socket.create_connection(("127.0.0.1", urlsplit(url).port), 10)) as line:
            line.sendall(b"GET /live/messages/1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b'"event\\":\\"e' in b"".join(iter(lambda: line.recv(65_536), b""))
    finally:
        out, _ = ended(process)
    assert "1: vitally: 1 messages" in out
    assert "GET" not in out
    assert TOKEN not in out


def test_beyond_this_machine_the_command_asks_for_a_token():
    """A made-up token is printed in the address; a given one is not printed; a poor one is refused."""
    process = inspect("--host", "0.0.0.0")  # noqa: S104 - what is tested
    process.stderr.readline()
    try:
        opened = urlsplit(process.stderr.readline().removeprefix("open ").strip())
        assert opened.hostname == "127.0.0.1"
        assert len(opened.query.removeprefix("token=")) >= 32
        for query, status in (("", b"401"), (f"?{opened.query}", b"200")):
            with closing(socket.create_connection(("127.0.0.1", opened.port), 10)) as line:
                line.sendall(f"GET /{query} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
                assert line.recv(64).startswith(b"HTTP/1.1 " + status)
    finally:
        ended(process)
    given = "a-token-that-is-long-enough"
    process = inspect("--host", "0.0.0.0", ANALYTICS_BATCHER_INSPECT_TOKEN=given)  # noqa: S104 - as above
    first = [process.stderr.readline(), process.stderr.readline()]
    said = "".join([*first, *ended(process)])
    assert "?token=" in said
    assert given not in said
    process = inspect(ANALYTICS_BATCHER_INSPECT_TOKEN="short-one")
    _, error = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "ANALYTICS_BATCHER_INSPECT_TOKEN" in error
    assert "short-one" not in error


def test_the_pages_token_is_no_setting_of_a_client(monkeypatch):
    """A client made from the same environment does not stumble over it."""
    monkeypatch.setenv("ANALYTICS_BATCHER_DESTINATION", "vitally")
    monkeypatch.setenv("ANALYTICS_BATCHER_VITALLY_SUBDOMAIN", "acme")
    monkeypatch.setenv("ANALYTICS_BATCHER_VITALLY_API_TOKEN", TOKEN)
    monkeypatch.setenv("ANALYTICS_BATCHER_INSPECT_TOKEN", "a-token-that-is-long-enough")
    client = Client.from_env(background=False)
    assert client.stats().destinations.keys() == {"vitally"}
    client.shutdown(0)


def test_many_threads_at_once_lose_no_row(world):
    """Rows of concurrent requests are all there, each number once, and each batch whole."""

    def send(number):
        for batch in range(10):
            world.post([track(f"{number}-{batch}-{place}") for place in range(20)])

    with world.stream() as stream:
        threads = [threading.Thread(target=send, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        rows, _ = rows_of(stream, 800)
        for thread in threads:
            thread.join()
    assert [row[N] for row in rows] == list(range(1, 801))
    assert sorted({row[REQUEST] for row in rows}) == list(range(1, 41))
