"""Secrets and personal data stay where they belong, foreign text breaks no line, and hostile settings are refused."""

from __future__ import annotations

import ast
import copy
import json
import logging
import multiprocessing
import os
import pickle
import traceback
from base64 import b64encode
from pathlib import Path

import pytest
from conftest import WATCH
from programs.canary import PERSON, SECRETS, SPELLINGS, TOKEN, told
from programs.harness import run

import analytics_batcher
from analytics_batcher import (
    Client,
    CustomerIO,
    DropReason,
    InvalidMessage,
    InvalidResponse,
    MessageError,
    RedisBuffer,
    Retry,
    Segment,
    TransportError,
    Vitally,
)
from analytics_batcher.answer import Answer
from analytics_batcher.receiver import CustomerIOWire, Receiver, Reply, SegmentWire, VitallyWire
from analytics_batcher.text import Secret, mask

SITE, KEY, WRITE_KEY = "site-of-ours", "key-of-ours", "write-key-of-ours"
KINDS = {
    "vitally": lambda **options: Vitally(api_token=TOKEN, **options),
    "customerio": lambda **options: CustomerIO(SITE, KEY, **options),
    "segment": lambda **options: Segment(WRITE_KEY, **options),
}
NOWHERE = "http://127.0.0.1:9"
HOSTILE = [
    "a\nCRITICAL root: forged",
    "a\r\nb",
    "\x1b[31mred\x1b[0m",
    "a\u2028b\u2029c\x85d\x0be",
    "\u202eevil\u2066",
    "\x00\x7f\x9b",
    "\ud800",
    "long " * 20_000,
]


@pytest.fixture
def vendors():
    """All three vendors, on one receiver."""
    with Receiver(wires=[VitallyWire(TOKEN), CustomerIOWire(SITE, KEY), SegmentWire(WRITE_KEY)]) as running:
        yield running


@pytest.fixture
def client_of(vendors):
    """Makes clients of the vendors' receiver, and shuts them down at the end."""
    clients = []

    def make(kind, *, url=None, **options):
        one = KINDS[kind](base_url=url or vendors.url) if isinstance(kind, str) else kind
        clients.append(Client(one, **options))
        return clients[-1]

    yield make
    for client in clients:
        client.shutdown(0)


def assert_one_line(text, *, at_most=1_200):
    """Whatever is in it, it is one line, of no more than so many characters, that shows as it is."""
    assert text.isprintable()
    assert len(text) <= at_most


def with_variables(error):
    """An error as a tracker of errors shows it: with its causes, and the variables of the frames of this package."""
    shown = []
    while error is not None:
        told_of = traceback.TracebackException.from_exception(error, capture_locals=True)
        shown.append(str(error))
        shown += [str(frame.locals) for frame in told_of.stack if "analytics_batcher/" in frame.filename]
        error = error.__cause__ or error.__context__
    return "\n".join(shown)


# --- The watch over all tests -----------------------------------------------------------------------------------------


def test_the_watch_sees_what_is_logged():
    """A secret in a message, in its arguments, in a traceback, at DEBUG, in clear and in base64, is seen."""
    log = logging.getLogger("analytics_batcher")
    log.debug("the token is %s", TOKEN)
    logging.getLogger("urllib3.connectionpool").debug("%r", b64encode(f"{SITE}:{KEY}".encode()))
    try:
        _fails(None)
    except ValueError:
        log.exception("an error")
    seen, WATCH.told[:] = [line.partition(":")[0] for line in WATCH.told], []
    assert seen == ["analytics_batcher", "urllib3.connectionpool", "analytics_batcher"]


@pytest.mark.parametrize("how", ["logs", "prints", "says"])
def test_the_watch_sees_what_a_program_tells(how):
    """A program of the tests that logs, prints or says a secret fails its test."""
    with pytest.raises(AssertionError, match="nobody is to see"):
        run("telltale", how)


@pytest.mark.parametrize("secret", SECRETS)
def test_the_watch_knows_base64(secret):
    """Wherever a secret begins in what is encoded, its base64 is known."""
    for before in ("", "s", "si", "sit", "site:"):
        assert told(b64encode(f"{before}{secret}:".encode()).decode()) >= [secret]
    assert min(map(len, SPELLINGS)) >= 6


