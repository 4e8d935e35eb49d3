"""The live page of `inspect` in a real browser: headless Chromium, driven as a person would."""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
import time
from http.client import HTTPException
from importlib import resources

import pytest
from live_world import NOW, World, running, track

NEEDED = os.environ.get("NEEDS_BROWSER") == "1"
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if NEEDED:
    assert BROWSER, "NEEDS_BROWSER=1, and there is no Chromium"
else:
    pytest.importorskip("playwright", reason="a browser is driven by playwright")
from playwright.sync_api import sync_playwright  # noqa: E402 - it need not be there

pytestmark = pytest.mark.skipif(BROWSER is None, reason="there is no Chromium; NEEDS_BROWSER=1 makes that a failure")

WIDE, NARROW = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
HOSTILE = (
    "<script>window.hacked = 1</script><img src=x onerror='window.hacked=2'>\"'`]}</pre></textarea>--><!--"
    "${window.hacked=3}\u2028\u0000\x1b[2J\ud83d\ude00"
)
ROWS = "#body .row:not([hidden])"


@pytest.fixture(scope="module")
def browser():
    """One headless Chromium for the file."""
    with sync_playwright() as driver:
        # In a container there is no sandbox to be had for root; the pages are our own, and on loopback.
        started = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield started
        started.close()


@pytest.fixture
def world():
    """A receiver of all vendors with a live page."""
    with running() as made:
        yield made


@pytest.fixture
def open_page(browser, world):
    """Opens the page; fails the test for any error in it, any request to elsewhere, and any dialog."""
    contexts, wrong = [], []

    def opened(viewport=WIDE, colours="light", **options):
        context = browser.new_context(viewport=viewport, color_scheme=colours, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
        page.on("console", lambda said: wrong.append(said.text) if said.type in {"error", "warning"} else None)
        page.on("request", lambda one: None if one.url.startswith((world.url, "data:,")) else wrong.append(one.url))
        page.on("dialog", lambda one: wrong.append(f"dialog: {one.message}"))
        page.goto(world.url)
        until(page, "document.getElementById('link').textContent === 'live'")
        return page

    opened.wrong = wrong
    yield opened
    for context in contexts:
        context.close()
    assert wrong == []


def until(page, condition, seconds=10):
    """Wait until an expression is true; Playwright's own way evaluates it in the page, which its policy forbids."""
    deadline = time.monotonic() + seconds
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, condition
        page.wait_for_timeout(20)  # which lets the page go on, and is no guess at how long it takes


def shown(page):
    """The events in the rows that are in the document, the newest first, as they stand in place."""
    script = """rows => rows.map(r => [Number(r.getAttribute('aria-rowindex')), r.querySelector('.event').textContent])
        .sort((a, b) => a[0] - b[0]).map(pair => pair[1])"""
    return page.locator(ROWS).evaluate_all(script)


def wait_for_rows(page, *events):
    """Wait until these events are the rows, the newest first."""
    deadline = time.monotonic() + 10
    while shown(page) != list(events):
        assert time.monotonic() < deadline, shown(page)
        page.wait_for_timeout(20)  # which lets the page go on, and is no guess at how long it takes


def events_of(count, start=1, **changes):
    """Messages with numbered events."""
    return [track(number, event=f"e{number}", **changes) for number in range(start, start + count)]


# --- Rows, filters, details -------------------------------------------------------------------------------------------


def test_messages_appear_as_they_arrive(open_page, world):
    """Without a reload, newest first, with who, what, how large and in which batch."""
    page = open_page()
    assert "Nothing has come in yet" in page.inner_text("#nothing")
    world.post(events_of(2, accountId="acme"))
    wait_for_rows(page, "e2", "e1")
    world.post(events_of(1, 3))
    wait_for_rows(page, "e3", "e2", "e1")
    row = page.locator(ROWS, has_text="e2")
    cells = [row.locator(f".{name}").inner_text() for name in ("kind", "user", "account", "batch", "vendor", "marks")]
    assert cells == ["track", "u1", "acme", "#1 2/2", "vitally", ""]
    assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3}", row.locator(".time").inner_text())
    assert row.locator(".size").inner_text() == f"{len(json.dumps(events_of(1, 2, accountId='acme')[0]))} B"
    assert page.inner_text("#nothing") == ""
    assert page.inner_text("#kept") == "3 kept"


