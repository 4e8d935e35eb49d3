import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from analytics_batcher import Client, DropReason, InvalidMessage, Vitally
from analytics_batcher.answer import Answer
from analytics_batcher.batch import Limits
from analytics_batcher.destinations import Action
from analytics_batcher.message import encode
from analytics_batcher.stamp import ID_GIVEN, NATIVE, TIME_GIVEN, iso_text, new_head, uuid_text

TOKEN = "live/Secret+Token=="
DATA = Path(__file__).parent / "data"
EXAMPLE = json.loads((DATA / "vitally-batch.json").read_text())
SCHEMA = json.loads((DATA / "vitally-batch.schema.json").read_text())
SUCCESS = b'{"message":"Success."}'
PAGE = b"<!DOCTYPE html><html><body>Log in to the airport's network</body></html>"


@pytest.fixture
def vitally():
    """The destination with usual settings."""
    return Vitally("acme", api_token=TOKEN)


def _url(base_url, **settings):
    return Vitally(api_token=TOKEN, base_url=base_url, **settings).url


def _refusal(*arguments, **settings):
    """What the error about a wrong setting says."""
    settings.setdefault("api_token", TOKEN)
    with pytest.raises(ValueError, match=r"allowed|needs") as caught:
        Vitally(*arguments, **settings)
    assert TOKEN not in str(caught.value)
    return str(caught.value)


def _record(message, flags=0):
    return new_head(flags) + encode(message)


# --- Settings: the address --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("subdomain", ["acme", "a", "0", "a-b", "a--b", "x" * 63, "123-abc"])
def test_subdomain_makes_the_address(subdomain):
    """The subdomain of the login's address makes that of the endpoint."""
    assert Vitally(subdomain, api_token=TOKEN).url == f"https://{subdomain}.api.vitally.io/analytics/v1/batch"


@pytest.mark.parametrize(
    "subdomain",
    [
        *("", " ", "ACME", "Acme", "-acme", "acme-", "-", "a.b", "a_b", "x" * 64, "acme ", " acme", "acme\n", "acme\r"),
        *("evil.com/", "evil.com#", "evil.com?", "evil.com:443/", "user@evil", "a/b", "a\\b", "a%2eb", "a:b", "a\x00"),
        *("äcme", "\u0430cme", "acme\u3002evil", "https://acme"),
        *(b"acme", 5, True, ["acme"], ("acme",)),
    ],
)
def test_subdomain_that_is_no_name(subdomain):
    """What could lead to another host, or is no name in DNS, is an error that shows it and says what is allowed."""
    text = _refusal(subdomain)
    assert text.startswith(f"subdomain={subdomain!r}: allowed are letters a to z, digits")


def test_address_is_needed():
    """With neither a subdomain nor a base URL there is nowhere to send to."""
    with pytest.raises(ValueError, match=r"^Vitally needs a subdomain, such as 'acme', or a base_url$"):
        Vitally(api_token=TOKEN)