def test_every_secret_of_the_tests_is_watched():
    """What a test module calls a token, a key or a password is among those that the watch looks for."""
    names = {"TOKEN", "SITE", "KEY", "WRITE_KEY", "PASSWORD", "SECRETS"}
    found = set()
    for path in Path(__file__).parent.glob("test_*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            targets = node.targets if isinstance(node, ast.Assign) else []
            if names & {one.id for target in targets for one in ast.walk(target) if isinstance(one, ast.Name)}:
                found |= {one.value for one in ast.walk(node.value) if isinstance(one, ast.Constant)}
    assert len(found) >= 12
    assert not [one for one in found if isinstance(one, str) and len(one) > 1 and not told(one)]  # a colon is none


# --- Personal data ----------------------------------------------------------------------------------------------------


def _fails(_):
    raise ValueError(PERSON)


ENDS = {
    "an id of a wrong type": ({}, lambda client: client.track([PERSON], PERSON), "invalid"),
    "an empty name": ({}, lambda client: client.track(PERSON, "", {PERSON: PERSON}), "invalid"),
    "a wrong time": ({}, lambda client: client.track(PERSON, "e", timestamp=PERSON), "invalid"),
    "a long id": ({}, lambda client: client.track(PERSON, "e", message_id=PERSON * 9), "invalid"),
    "no account": ({}, lambda client: client.identify(PERSON, {"email": PERSON}), "invalid"),
    "too many values": ({}, lambda client: client.track(PERSON, "e", {PERSON: [{1}] * 130_000}), "unserializable"),
    "too large": ({}, lambda client: client.track(PERSON, PERSON, {PERSON: PERSON * 3_000}), "too_large"),
    "too large in native form": ({}, lambda client: client.enqueue({"type": PERSON, "x": PERSON * 3_000}), "too_large"),
    "no dict": ({}, lambda client: client.enqueue([PERSON]), "invalid"),
    "unsupported": ({}, lambda client: client.page(PERSON, PERSON), "unsupported"),
    "filtered": ({"before_send": lambda _: None}, None, "filtered"),
    "a filter that fails": ({"before_send": _fails}, None, "filtered"),
    "a filter that returns text": ({"before_send": lambda _: PERSON}, None, "filtered"),
    "callbacks that fail": ({"on_drop": _fails, "on_delivery": _fails}, lambda client: client.page(PERSON, PERSON), ""),
    "no room": ({"max_queue_messages": 1}, None, "queue_full"),
    "evicted": ({"max_queue_messages": 1, "when_full": "drop_oldest"}, None, "queue_full"),
    "expired": ({"retry": Retry(base=0.01, cap=0.02, max_age=0.1), "url": NOWHERE}, None, "expired"),
    "left behind": ({"url": NOWHERE}, None, "exit"),
}


@pytest.mark.parametrize("end", ENDS)
def test_what_ends_a_message_is_told_without_its_content(client_of, caplog, end):
    """However a message ends, neither a log line nor a figure says what was in it; only `on_drop` is shown that."""
    caplog.set_level(logging.DEBUG)
    options, call, reason = ENDS[end]
    drops = []
    client = client_of("vitally", **{"background": False, "on_drop": drops.append, **options})
    for _ in range(2):
        client.track(PERSON, PERSON, {"email": PERSON, PERSON: [PERSON]}, account_id=PERSON)
    if call is not None:
        assert call(client) is False
    results = [client.flush(0.3), client.shutdown(0)]
    stats = client.stats()
    assert not reason or stats.dropped[reason]
    assert not told(caplog.text + repr(stats) + repr(results) + "".join(drop.detail for drop in drops))
    said = [record.getMessage() for record in caplog.records if record.name == "analytics_batcher"]
    assert said
    for line in said:
        assert_one_line(line, at_most=400)


@pytest.mark.parametrize("reply", [Reply(400), Reply(413), Reply(422), Reply(401), Reply(403), Reply(503), Reply(307)])
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_vendor_refuses_is_told_without_its_content(client_of, vendors, caplog, wait_until, kind, reply):  # noqa: PLR0917 - fixtures
    """Whatever a vendor answers, the log and the figures say so without the messages, the address or the secret."""
    caplog.set_level(logging.DEBUG)
    vendors.decide = lambda _: reply
    client = client_of(kind, flush_interval=0)
    client.track(PERSON, PERSON, {"email": PERSON}, account_id=PERSON)
    wait_until(lambda: client.stats().last_error and caplog.records[-1].name == "analytics_batcher")
    results = [client.flush(0), client.shutdown(0)]
    assert str(reply.status) in client.stats().last_error
    assert not told(caplog.text + repr(client.stats()) + repr(results))
    assert {"analytics_batcher", "urllib3.connectionpool"} <= {record.name for record in caplog.records}


def test_an_error_of_a_strict_client_says_nothing_of_the_content(client_of):
    """What a strict client raises names the field and what is allowed, and not the value."""
    client = client_of("vitally", strict=True, background=False)
    for end, (options, call, reason) in ENDS.items():
        if call is not None and not options:
            with pytest.raises(MessageError) as caught:
                call(client)
            assert caught.value.reason == reason, end
            assert not told(f"{caught.value} {caught.value!r} {caught.value.detail}"), end


# --- Secrets ----------------------------------------------------------------------------------------------------------


def parts_of(client):
    """Every object of a client that holds a secret, or something that holds one."""
    pipeline = client._lanes[0].pipeline
    sender = pipeline._consumer._sender
    transport = sender._transport
    destination = client._lanes[0].destination
    parts = [client, client._lanes[0], client._options, destination, pipeline, pipeline._consumer, sender, transport]
    return [
        *parts,
        transport._adapter,
        transport._line,
        pipeline.buffer,
        pipeline.reporter,
        destination.headers(),
        destination.secrets,
    ]


def texts_of(part):
    """How an object may be shown; what is in those of other packages is their own."""
    yield from (repr(part), str(part), f"{part}", f"{part!s:>9}")
    if hasattr(part, "__dict__") and not hasattr(part, "proxy_manager"):
        yield repr(vars(part))


@pytest.mark.parametrize("kind", KINDS)
def test_no_part_of_a_client_shows_a_secret(client_of, kind):
    """No `repr` and no text of any part, or of what it consists of, shows a secret, or the password of a proxy."""
    client = client_of(kind, proxy=f"http://user:{SECRETS[-1]}@127.0.0.1:9", background=False)
    client.track("u", "e")
    client.flush(0.2)
    texts = [text for part in [*parts_of(client), client.stats(), client.flush(0)] for text in texts_of(part)]
    assert len(texts) >= 60
    assert told("\n".join(texts)) == []


@pytest.mark.parametrize("kind", KINDS)
def test_destinations_are_not_pickled(kind):
    """A pickle would carry the secret along: there is none, and the error says what to do instead."""
    destination = KINDS[kind](base_url=NOWHERE)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match=r"make the destination, and the client, in the process that uses them"):
            pickle.dumps(destination, protocol)
    with pytest.raises(TypeError, match=r"Client\.from_env\(\)"):
        pickle.dumps({"settings": [destination.headers()]})