def test_filters_narrow_what_is_shown(open_page, world):
    """By kind, user or account, event, text in the whole message, vendor and faults; also what comes later."""
    page = open_page()
    world.post(
        [*events_of(1), *events_of(1, 2, userId="U2", accountId="acme"), *events_of(1, 3, properties={"x": "Needle"})]
    )
    world.post([{"type": "account", "accountId": "acme", "messageId": "a"}])
    world.post([{**track(5), "event": 5}])
    wait_for_rows(page, "5", "", "e3", "e2", "e1")
    page.select_option("#kind", "account")
    wait_for_rows(page, "")
    assert page.inner_text("#shown") == "1 shown"
    page.select_option("#kind", "")
    page.fill("#user", "u2")
    wait_for_rows(page, "e2")
    page.fill("#user", "ACME")
    wait_for_rows(page, "", "e2")
    page.fill("#user", "")
    page.fill("#event", "E3")
    wait_for_rows(page, "e3")
    page.fill("#event", "")
    page.check("#faults")
    wait_for_rows(page, "5")
    page.uncheck("#faults")
    page.fill("#text", "needle")
    wait_for_rows(page, "e3")
    world.post([*events_of(1, 6), *events_of(1, 7, properties={"needles": 1})])
    wait_for_rows(page, "e7", "e3")
    page.fill("#text", "no such text")
    wait_for_rows(page)
    assert page.inner_text("#nothing") == "No message passes the filter."
    page.fill("#text", "")
    wait_for_rows(page, "e7", "e6", "5", "", "e3", "e2", "e1")


def test_a_click_shows_the_whole_message(open_page, world):
    """As it was sent, its neutral form, its request, a curl, and the rules that it keeps."""
    message = {"type": "identify", "userId": "u9", "traits": {"a": 1.5}, "messageId": "m", "timestamp": NOW}
    page = open_page()
    world.post([message], "segment")
    page.locator(ROWS).click()
    page.wait_for_selector("#details:not([hidden])")
    sections = {one.split("\n")[0]: one for one in page.locator("#details section").all_inner_texts()}
    assert list(sections) == ["Rules", "As it was sent", "Neutral form", "Request", "curl"]
    assert "No rule is broken." in sections["Rules"]
    sent, neutral = (json.loads(page.locator("#details pre").nth(index).inner_text()) for index in (0, 1))
    assert sent == message
    assert neutral == {**message, "type": "user"}
    assert "200 after " in sections["Request"]
    assert "[not shown]" in sections["Request"]
    assert "$TOKEN" in sections["curl"]
    page.get_by_role("button", name="Close").click()
    page.wait_for_selector("#details", state="hidden")


def test_broken_rules_are_shown_in_words(open_page, world):
    """A row is marked, and its details say each rule; its sister in the batch is not blamed."""
    page = open_page()
    world.post([track(1), {"type": "track", "event": 7, "messageId": "bad"}])
    page.wait_for_selector(".faulty")
    assert page.locator(".marks").all_inner_texts()[1:] == ["fault · 400", "400"]
    page.locator(".faulty").click()
    page.wait_for_selector(".faults")
    said = page.locator(".faults li").all_inner_texts()
    assert said == [
        "properties is missing",
        "none of userId, accountId, organizationId is there",
        "event is not a string",
    ]
    page.locator(ROWS).nth(1).click()
    until(page, "document.querySelector('#details .fine') !== null")
    assert "It was not taken" in page.inner_text("#details")
    assert page.locator("#details .faults").count() == 0


def test_a_repeat_is_marked_and_leads_to_the_first(open_page, world):
    """The same id twice is a retry that was seen: the row says so, and one click leads to the other."""
    page = open_page()
    world.post(events_of(1))
    world.post(events_of(1))
    wait_for_rows(page, "e1", "e1")
    marks = page.locator(ROWS).locator(".marks").all_inner_texts()
    assert sorted(marks) == ["", "2\N{MULTIPLICATION SIGN} id"]
    page.locator(ROWS).nth(marks.index("2\N{MULTIPLICATION SIGN} id")).click()
    page.locator("dd button").click()
    until(page, "document.getElementById('title').textContent.endsWith('message 1')")