@pytest.mark.parametrize(
    ("base_url", "url"),
    [
        ("https://api.vitally.io", "https://api.vitally.io/analytics/v1/batch"),
        ("https://api.vitally-eu.io/", "https://api.vitally-eu.io/analytics/v1/batch"),
        ("https://proxy.example:8443", "https://proxy.example:8443/analytics/v1/batch"),
        ("HTTPS://API.Vitally.io", "https://api.vitally.io/analytics/v1/batch"),
        ("https://10.1.2.3", "https://10.1.2.3/analytics/v1/batch"),
        ("https://[2001:db8::1]:8443", "https://[2001:db8::1]:8443/analytics/v1/batch"),
        ("http://localhost", "http://localhost/analytics/v1/batch"),
        ("http://LOCALHOST:80", "http://localhost:80/analytics/v1/batch"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080/analytics/v1/batch"),
        ("http://127.9.9.9", "http://127.9.9.9/analytics/v1/batch"),
        ("http://[::1]:8080/", "http://[::1]:8080/analytics/v1/batch"),
        ("http://[::1]", "http://[::1]/analytics/v1/batch"),
    ],
)
def test_base_url_replaces_scheme_host_and_port(base_url, url):
    """A base URL replaces scheme, host and port; plain http is taken for this machine."""
    assert _url(base_url) == url
    assert Vitally("acme", api_token=TOKEN, base_url=base_url).url == url


@pytest.mark.parametrize(
    "base_url",
    [
        *("", " ", "api.vitally.io", "//api.vitally.io", "https:", "https://", "https:///path", "https://:443"),
        *("ftp://api.vitally.io", "file:///etc/passwd", "javascript:alert(1)", "unix://socket"),
        *("https://evil.com/path", "https://evil.com/?q", "https://evil.com?q=1", "https://evil.com#f", "https://a//"),
        *("https://evil.com\n", "https://evil.com\r\n", "\nhttps://evil.com", "https://ev\til.com", "https://a b"),
        *(" https://evil.com", "https://evil.com ", "https://evil.com\x00", "https://évil.com", "https://evil。com"),
        *("https://evil.com\\", "https://evil.com\\.vitally.io", "https:\\\\evil.com"),
        *("https://evil.com:port", "https://evil.com:99999", "https://evil.com:-1", "https://[::1", "https://::1"),
        *(b"https://api.vitally.io", 5, True, ["https://api.vitally.io"]),
    ],
)
def test_base_url_that_is_none(base_url):
    """What is no bare https address is an error that names it and says what is allowed."""
    text = _refusal(base_url=base_url)
    assert text == f"base_url={base_url!r}: allowed is https://host, without path, query or user"


@pytest.mark.parametrize(
    "base_url",
    [
        "https://user:hunter2@api.vitally.io",
        "https://hunter2@api.vitally.io",
        "https://@api.vitally.io",
        "http://localhost:hunter2@evil.com",
        "https://user:hunter2@api.vitally.io:99999",
        "https://user:hunter2@api.vitally.io:port",
        "https://user:hunter2@",
        "https://user:hunter2@évil.com",
        "https://user:hunter2@api.vitally.io\n",
        "https://user:hunter2@api.vitally.io\\",
        "https://user:hunter2 @api.vitally.io",
        "https://user:hunter2@[::1",
        "ftp://user:hunter2@api.vitally.io",
    ],
)
def test_base_url_with_a_password_is_not_shown(base_url):
    """A base URL with a user is refused, and whatever else is wrong with it, the error does not show the password."""
    assert "hunter2" not in _refusal(base_url=base_url)


@pytest.mark.parametrize(
    "base_url",
    [
        "http://api.vitally.io",
        "http://10.1.2.3:8080",
        "http://0.0.0.0:8080",
        "http://[2001:db8::1]",
        "http://localhost.evil.com",
        "http://127.0.0.1.evil.com",
        "http://evil-localhost",
        "http://notlocalhost",
    ],
)
def test_plain_http_is_for_this_machine(base_url):
    """Plain http to another host would send the token in the clear: it is taken only if it was asked for."""
    text = _refusal(base_url=base_url)
    assert text.startswith(f"base_url={base_url!r}: ")
    assert "allow_http=True" in text
    assert _url(base_url, allow_http=True) == f"{base_url}/analytics/v1/batch"


def test_allowing_http_allows_nothing_else():
    """`allow_http` lets plain http through, and no other scheme and no path."""
    assert "allowed is https" in _refusal(base_url="ftp://evil.com", allow_http=True)
    assert "allowed is https" in _refusal(base_url="http://evil.com/path", allow_http=True)


# --- Settings: the name and the token ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("given_name", "name"), [(None, "vitally"), ("eu", "eu"), ("v.1_2-3", "v.1_2-3")])
def test_name(given_name, name):
    """A destination is called by its kind, or as the application says."""
    assert Vitally("acme", api_token=TOKEN, name=given_name).name == name


@pytest.mark.parametrize("name", ["", " ", "a b", "a\n", "é", "x" * 65, 5, b"eu", True])
def test_name_that_is_none(name):
    """A name that would not fit a log line or a metric's label is an error that says what is allowed."""
    assert _refusal("acme", name=name).startswith(f"name={name!r}: allowed are ")


@pytest.mark.parametrize(
    ("given_token", "token"),
    [("abc", "abc"), ("Basic abc", "abc"), (TOKEN, TOKEN), ("!~", "!~"), ("x" * 500, "x" * 500)],
)
def test_token_goes_raw(given_token, token):
    """The token goes as the vendor gave it, not as base64 of `token:`, and is not given twice the word `Basic`."""
    headers = Vitally("acme", api_token=given_token).headers()
    assert headers == {"Content-Type": "application/json", "Authorization": f"Basic {token}"}


@pytest.mark.parametrize(
    "token",
    [
        *("", "Basic ", " ", "hunter2\n", "hunter2\r\nX-Evil: 1", " hunter2", "hunter 2", "hunter2\x00", "hunter2\x7f"),
        *("hünter2", "hunter2\u2028", "Basic Basic hunter2", b"hunter2", 12345678, None, True, ["hunter2"]),
    ],
    ids=ascii,
)
def test_token_that_no_header_can_carry(token):
    """A token that a header cannot carry is an error that does not show it."""
    text = _refusal("acme", api_token=token)
    assert text == "api_token: allowed is text of visible ASCII characters, without spaces (it is not shown)"


def test_token_is_needed():
    """Without a token there is no destination."""
    with pytest.raises(TypeError, match="api_token"):
        Vitally("acme")


def test_token_is_not_shown(vitally):
    """A destination, and the client that has it, show their address and not their token."""
    client = Client(vitally, background=False)
    try:
        for shown in (repr(vitally), str(vitally), f"{vitally}", repr(client), repr(client.stats())):
            assert TOKEN not in shown
    finally:
        client.shutdown(0)
    assert "https://acme.api.vitally.io" in repr(vitally)
    assert "vitally" in repr(vitally)


# --- Which messages it takes ------------------------------------------------------------------------------------------

OWNERS = [{"accountId": "a"}, {"organizationId": "o"}, {"accountId": "a", "organizationId": "o"}]


@pytest.mark.parametrize(
    "message",
    [
        *({"type": "user", "userId": "u", "traits": {}, **owner} for owner in OWNERS),
        *({"type": "customobjectinstance", "externalId": "e", "customObjectId": "c", **owner} for owner in OWNERS),
        *({"type": "track", "event": "e", "properties": {}, **owner} for owner in OWNERS),
        {"type": "track", "event": "e", "properties": {}, "userId": "u"},
        {"type": "track", "event": "e", "properties": {}, "userId": "u", "accountId": "a"},
        {"type": "account", "accountId": "a"},
        {"type": "account", "accountId": "a", "traits": {}, "organizationId": "o", "userId": "u"},
        {"type": "organization", "organizationId": "o"},
        {"type": "unlink", "userId": "u", "accountId": "a"},
        *({key: value for key, value in message.items() if key != "messageId"} for message in EXAMPLE),
    ],
)
def test_message_that_vitally_takes(vitally, message):
    """A message with the vendor's required and conditional fields passes, and is not changed."""
    before = json.dumps(message)
    assert vitally.check(message) is None
    assert json.dumps(message) == before


@pytest.mark.parametrize(
    ("message", "needs"),
    [
        ({"type": "user", "userId": "u", "traits": {}}, "accountId"),
        ({"type": "user", "anonymousId": "x", "accountId": "a", "traits": {}}, "userId"),
        ({"type": "user", "traits": {}}, "userId"),
        ({"type": "track", "event": "e", "properties": {}}, "userId"),
        ({"type": "track", "event": "e", "properties": {}, "anonymousId": "x"}, "userId"),
        ({"type": "customobjectinstance", "externalId": "e", "customObjectId": "c", "traits": {}}, "accountId"),
    ],
)
def test_message_without_what_vitally_needs(vitally, message, needs):
    """A message without a field that the vendor needs is invalid, and the detail names the field."""
    reason, detail = vitally.check(message)
    assert reason is DropReason.INVALID
    assert needs in detail


@pytest.mark.parametrize("kind", ["page", "screen", "alias", "group", "identify"])
def test_message_that_vitally_does_not_have(vitally, kind):
    """A kind of message that the vendor does not have is unsupported, and the detail names it."""
    reason, detail = vitally.check({"type": kind, "userId": "u", "accountId": "a"})
    assert reason is DropReason.UNSUPPORTED
    assert kind in detail


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.identify("u", {}),
        lambda client: client.identify(None, {}, account_id="a"),
        lambda client: client.identify("u", {}, anonymous_id="x"),
        lambda client: client.identify("", {}, account_id="a"),
        lambda client: client.track(None, "e"),
        lambda client: client.track(None, "e", anonymous_id="x"),
        lambda client: client.track("u", ""),
        lambda client: client.track("u", None),
        lambda client: client.account(None),
        lambda client: client.account(""),
        lambda client: client.organization(None),
        lambda client: client.unlink("u", None),
        lambda client: client.unlink(None, "a"),
        lambda client: client.custom_object("e", "c"),
        lambda client: client.custom_object(None, "c", account_id="a"),
        lambda client: client.custom_object("e", None, account_id="a"),
    ],
)
def test_call_that_vitally_would_refuse(vitally, call):
    """A call without what the vendor requires is refused there and then."""
    client = Client(vitally, background=False, strict=True)
    try:
        with pytest.raises(InvalidMessage) as caught:
            call(client)
    finally:
        client.shutdown(0)
    assert caught.value.reason is DropReason.INVALID