def test_a_spawned_process_is_not_given_a_client_or_a_destination(client_of):
    """Who hands them to a process that is not a fork is told at once, where he does it."""
    context = multiprocessing.get_context("spawn")
    for given in (KINDS["segment"](), client_of("vitally", background=False)):
        with pytest.raises(TypeError, match=r"in the process that uses") as caught:
            context.Process(target=print, args=(given,)).start()
        assert not told(with_variables(caught.value))


@pytest.mark.parametrize("kind", KINDS)
def test_copies_of_destinations_are_as_good(client_of, vendors, kind):
    """A copy, deep or not, of a destination that settings hold, works, and shows as little."""
    original = KINDS[kind](base_url=vendors.url)
    for one in (copy.copy(original), copy.deepcopy({"settings": [original]})["settings"][0]):
        assert told(repr(one) + repr(vars(one))) == []
        client = client_of(one, background=False)
        client.track("u", "e")
        assert client.flush()
    assert len(vendors.messages) == 2
    assert not vendors.faults


def test_clients_are_not_copied(client_of):
    """A client holds threads and connections: a copy is refused, and the error says what to do instead."""
    client = client_of("vitally", background=False)
    for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match=r"^a Client is neither pickled nor copied.*Client\.from_env\(\)"):
            attempt(client)