def test_a_hostile_message_is_only_text(open_page, world):
    """Markup, quotes and control characters in every field do nothing: no script, no element, no request, no dialog."""
    page = open_page()
    fields = {"userId": HOSTILE, "accountId": HOSTILE, "event": HOSTILE, "messageId": "h"}
    world.post([track(properties={HOSTILE: HOSTILE}, **{**fields, "messageId": HOSTILE[:99]})])
    world.post([{"type": HOSTILE, "action": HOSTILE, HOSTILE: HOSTILE}], "customerio")
    world.post([{"type": HOSTILE, HOSTILE: 1}], "segment")
    until(page, "document.querySelectorAll('#body .row').length >= 3")
    for index in range(3):
        page.locator(ROWS).nth(index).click()
        page.wait_for_selector("#details pre")
    page.fill("#text", "<script>")
    until(page, "document.getElementById('shown').textContent === '' && location.hash === ''")
    page.fill("#text", HOSTILE.replace("\x00", "").replace("\u2028", ""))
    until(page, "document.getElementById('nothing').textContent.startsWith('No message')")
    page.fill("#text", "")
    assert page.evaluate("window.hacked") is None
    assert page.locator("img").count() == 0
    assert page.locator("script").count() == 1
    assert page.locator("body > textarea").count() == 0
    page.wait_for_selector("#details pre")
    assert "<script>window.hacked = 1</script>" in page.inner_text("#details pre")


def test_the_policy_stops_markup_even_if_the_page_tried(open_page):
    """Should a mistake in the page ever make text into markup, the browser refuses."""
    page = open_page()
    refused = page.evaluate(
        "() => { try { document.body.innerHTML = '<b>x</b>'; return ''; } catch (e) { return e.name; } }"
    )
    assert refused == "TypeError"
    assert len(open_page.wrong) == 1
    assert "TrustedHTML" in open_page.wrong.pop()


def test_copy_and_download(open_page, world):
    """Copy puts the command on the clipboard; Download saves what the filter lets through."""
    page = open_page(permissions=["clipboard-read", "clipboard-write"], accept_downloads=True)
    world.post(events_of(3))
    page.fill("#event", "e2")
    wait_for_rows(page, "e2")
    with page.expect_download() as download:
        page.click("#download")
    assert download.value.suggested_filename == "messages.jsonl"
    saved = download.value.path().read_text()
    assert [json.loads(line)["event"] for line in saved.splitlines()] == ["e2"]
    page.locator(ROWS).click()
    page.wait_for_selector("#details pre")
    page.locator("section", has_text="curl").get_by_role("button", name="Copy").last.click()
    until(page, "document.getElementById('news').textContent === 'Copied'")
    assert page.evaluate("navigator.clipboard.readText()").startswith('curl -H "Authorization: Basic $TOKEN"')


def test_clear_forgets_everything(open_page, world):
    """On the page and on the server."""
    page = open_page()
    world.post(events_of(3))
    wait_for_rows(page, "e3", "e2", "e1")
    page.click("#clear")
    wait_for_rows(page)
    assert world.live.feed.size == (0, 0)
    world.post(events_of(1, 9))
    wait_for_rows(page, "e9")


# --- Weather and charts -----------------------------------------------------------------------------------------------


def test_weather_buttons_work(open_page, world):
    """Each button changes what an application is answered, and the page says what is on and for how long."""
    page = open_page()
    for name, status in (("429", 429), ("500", 500), ("207", 207), ("clear", 200)):
        page.click(f"[data-weather='{name}']")
        page.wait_for_selector(f"[data-weather='{name}'][aria-pressed='true']")
        assert world.post([track(name)]).status == status
        told = page.inner_text("#told")
        assert told == "" if name == "clear" else re.match(r"(10|9|8) s more: Every ", told)
    page.click("[data-weather='tenth']")
    page.wait_for_selector("[data-weather='tenth'][aria-pressed='true']")
    assert world.post([track(number) for number in range(100)]).status == 400
    page.click("[data-weather='hang']")
    page.wait_for_selector("[data-weather='hang'][aria-pressed='true']")

    def hang():
        with pytest.raises((OSError, HTTPException)):
            world.post([track("hung")])

    hanging = threading.Thread(target=hang)
    hanging.start()
    page.wait_for_selector(".marks:text-is('no answer')")
    page.click("[data-weather='clear']")
    world.receiver.stop()
    hanging.join(10)
    assert not hanging.is_alive()
    until(page, "document.getElementById('link').textContent === 'lost, trying again'")
    del open_page.wrong[:]  # that the line is lost, the browser says too


def test_charts_show_the_last_minute(open_page, world):
    """Each has a line and its figures in words."""
    page = open_page()
    world.post(events_of(4))
    world.post(events_of(4))
    until(page, "document.querySelector('#chart-messages svg').getAttribute('aria-label').includes('at most 8')")
    labels = page.locator("#charts svg").evaluate_all("all => all.map(one => one.getAttribute('aria-label'))")
    assert [label.split(":")[0] for label in labels] == [
        "Messages/s",
        "Messages/batch",
        "Bodies/s",
        "Answer",
        "Repeats/s",
    ]
    assert "at most 4.0" in labels[1]
    assert "at most 4 in" in labels[4]
    assert all(page.locator("#charts path").evaluate_all("all => all.map(one => one.getAttribute('d').length > 300)"))