# --- On the wire ------------------------------------------------------------------------------------------------------


def test_limits(vitally):
    """The vendor takes 100 messages a batch; the limits in bytes are ours."""
    assert vitally.limits == Limits(messages=100, bytes=500_000, message_bytes=32_768)
    assert vitally.envelope == len(vitally.body([], 0.0))
    assert (vitally.id_field, vitally.time_field) == ("messageId", "timestamp")


@given(st.lists(st.sampled_from(EXAMPLE), min_size=1, max_size=100))
def test_body_is_an_array_of_the_messages(messages):
    """A body is a bare array of the messages in their order, each with an id and a time, as the schema wants it."""
    vitally = Vitally("acme", api_token=TOKEN)
    bare = [
        {key: value for key, value in message.items() if key not in {"messageId", "timestamp"}} for message in messages
    ]
    records = [_record(message) for message in bare]
    wires = [vitally.wire(record) for record in records]
    body = vitally.body(wires, 0.0)
    assert len(body) == vitally.envelope + sum(map(len, wires)) + len(wires) - 1
    expected = [
        {"messageId": uuid_text(record), "timestamp": iso_text(record), **message}
        for record, message in zip(records, bare, strict=True)
    ]
    assert json.loads(body) == expected
    assert Draft202012Validator(SCHEMA).is_valid(expected)