@pytest.mark.parametrize(
    "error",
    [
        TransportError("TimeoutError", "timeout"),
        InvalidResponse("HTTP 400", 400, "what was said"),
        InvalidMessage("userId is missing"),
        InvalidMessage("over 250000 values", DropReason.UNSERIALIZABLE),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_reach_other_processes(error):
    """An error goes through a pickle, as from a task to its caller, and a copy, with all that it says."""
    for one in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):  # noqa: S301 - our own
        assert type(one) is type(error)
        assert (str(one), vars(one)) == (str(error), vars(error))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reply", [None, Reply(400), Reply(reset="after")], ids=["refused", "400", "reset"])
def test_errors_of_batch_show_no_secret_in_their_variables(client_of, vendors, kind, reply):
    """A tracker that sends along the variables of each frame sends no secret along."""
    vendors.script(*([reply] * 2 if reply else []))
    client = client_of(kind, url=None if reply else NOWHERE, background=False)
    with pytest.raises((TransportError, InvalidResponse)) as caught:
        client.batch([{"type": "track", "userId": "u", "event": "e"}])
    shown = with_variables(caught.value)
    assert "send_batch" in "".join(traceback.format_exception(caught.value))
    assert told(shown) == []


WRONG = {
    "token": lambda: Vitally("acme", api_token=f"{TOKEN}\n"),
    "token in bytes": lambda: Vitally("acme", api_token=TOKEN.encode()),
    "subdomain": lambda: Vitally("a.b", api_token=TOKEN),
    "site id": lambda: CustomerIO(f"{SITE}:", KEY),
    "api key": lambda: CustomerIO(SITE, f"{KEY} "),
    "region": lambda: CustomerIO(SITE, KEY, region="mars"),
    "object type": lambda: CustomerIO(SITE, KEY, object_type_id="x"),
    "write key": lambda: Segment(f"{WRITE_KEY}\r\nX-Evil: 1"),
    "auth": lambda: Segment(WRITE_KEY, auth="none"),
    "rudderstack": lambda: Segment.rudderstack("http://evil.example", WRITE_KEY),
    "jitsu": lambda: Segment.jitsu("http://evil.example", WRITE_KEY),
    "pipelines": lambda: Segment.customerio_pipelines(KEY, region="mars"),
    "eu": lambda: Segment.eu(WRITE_KEY, name="a b"),
    "name": lambda: Vitally("acme", api_token=TOKEN, name="a\nb"),
    "proxy": lambda: Client(Vitally("acme", api_token=TOKEN), proxy=f"ftp://user:{SECRETS[-1]}@host"),
    "proxy without a host": lambda: Client(Vitally("acme", api_token=TOKEN), proxy=f"http://user:{SECRETS[-1]}"),
    "a URL of Redis": lambda: RedisBuffer(f"redis://:{SECRETS[-1]}@host/x"),
    "options of a URL": lambda: Client(
        Vitally("acme", api_token=TOKEN), buffer=RedisBuffer(f"redis://:{SECRETS[-1]}@host?ssl_x={SECRETS[-1]}")
    ),
    "another option of a buffer": lambda: RedisBuffer(f"redis://:{SECRETS[-1]}@host", stream=""),
    "another option": lambda: Client(Vitally("acme", api_token=TOKEN), proxy=f"http://u:{SECRETS[-1]}@h", timeout=0),
}


@pytest.mark.parametrize("setting", WRONG)
def test_errors_of_settings_show_no_secret_in_their_variables(setting):
    """An error about one setting shows no secret of another one, and what was half made can be shown."""
    with pytest.raises(ValueError, match=r"allowed|must be") as caught:
        WRONG[setting]()
    # A proxy without a host is not known to hold a password where it comes in.
    shown = str(caught.value) if setting == "proxy without a host" else with_variables(caught.value)
    assert told(shown) == []
    assert_one_line(str(caught.value))


@pytest.mark.parametrize(
    "wrong",
    [
        {"VITALLY_SUBDOMAIN": "a.b"},
        {"VITALLY_API_TOKEN": f"{TOKEN} {TOKEN}"},
        {"BASE_URL": f"https://user:{SECRETS[-1]}@host"},
        {"PROXY": f"ftp://user:{SECRETS[-1]}@host"},
        {"PROXY": f"http://user:{SECRETS[-1]}@host", "TIMEOUT": "0"},
        {"TIMEOUT": "soon"},
        {"REDIS_URL": f"redis://:{SECRETS[-1]}@host:x"},
        {"REDIS_URL": f"redis://host?password={SECRETS[-1]}", "REDIS_SHARDS": "0"},
        {"REDIS_URL": f"redis://host?password={SECRETS[-1]}", "CONCURRENCY": "2"},
        {"STRICT": "maybe"},
        {"API_TOKEN": SECRETS[-2]},
    ],
    ids=str,
)
def test_errors_of_the_environment_show_no_secret_in_their_variables(monkeypatch, wrong):
    """As little is shown where the settings come from the environment."""
    given = {"DESTINATION": "vitally", "VITALLY_SUBDOMAIN": "acme", "VITALLY_API_TOKEN": TOKEN, **wrong}
    for name, value in given.items():
        monkeypatch.setenv(f"ANALYTICS_BATCHER_{name}", value)
    with pytest.raises(ValueError, match=r"^ANALYTICS_BATCHER_") as caught:
        Client.from_env()
    assert told(with_variables(caught.value)) == []
    assert_one_line(str(caught.value))


def test_a_default_client_shows_no_secret():
    """Neither the package nor its default client shows one."""
    client = analytics_batcher.configure(Vitally("acme", api_token=TOKEN), background=False)
    texts = [repr(client), repr(analytics_batcher.track), repr(vars(analytics_batcher.track.__self__))]
    client.shutdown(0)
    assert told("".join(texts)) == []


@pytest.mark.parametrize("status", [200, 207, 307, 400, 500])
def test_a_secret_that_a_server_repeats_is_hidden(client_of, vendors, caplog, wait_until, status):
    """A server may spell it as JSON and URLs do: neither errors, figures, results nor the log show it."""
    secret = "Wr1te/Key:s3cret+"
    in_json = "".join(f"\\u{ord(c):04x}" for c in secret)
    in_urls = "".join(f"%{ord(c):02X}" for c in secret)
    said = " ".join([secret, secret.upper(), secret.replace("/", r"\/"), in_json, in_urls, f"x{secret}x{secret}"])
    body = b'{"error": "%b", "errors": [{"batch_index": 0, "reason": "%b"}]}' % ((said.encode(),) * 2)
    vendors.decide = lambda _: Reply(status, body=body, headers={"Location": f"https://{in_urls}.example/"})
    for destination in (Segment(secret, base_url=vendors.url), Vitally(api_token=secret, base_url=vendors.url)):
        vendors.script(Reply(status, body=body))
        client = client_of(destination, flush_interval=0)
        try:
            texts = [repr(client.batch([{"type": "track"}]))]
        except InvalidResponse as error:
            texts = [str(error), error.body, with_variables(error)]
        vendors.script(Reply(status, body=body))
        assert client.track("u", "e")
        wait_until(lambda client=client: client.stats().last_error or client.stats().delivered)
        texts += [repr(client.flush(0)), repr(client.stats())]
        for text in (*texts, caplog.text):
            assert not told(text)
            for spelling in (secret, r"\/key", in_json[:12], in_urls[:6]):
                assert spelling.lower() not in text.lower()


def test_a_secret_that_fills_the_answer_is_hidden_to_its_end():
    """However often it is repeated, no part of one shows at the end of what is kept."""
    secret = "abcdefghij" * 90
    text = analytics_batcher.text.printable((secret * 9).encode(), 1_000, hide=[secret])
    assert text == "[secret]" * 9
    assert mask(f"a {secret[:-1]}", [secret]) == f"a {secret[:-1]}"
    assert mask("nothing", ["", "x"]) == "nothing"


def test_a_secret_is_used_as_any_text():
    """A sealed text is the text that it is, for all that use it."""
    sealed = Secret("abc")
    assert (f"{sealed}!", sealed + "d", json.dumps([sealed])) == ("abc!", "abcd", '["abc"]')
    assert (sealed, hash(sealed), sealed.encode()) == ("abc", hash("abc"), b"abc")
    assert copy.deepcopy([sealed])[0] is copy.copy(sealed) is sealed
    assert f"{sealed!r} {[sealed]} { ({'a': sealed}) }" == "'[secret]' ['[secret]'] {'a': '[secret]'}"


# --- Foreign text -----------------------------------------------------------------------------------------------------


def all_said(caplog, client, drops=()):
    """Every text of ours about what happened: the log's lines, the figures' last error, the drops' details."""
    said = [record.getMessage() for record in caplog.records if record.name == "analytics_batcher"]
    stats = client.stats()
    errors = [one.last_error for one in (stats, *stats.destinations.values()) if one.last_error]
    return said + errors + [drop.detail for drop in drops]


def answer_of(text):
    """The headers and the body by which a server says a text wherever it can."""
    error = {"batch_index": 0, "reason": text, "field": text, "message": text}
    lines = [error, f"Message ID: {text}: {text}", f"Message ID: x: {text}"]
    body = {"error": text, "message": text, "errors": lines, "receivedEvents": 1, "okEvents": 0, "ok": False}
    header = "".join(c for c in text if " " <= c <= "~")[:4_000]
    headers = {"Location": f"https://{header}/", "Retry-After": header, "Content-Type": "application/json"}
    return headers, json.dumps(body).encode()


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text[:12]))
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_read_out_of_an_answer_takes_one_line(kind, text):
    """Whatever a server says, in a body or a header, each reason that is read out of it is one short line."""
    destination = KINDS[kind](base_url=NOWHERE)
    headers, body = answer_of(text)
    headers = {**{name.lower(): value for name, value in headers.items()}, "location": f"https://{text}/"}
    for status in (*range(199, 210), *range(300, 310), *range(399, 600, 3)):
        verdict = destination.verdict(Answer(status, headers, body))
        for said in (verdict.detail, *verdict.rejected.values(), *verdict.rejected_ids.values()):
            assert_one_line(said, at_most=2_500)