# --- Hands, eyes, phones ----------------------------------------------------------------------------------------------


def test_everything_can_be_done_by_keys(open_page, world):
    """j, k, arrows, Enter, Escape, / and ? do what the help says; typing into a field is only typing."""
    page = open_page()
    world.post(events_of(3))
    wait_for_rows(page, "e3", "e2", "e1")

    def chosen():
        return page.locator(".row.chosen .event").all_inner_texts()

    page.keyboard.press("j")
    page.wait_for_selector(".row.chosen")
    assert chosen() == ["e3"]
    for key, event in (("j", "e2"), ("ArrowDown", "e1"), ("j", "e1"), ("k", "e2"), ("Home", "e3"), ("End", "e1")):
        page.keyboard.press(key)
        assert chosen() == [event]
    assert page.get_attribute("#list", "aria-activedescendant") == page.locator(".row.chosen").get_attribute("id")
    page.keyboard.press("Enter")
    page.wait_for_selector("#details pre")
    assert page.evaluate("document.activeElement.id") == "details"
    page.keyboard.press("Escape")
    page.wait_for_selector("#details", state="hidden")
    assert page.evaluate("document.activeElement.id") == "list"
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "text"
    page.keyboard.type("jk?")
    assert page.input_value("#text") == "jk?"
    assert not page.locator("#help").is_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator("#help").is_visible()
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none"


def test_colours_follow_the_system_and_the_switch(open_page):
    """Dark where the system is; the switch takes precedence, and is remembered."""
    paper = "getComputedStyle(document.body).backgroundColor"
    page = open_page()
    assert page.evaluate(paper) == "rgb(255, 255, 255)"
    dark = open_page(colours="dark")
    assert dark.evaluate(paper) == "rgb(20, 23, 28)"
    dark.click("#theme")
    assert dark.evaluate(paper) == "rgb(255, 255, 255)"
    dark.reload()
    assert dark.evaluate(paper) == "rgb(255, 255, 255)"
    dark.click("#theme")
    assert dark.evaluate(paper) == "rgb(20, 23, 28)"


def test_a_phone_can_read_it(open_page, world):
    """At 390 pixels nothing is wider than the screen, a row shows what matters, and a message fills the screen."""
    page = open_page(NARROW)
    world.post(events_of(40, properties={"long": "x" * 300}))
    page.wait_for_selector(ROWS)
    wide = "document.documentElement.scrollWidth > innerWidth"
    assert not page.evaluate(wide)
    assert page.locator("#list").bounding_box()["height"] > 400
    row = page.locator(ROWS).nth(2)
    for name in ("time", "kind", "user", "event", "size"):
        cell = row.locator(f".{name}")
        assert cell.is_visible()
        assert cell.evaluate("cell => cell.scrollWidth <= cell.clientWidth + 1")
    row.click()
    page.wait_for_selector("#details pre")
    assert page.locator("#details").bounding_box()["width"] == 390
    assert not page.evaluate(wide)
    page.get_by_role("button", name="Close").click()
    assert not page.locator("#details").is_visible()


@pytest.mark.parametrize("colours", ["light", "dark"])
@pytest.mark.parametrize("viewport", [WIDE, NARROW], ids=["wide", "narrow"])
def test_axe_finds_nothing(open_page, world, colours, viewport):
    """The rules of WCAG 2.2 AA and good practice, as axe checks them, are kept: empty, full, open, in bad weather."""
    pytest.importorskip("axe_playwright_python", reason="it carries axe")
    source = resources.files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")
    page = open_page(viewport, colours, bypass_csp=True)
    page.evaluate(source)

    def violations():
        found = page.evaluate("axe.run(document)")["violations"]
        return [(one["impact"], one["id"], [node["html"][:200] for node in one["nodes"]]) for one in found]

    assert violations() == []
    world.post([*events_of(2), {**track(9), "event": 9}])
    world.post(
        [{"type": "person", "action": "event", "identifiers": {"id": "u"}, "name": "e", "data": {}}], "customerio"
    )
    page.wait_for_selector(".faulty")
    page.click("[data-weather='500']")
    page.wait_for_selector("[data-weather='500'][aria-pressed='true']")
    assert violations() == []
    for event in ("9", "e"):
        page.locator(ROWS).filter(has=page.locator(f".event:text-is('{event}')")).first.click()
        page.wait_for_selector(f"#title:has-text(' {event} ')")
        assert violations() == []
        page.get_by_role("button", name="Close").click()
    page.click("#ask")
    assert violations() == []