def test_native_message_goes_as_it_is(vitally):
    """A native message with an id and a time of its own goes out byte for byte as it was encoded."""
    record = _record(EXAMPLE[0] | {"timestamp": "2018"}, NATIVE | ID_GIVEN | TIME_GIVEN)
    assert vitally.wire(record) == encode(EXAMPLE[0] | {"timestamp": "2018"})


# --- What an answer means ---------------------------------------------------------------------------------------------

RETRIED = {408, 410, 425, 429, 460, *range(500, 600)} - {501, 505}


def _meaning(status):
    """The verdicts of the design."""
    if 200 <= status < 300:
        return Action.DELIVERED
    if status in RETRIED:
        return Action.RETRY
    if status in {400, 422}:
        return Action.REJECTED
    return Action.SPLIT if status == 413 else Action.HALT


@pytest.mark.parametrize("status", range(100, 600))
def test_status(vitally, status):
    """Each status is delivered, retried, bisected, split, or halts, and the detail names it."""
    verdict = vitally.verdict(Answer(status))
    assert verdict.action is _meaning(status)
    assert verdict.detail.startswith(f"HTTP {status}")
    assert verdict.by_content == (status == 403)
    assert not verdict.rejected
    assert verdict.wait is None


@pytest.mark.parametrize("body", [b'{"error":"said"}', SUCCESS, PAGE], ids=["error", "success", "page"])
def test_body_changes_the_meaning_of_no_status_but_success(vitally, body):
    """What a body says changes the meaning of no status, but that a page makes no delivery."""
    for status in range(100, 600):
        expected = Action.RETRY if 200 <= status < 300 and body is PAGE else _meaning(status)
        assert vitally.verdict(Answer(status, {}, body)).action is expected, status


@pytest.mark.parametrize("header", ["retry-after", "ratelimit-reset", "x-ratelimit-reset"])
def test_wait_that_is_asked_for(vitally, header):
    """What is to be retried is retried when the answer says, and 300 seconds later at most."""
    for status in RETRIED:
        assert vitally.verdict(Answer(status, {header: "7"})).wait == 7
        assert vitally.verdict(Answer(status, {header: "9999"}, b'{"error":"said"}')).wait == 300
        assert vitally.verdict(Answer(status, {header: "soon"})).wait is None