@pytest.mark.parametrize("text", [HOSTILE[0], HOSTILE[2], HOSTILE[-1]], ids=lambda text: ascii(text[:12]))
@pytest.mark.parametrize("status", [207, 302, 400, 503])
@pytest.mark.parametrize("kind", KINDS)
def test_a_servers_text_takes_one_line(client_of, vendors, caplog, wait_until, kind, status, text):  # noqa: PLR0917 - fixtures
    """Whatever a server says, a log line, a figure, a drop and an error about it are each one short line."""
    headers, body = answer_of(text)
    vendors.decide = lambda _: Reply(status, body=body, headers=headers)
    drops = []
    client = client_of(kind, flush_interval=0, on_drop=drops.append)
    client.track("u", "e")
    wait_until(lambda: client.stats().last_error or client.stats().requests)
    errors = []
    if status != 207:
        with pytest.raises(InvalidResponse) as caught:
            client.batch([{"type": "track", "userId": "u", "event": "e", "properties": {}}])
        errors = [str(caught.value), caught.value.body]
    client.shutdown(0)
    for line in all_said(caplog, client, drops) + errors:
        assert_one_line(line, at_most=5_000 if line in errors else 2_500)
        assert not line.startswith("CRITICAL")


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text[:12]))
def test_an_applications_text_takes_one_line(client_of, caplog, text):
    """Names of events, users, keys, classes and errors forge no line, in the log, a figure, a drop or an error."""
    odd = type(text.replace("\x00", "").replace("\ud800", ""), (Exception,), {})

    def raises(_):
        raise odd(text)

    drops = []
    client = client_of("vitally", background=False, before_send=raises, on_delivery=raises, on_drop=drops.append)
    strict = client_of("vitally", background=False, strict=True)
    calls = [
        lambda client: client.track(odd(text), text),
        lambda client: client.track(text, odd(text)),
        lambda client: client.track("u", "e", odd(text)),
        lambda client: client.track("u", "e", timestamp=odd(text)),
        lambda client: client.track("u", "e", timestamp=text),
        lambda client: client.enqueue(odd(text)),
        lambda client: client.track(text, text, {text: text[:20] * 20_000}),
    ]
    for call in calls:
        assert not call(client)
        with pytest.raises(MessageError) as caught:
            call(strict)
        assert_one_line(str(caught.value))
        assert_one_line(caught.value.detail)
    client.track(text, text, {text: text[:1_000]})
    client.flush(0.5)
    client.shutdown(0)
    assert len(drops) >= 4
    for line in all_said(caplog, client, drops):
        assert_one_line(line, at_most=400)
    with pytest.raises(ValueError, match="allowed is") as caught:
        client.enqueue({}, to=text)
    assert_one_line(str(caught.value))