# --- Much of it -------------------------------------------------------------------------------------------------------


def test_a_hundred_thousand_are_kept_and_few_drawn(open_page, world):
    """The document holds what can be seen, the oldest can be reached, filters are quick, and memory is bounded."""
    page = open_page()
    world.live.feed.clear()
    for batch in range(1_050):
        world.post(events_of(100, 1 + 100 * batch, userId=f"u{batch}"))
    until(page, "rows.length === 100000 && rows[99999][N] === 105000 && !drawing", seconds=30)
    assert page.locator("#body .row").count() < 60
    assert shown(page)[0] == "e105000"
    page.keyboard.press("End")
    until(page, "document.querySelector('.row.chosen .event')?.textContent === 'e5001'")
    begun = time.monotonic()
    page.fill("#user", "u777")
    until(page, "document.getElementById('shown').textContent.startsWith('100 ')")
    assert time.monotonic() - begun < 3
    page.fill("#user", "")
    page.fill("#text", "e77777")
    until(page, "document.getElementById('shown').textContent.startsWith('1 ')")
    devtools = page.context.new_cdp_session(page)
    devtools.send("HeapProfiler.collectGarbage")
    assert devtools.send("Runtime.getHeapUsage")["usedSize"] < 100 * 2**20


def test_who_reads_older_rows_is_left_alone(open_page, world):
    """New messages do not move what is being read; at the top they are shown as they come."""
    page = open_page()
    world.post(events_of(100))
    page.wait_for_selector(ROWS)
    page.evaluate("document.getElementById('list').scrollTop = 1400")
    until(page, "[...document.querySelectorAll('#body .row .event')].some(e => e.textContent === 'e50')")

    def place():
        return page.locator(ROWS).filter(has=page.locator(".event:text-is('e50')")).bounding_box()["y"]

    before = place()
    world.post(events_of(30, 200))
    until(page, "document.getElementById('kept').textContent === '130 kept'")
    assert abs(place() - before) < 2
    page.keyboard.press("Home")
    until(page, "[...document.querySelectorAll('#body .row .event')].some(e => e.textContent === 'e229')")


def test_a_thousand_a_second_are_kept_up_with(open_page, world):
    """Over a few seconds each message is on the screen within a second of its arrival (longer: benchmarks/live.py)."""
    page = open_page()
    page.evaluate(
        """() => { window.late = []; new MutationObserver(() => {
            const n = rows.length; if (n) window.late.push(Date.now() - rows[n - 1][1]);
        }).observe(document.getElementById('kept'), {childList: true}); }"""
    )
    start, end = time.monotonic(), 4
    for batch in range(10 * end):
        world.post(events_of(100, 1 + 100 * batch))
        page.wait_for_timeout(max(0, 1000 * (start + (batch + 1) / 10 - time.monotonic())))
    until(page, f"document.getElementById('kept').textContent === '{1_000 * end:,} kept'")
    late = page.evaluate("window.late")
    assert len(late) >= 3 * end
    assert max(late) < 1_000


def test_a_lost_line_is_said_and_found_again(browser):
    """When inspect ends the page says so; when it runs again, the page shows what is there now, and only that."""
    with running() as world:
        context = browser.new_context(viewport=WIDE)
        page = context.new_page()
        port = int(world.url.rpartition(":")[2])
        page.goto(world.url)
        world.post(events_of(3))
        wait_for_rows(page, "e3", "e2", "e1")
    until(page, "document.getElementById('link').textContent === 'lost, trying again'")
    again = World()
    again.receiver._port = port
    with again.receiver:
        until(page, "document.getElementById('link').textContent === 'live'", seconds=20)
        again.post(events_of(1, 8))
        wait_for_rows(page, "e8")
        context.close()


def test_the_token_leaves_the_address(browser):
    """Opened with its token, the page works, and the token is neither in the address bar nor in any script's reach."""
    token = "the-token-of-tests"
    with running(token) as world:
        context = browser.new_context(viewport=WIDE)
        page = context.new_page()
        page.goto(f"{world.url}/?token={token}")
        world.post(events_of(1))
        wait_for_rows(page, "e1")
        assert page.url == f"{world.url}/"
        assert page.evaluate("document.cookie") == ""
        page.reload()
        wait_for_rows(page, "e1")
        page.click("#clear")
        wait_for_rows(page)
        context.close()