@pytest.mark.parametrize("status", [200, 201, 202, 204, 206, 207, 226, 299])
@pytest.mark.parametrize(
    ("headers", "body", "truncated"),
    [
        ({}, b"", False),
        ({}, b" \r\n", False),
        ({}, SUCCESS, False),
        ({}, b"{}", False),
        ({}, b'\n {"message": "Success."}\n', False),
        ({"content-type": "text/plain"}, SUCCESS, False),
        ({}, b'{"message":"Succ', True),
        ({}, b' {"a":' + b"[" * 65_000, True),
        ({"content-encoding": "identity"}, SUCCESS, False),
        ({"content-encoding": " Identity "}, SUCCESS, False),
        ({"content-encoding": "gzip", "content-type": "application/json; charset=utf-8"}, b"\x1f\x8b\x08", False),
        ({"content-encoding": "br", "content-type": "Application/JSON"}, b"\x1f\x8b\x08", True),
        ({"content-encoding": "gzip"}, b"", False),
    ],
)
def test_success(vitally, status, headers, body, truncated):
    """A 2xx without a body, or with a JSON object, or its beginning, or what says that it is packed JSON, delivers."""
    verdict = vitally.verdict(Answer(status, headers, body, truncated))
    assert verdict.action is Action.DELIVERED
    assert not verdict.rejected


@pytest.mark.parametrize("status", [200, 202, 204, 207])
@pytest.mark.parametrize(
    ("headers", "body", "truncated"),
    [
        ({}, PAGE, False),
        ({"content-type": "application/json"}, PAGE, False),
        ({}, PAGE, True),
        ({}, b"OK", False),
        ({}, b"Success.", True),
        ({}, b'{"message":"Succ', False),
        ({}, b"{not json}", False),
        ({}, b'{"a": NaN}', False),
        ({}, b"[]", False),
        ({}, b"[{}", True),
        ({}, b'"Success."', False),
        ({}, b"true", False),
        ({}, b"null", False),
        ({}, b"\xff\xfe{}", False),
        ({}, b'{"a":' + b"[" * 65_000 + b"]" * 65_000 + b"}", False),
        ({"content-encoding": "identity"}, PAGE, False),
        ({"content-encoding": "gzip", "content-type": "text/html"}, b"\x1f\x8b\x08", False),
        ({"content-encoding": "gzip"}, b"\x1f\x8b\x08", False),
        ({"content-encoding": "gzip"}, SUCCESS, False),
    ],
)
def test_success_with_a_body_that_is_not_the_vendors(vitally, status, headers, body, truncated):
    """A 2xx whose body cannot be the vendor's, such as a captive portal's page, is no delivery: it is retried."""
    verdict = vitally.verdict(Answer(status, headers, body, truncated))
    assert verdict.action is Action.RETRY
    assert verdict.detail.startswith("unexpected_response")
    assert str(status) in verdict.detail
    assert "airport" not in verdict.detail


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"error":"Authorization header not present."}', ": Authorization header not present."),
        (b'{"message":"Blocked"}', ": Blocked"),
        (b'{"error":"one","message":"two"}', ": one"),
        (b'{"error":"","message":"two"}', ": two"),
        (b'{"error":"a\\nERROR forged"}', ": a\\nERROR forged"),
        (b'{"error":"\\u001b[31mred\\u2028"}', ": \\x1b[31mred\\u2028"),
        (b'{"error":"' + b"x" * 5_000 + b'"}', ": " + "x" * 200 + "..."),
        (b"", ""),
        (PAGE, ""),
        (b'{"error":{"code":1}}', ""),
        (b'{"error":5}', ""),
        (b'{"error":null}', ""),
        (b"[]", ""),
        (b'"text"', ""),
        (b"\xff", ""),
        (b'{"error":"half', ""),
    ],
)
@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422, 429, 500, 503])
def test_detail_repeats_what_the_error_says(vitally, status, body, said):
    """The vendor's own words stand in the detail, escaped and cut, if there are any to be read."""
    assert vitally.verdict(Answer(status, {}, body)).detail == f"HTTP {status}{said}"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    ("location", "host"),
    [
        ("https://login.example.com/in?token=hidden#hidden", "login.example.com"),
        ("http://user:hidden@portal.example:8080/hidden", "portal.example"),
        ("//cdn.example/hidden", "cdn.example"),
        ("https://[2001:db8::1]/", "2001:db8::1"),
        ("https://evil\x1b7.com/", "evil\\x1b7.com"),
        ("https://evil\u2028.com/", "evil\\u2028.com"),
        ("https://" + "x" * 5_000, "x" * 200 + "..."),
    ],
)
def test_redirect_names_its_host(vitally, status, location, host):
    """A redirect halts, and names the host it leads to, escaped and cut, and nothing more of the address."""
    verdict = vitally.verdict(Answer(status, {"location": location}))
    assert verdict.action is Action.HALT
    assert verdict.detail == f"HTTP {status}: redirected to {host}, which is not followed"