class Careless(Vitally):
    """A destination of an application's own, which quotes what it is given as it is."""

    text = ""

    def verdict(self, answer):
        """Quote."""
        verdict = super().verdict(answer)
        return type(verdict)(verdict.action, f"HTTP {answer.status}: {self.text} {TOKEN}")

    def check(self, message):
        """Quote."""
        return (DropReason.UNSUPPORTED, self.text) if message["event"] == "odd" else None


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text[:12]))
def test_a_careless_destination_takes_one_line(client_of, vendors, caplog, wait_until, text):
    """What an application's own destination quotes is escaped, cut and masked all the same."""
    vendors.decide = lambda _: Reply(503)
    careless = Careless(api_token=TOKEN, base_url=vendors.url)
    careless.text = text
    drops = []
    client = client_of(careless, flush_interval=0, on_drop=drops.append, retry=Retry(base=0.01, cap=0.02))
    client.track("u", "odd")
    client.track("u", "e")
    wait_until(lambda: drops and client.stats().last_error and "503" in caplog.text)
    vendors.decide = lambda _: Reply(400)
    wait_until(lambda: {drop.reason for drop in drops} == {"unsupported", "rejected"})
    for line in all_said(caplog, client, drops):
        assert_one_line(line)
        assert told(line) == []
    with pytest.raises(InvalidResponse) as caught:
        client.batch([{"type": "track"}])
    assert_one_line(str(caught.value))
    assert told(str(caught.value)) == []


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text[:12]))
def test_a_destinations_name_is_no_foreign_text(text):
    """A name stands in each line: one that would break it is refused, of an application's own destination too."""
    with pytest.raises(ValueError, match=r"^name=") as caught:
        Vitally("acme", api_token=TOKEN, name=text)
    assert_one_line(str(caught.value))
    own = Vitally("acme", api_token=TOKEN)
    own.name = text
    with pytest.raises(ValueError, match=r"^name=") as caught:
        Client(own)
    assert_one_line(str(caught.value))


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text[:12]))
def test_the_environments_text_takes_one_line(monkeypatch, text):
    """An error about a variable is one short line, whatever its value, or the name of an unknown one, says."""
    fit = os.fsencode(text.replace("\x00", "").replace("\ud800", "\udc80"))[:60_000].decode("utf-8", "surrogateescape")
    base = {"DESTINATION": "vitally", "VITALLY_SUBDOMAIN": "acme", "VITALLY_API_TOKEN": TOKEN}
    names = ["DESTINATION", "VITALLY_SUBDOMAIN", "BASE_URL", "RETRY_BASE", "RETRY_JITTER", "RETRY", "TIMEOUT", "GZIP"]
    names += ["PROXY", "VERIFY", "STRICT", "WHEN_FULL", "MAX_QUEUE_MESSAGES", "BEFORE_SEND"]
    wrong = [{name: fit} for name in names] + [{fit.replace("=", "")[:2_000]: "1"}]
    for one in wrong:
        with monkeypatch.context() as patch:
            for name, value in {**base, **one}.items():
                patch.setenv(f"ANALYTICS_BATCHER_{name}", value)
            with pytest.raises(ValueError, match=r"^ANALYTICS_BATCHER_") as caught:
                Client.from_env()
        assert_one_line(str(caught.value))


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text[:12]))
def test_a_setting_that_prints_oddly_takes_one_line(text):
    """A value whose `repr` is several lines, as an array's is, takes one in the error about it."""

    class Odd:
        def __repr__(self):
            return text

    for option in ("max_queue_messages", "when_full", "timeout", "proxy", "verify", "retry", "gzip", "on_drop"):
        with pytest.raises((ValueError, TypeError)) as caught:
            Client(Vitally("acme", api_token=TOKEN), **{option: Odd()})
        assert_one_line(str(caught.value))


# --- Settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "subdomain",
    [
        *("", " ", "a.b", "evil.com/", "x@evil", "acme\n", "\nacme", "acme\r", "acme\x00", "ac\tme", "acme ", " acme"),
        *("acme%2eevil", "acme%00", "acme:443", "acme?", "acme#", "acme\\", "-acme", "acme-", "ACME", "a" * 64),
        *("\u0430cme", "acm\u0435", "ac\u00adme", "ac\u200bme", "acme\u3002evil", "xn--\u00e9", "\uff41cme", "\ud800"),
        *(b"acme", 5, True, ["acme"]),
    ],
    ids=ascii,
)
def test_a_subdomain_leads_to_no_other_host(subdomain):
    """A subdomain that is no plain label is refused, shown in one line, with what is allowed."""
    with pytest.raises(ValueError, match="subdomain") as caught:
        Vitally(subdomain, api_token=TOKEN)
    text = str(caught.value)
    assert_one_line(text)
    assert told(text) == []
    if subdomain is not None:
        assert text.startswith("subdomain=")
        assert "allowed are letters" in text


@pytest.mark.parametrize("label", ["a", "acme", "0", "a-b", "a" * 63, "xn--80ak6aa92e"])
def test_a_label_is_a_subdomain(label):
    """Any label of DNS is taken as it is."""
    assert Vitally(label, api_token=TOKEN).url == f"https://{label}.api.vitally.io/analytics/v1/batch"


MAKERS = {
    "api_token": lambda secret: Vitally("acme", api_token=secret),
    "site_id": lambda secret: CustomerIO(secret, KEY),
    "api_key": lambda secret: CustomerIO(SITE, secret),
    "write_key": Segment,
}


@pytest.mark.parametrize(
    "secret",
    [
        *("", " ", f"{TOKEN}\n", f"\n{TOKEN}", f"{TOKEN}\r\nX-Evil: 1", f"{TOKEN}\x00", f"{TOKEN}\t", f"{TOKEN} x"),
        *(f"{TOKEN}\x7f", f"{TOKEN}\x85", f"{TOKEN}é", f"{TOKEN}\u2028", f"{TOKEN}\ud800", TOKEN.encode(), 7, True),
        *(None, [TOKEN], {"token": TOKEN}),
    ],
    ids=ascii,
)
@pytest.mark.parametrize("setting", MAKERS)
def test_a_secret_that_no_header_carries_is_refused(setting, secret):
    """A secret with a character that would break a header is refused, by its setting's name, and is not shown."""
    with pytest.raises(ValueError, match=f"^{setting}: allowed is text of visible ASCII characters") as caught:
        MAKERS[setting](secret)
    assert told(with_variables(caught.value)) == []


@pytest.mark.parametrize("setting", MAKERS)
def test_a_long_secret_is_a_secret(client_of, vendors, wait_until, setting):
    """Ten thousand characters are taken; whether the vendor takes them is his to say."""
    destination = MAKERS[setting]("x" * 10_000)
    assert len(repr(destination)) < 200
    destination.url = vendors.url + "/" + destination.url.split("/", 3)[3]
    client = client_of(destination, flush_interval=0)
    client.track("u", "e")
    wait_until(lambda: client.stats().last_error)
    assert "xxxx" not in client.stats().last_error


@pytest.mark.parametrize("region", ["", "EU", "us\n", "evil.com/", "us.evil.com", None, 5, b"us", ["us"]], ids=ascii)
def test_a_region_is_one_of_two(region):
    """A region that is neither is refused, with what is allowed."""
    for make in (
        lambda: CustomerIO(SITE, KEY, region=region),
        lambda: Segment.customerio_pipelines(KEY, region=region),
    ):
        with pytest.raises(ValueError, match=r"^region=.*allowed is 'us' or 'eu'"):
            make()