@pytest.mark.parametrize("headers", [{}, {"location": ""}, {"location": "/login"}, {"location": "https://[::1"}])
def test_redirect_without_a_host(vitally, headers):
    """A redirect whose host cannot be read halts like any other."""
    verdict = vitally.verdict(Answer(302, headers))
    assert verdict.action is Action.HALT
    assert verdict.detail.startswith("HTTP 302: redirected to ")


# --- What a server may do ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [302, 400, 401, 403, 404, 413, 422, 429, 500, 501, 503])
@pytest.mark.parametrize(
    "text",
    [
        TOKEN,
        f"Basic {TOKEN}",
        f"bad token {TOKEN}, {TOKEN}!",
        "x" * 195 + TOKEN,
        f"\n{TOKEN}\n",
    ],
)
def test_token_that_is_echoed_is_not_shown(vitally, status, text):
    """A server that repeats the token in its error does not get it into a log line, not even in part."""
    for field in ("error", "message"):
        detail = vitally.verdict(Answer(status, {}, json.dumps({field: text}).encode())).detail
        assert TOKEN not in detail
        assert TOKEN[:5] not in detail
        assert TOKEN not in repr(vitally.verdict(Answer(status, {}, json.dumps({field: text}).encode())))


def test_token_in_a_redirect_is_not_shown():
    """A server that repeats the token in the host it redirects to does not get it into a log line."""
    vitally = Vitally("acme", api_token="sk0live0hunter2")
    verdict = vitally.verdict(Answer(302, {"location": "https://sk0live0hunter2.evil.example/"}))
    assert verdict.action is Action.HALT
    assert "sk0live0hunter2" not in verdict.detail


@given(
    status=st.integers(100, 999),
    headers=st.dictionaries(
        st.sampled_from(["location", "retry-after", "content-type", "content-encoding", "ratelimit-reset"]),
        st.text(max_size=60),
    ),
    body=st.binary(max_size=60) | st.text().map(lambda text: json.dumps({"error": text + TOKEN + text}).encode()),
    truncated=st.booleans(),
)
def test_any_answer_has_a_meaning(status, headers, body, truncated):
    """Whatever a server answers has a meaning, told in one printable line of bounded length without the token."""
    verdict = Vitally("acme", api_token=TOKEN).verdict(Answer(status, headers, body, truncated))
    assert verdict.action in Action
    assert verdict.detail.isprintable()
    assert len(verdict.detail) < 2_200
    assert TOKEN not in verdict.detail
    assert verdict.wait is None or 0 < verdict.wait <= 300


def test_what_is_meant_for_other_vendors_does_not_reach_vitally(make_client, receiver):
    """Context, integrations, anonymous ids and an account's user are for others; a native message stays as it is."""
    client = make_client()
    given = {"context": {"ip": "1.2.3.4"}, "integrations": {"All": True}, "anonymous_id": "a"}
    assert client.track("u", "e", {"context": {"kept": 1}}, **given)
    assert client.account("a1", {"name": "Acme"}, user_id="u", **given)
    assert client.enqueue({"type": "account", "accountId": "a1", "userId": "u", "context": {}})
    assert client.flush()
    stamped = {"messageId", "timestamp"}
    assert [{k: v for k, v in message.items() if k not in stamped} for message in receiver.messages] == [
        {"type": "track", "event": "e", "properties": {"context": {"kept": 1}}, "userId": "u"},
        {"type": "account", "accountId": "a1", "traits": {"name": "Acme"}},
        {"type": "account", "accountId": "a1", "userId": "u", "context": {}},
    ]