@pytest.mark.parametrize(
    "base_url",
    [
        *("", " ", "acme", "//acme", "https:", "https://", "https://?", "ftp://acme", "file:///etc", "https:acme"),
        *("https://user:pw@acme", "https://user@acme", "https://acme@", "https://acme@evil.com", "https://a:b@[::1]"),
        *("https://acme/path", "https://acme//", "https://acme?q=1", "https://acme#f", "https://acme/?", "https://a;b"),
        *("https://acme\\", "https://acme\\@evil.com", "https:\\\\acme", "https://acme\\.vitally.io"),
        *("https://ac me", " https://acme", "https://acme\n", "https://ac\tme", "https://acme\r", "https://acme\x00"),
        *(
            "https://acme:0",
            "https://acme:00",
            "https://acme:99999",
            "https://acme:-1",
            "https://acme:8o",
            "https://:1",
        ),
        *("https://acme%2eevil.com", "https://%61cme", "https://acme%00", "https://acme,evil", "https://*.acme"),
        *(
            "https://a..b",
            "https://.a",
            "https://" + "a" * 64,
            "https://a&b",
            "https://a'b",
            'https://a"b',
            "https://{a}",
        ),
        *(
            "https://\u0430cme",
            "https://acme\u3002evil.com",
            "https://\uff41cme",
            "https://ac\u00adme",
            "https://\ud800",
        ),
        *("https://[::1", "https://::1", "https://[::1]x", "https://[v1.x]", "https://[fe80::1%eth0]", "https://[]"),
        *("https://[fe80::1%25eth0]", "https://[acme]", b"https://acme", 5, True, ["https://acme"]),
    ],
    ids=ascii,
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_base_url_is_scheme_host_and_port(kind, base_url):
    """Anything more, or another spelling of a host, is refused in one line, also where plain http is allowed."""
    for options in ({}, {"allow_http": True}):
        with pytest.raises(
            ValueError, match=r"^base_url.*allowed is https://host, without path, query or user"
        ) as caught:
            KINDS[kind](base_url=base_url, **options)
        assert_one_line(str(caught.value))
        assert "pw" not in str(caught.value)


@pytest.mark.parametrize(
    "host",
    [
        *(
            "evil.com",
            "127.0.0.1.evil.com",
            "localhost.evil.com",
            "localhost.",
            "evil-localhost",
            "localhost_",
            "0.0.0.0",  # noqa: S104 - no address to bind to
        ),
        *(
            "127.1",
            "0x7f000001",
            "2130706433",
            "0177.0.0.1",
            "127.0.0.1.",
            "127.0.0.256",
            "10.1.2.3",
            "169.254.169.254",
        ),
        *("[::]", "[::2]", "[fe80::1]", "[2001:db8::1]", "[::ffff:10.1.2.3]", "[64:ff9b::7f00:1]"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_plain_http_needs_the_loopback_or_an_option(kind, host):
    """A name or number that is not plainly this machine is refused without TLS, unless the application says so."""
    with pytest.raises(ValueError, match=r"^base_url=.*plain http sends the secret in the clear.*allow_http=True"):
        KINDS[kind](base_url=f"http://{host}:8080")
    assert KINDS[kind](base_url=f"http://{host}:8080", allow_http=True).url.startswith(f"http://{host}:8080/")
    assert KINDS[kind](base_url=f"https://{host}:8080").url.startswith(f"https://{host}:8080/")


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST", "127.0.0.1", "127.255.255.254", "[::1]", "[0:0:0:0:0:0:0:1]"]
)
@pytest.mark.parametrize("kind", KINDS)
def test_the_loopback_needs_no_tls(kind, host):
    """What never leaves the machine may go in the clear."""
    assert KINDS[kind](base_url=f"http://{host}:8080").url.startswith(f"http://{host.lower()}:8080/")


@pytest.mark.parametrize(
    "proxy",
    [
        *("", " ", "host", "host:3128", "//host", "http://", "http://:1", "ftp://host", "socks4://host", "http:host"),
        *("http://host\n", "http://ho st", "http://host\t", "http://host\x00", "http://h\u00f6st", "http://host:0"),
        *("http://host:99999", "http://host:port", "http://[::1", "environment ", "ENVIRONMENT", "x" * 5_000),
        *(b"http://host", 5, True, ["http://host"], {"http": "http://host"}),
    ],
    ids=lambda proxy: ascii(proxy)[:40],
)
def test_a_proxy_is_a_url(proxy):
    """Anything else is refused in one line that names the setting, the value and what is allowed."""
    with pytest.raises(
        ValueError, match=r"^proxy must be None, 'environment' or a URL of scheme http, https"
    ) as caught:
        Client(Vitally("acme", api_token=TOKEN), proxy=proxy)
    assert_one_line(str(caught.value), at_most=300)
