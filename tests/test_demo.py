from __future__ import annotations

import base64
import re
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

from analytics_batcher import DropReason, FlushResult, __version__
from analytics_batcher.cli import demo, demo_checks, demo_world
from analytics_batcher.cli import main as command_line
from analytics_batcher.cli.demo_vendors import CUSTOMERIO, SEGMENT, VENDORS, VITALLY
from analytics_batcher.receiver import Reply
from analytics_batcher.stats import Dropped

TRACKS = 1_000
OTHERS = demo_world.THREADS + demo_world.ACCOUNTS + demo_world.USERS + demo_world.TICKETS + demo_world.UNLINKS
ALL = TRACKS + OTHERS
NAMES = [vendor.name for vendor in VENDORS]
FORMLESS = ("organizations", "custom objects", "unlinks")
UNSUPPORTED = {
    "vitally": 0,
    "customerio": 0,
    "segment": demo_world.THREADS + demo_world.TICKETS + demo_world.UNLINKS,
}
ARRIVED = "what arrived is what was tracked, in each thread's order"


def command(*arguments):
    """Run the package as a command."""
    return subprocess.run(
        [sys.executable, "-m", "analytics_batcher", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def figures(text):
    """The numbers of each row, by its section's first word and its name."""
    sections, rows = {}, {}
    for line in text.splitlines():
        if heading := re.match(r"[\w.]+( \w+)?", line):
            rows = sections.setdefault(heading[0], {})
        elif row := re.fullmatch(r"  (\D.*?)  +([\d,.]+)(.*)", line):
            numbers = re.findall(r"\d[\d,.]*", row[2] + row[3])
            rows[row[1]] = [float(number.replace(",", "").rstrip(".")) for number in numbers]
    return sections


def verdicts(one):
    """What failed in a run, after changes to it."""
    _, checks = demo.report(one.world, one.outcome)
    return [claim for holds, claim in checks if not holds]


def changed(one, **changes):
    """The run with another outcome."""
    return SimpleNamespace(world=one.world, outcome=replace(one.outcome, **changes))


def with_side(one, **changes):
    """The run with changes at its vendor."""
    return changed(one, sides=(replace(one.outcome.sides[0], **changes),))


def with_stats(one, **more):
    """The run with the client's figures for its vendor raised."""
    stats = one.outcome.sides[0].stats
    return with_side(one, stats=replace(stats, **{name: getattr(stats, name) + by for name, by in more.items()}))


def with_body(one, number, change):
    """The run with a request's body changed."""
    requests = list(one.outcome.sides[0].requests)
    body = change(requests[number].body)
    assert body != requests[number].body
    requests[number] = replace(requests[number], body=body)
    return with_side(one, requests=tuple(requests))


@pytest.fixture(scope="module", params=[(to, faults) for to in (*NAMES, "all") for faults in (False, True)], ids=str)
def printed(request):
    """A demo run as a command, for each vendor and for all, while the receiver works and while it fails."""
    to, faults = request.param
    arguments = ["--to", to] * (to != "vitally") + ["--faults"] * faults
    result = command("demo", *arguments, "--tracks", str(TRACKS))
    vendors = [vendor for vendor in VENDORS if to in {vendor.name, "all"}]
    return SimpleNamespace(result=result, text=result.stdout, vendors=vendors, faults=faults)


@pytest.fixture(scope="module", params=VENDORS, ids=NAMES)
def good(request):
    """A world, and what came of a run in this process to one vendor, in which an answer was lost."""
    world = demo_world.build(400)
    vendor = request.param
    return SimpleNamespace(world=world, outcome=demo.run(world, [vendor], {vendor.name: [Reply(reset="after")]}))


def test_demo_succeeds_and_prints_nothing_but_its_report(printed):
    """Every check holds, the status is 0, standard error stays empty, and the report is easy to read."""
    assert (printed.result.returncode, printed.result.stderr) == (0, "")
    assert "FAILED" not in printed.text
    count = len(printed.vendors)
    assert len(re.findall(r"^  ok ", printed.text, re.MULTILINE)) == 2 + 10 * count
    assert len(printed.text.splitlines()) <= 20 + 20 * count
    assert max(map(len, printed.text.splitlines())) <= 100


def test_messages_by_kind_add_up(printed):
    """The kinds are those of the world, arrive as often as they were tracked where there is a form, and sum up."""
    messages = figures(printed.text)["Messages"]
    total = messages.pop("all")
    assert [tracked for tracked, *_ in messages.values()] == [4, 50, 500, 60, 25, TRACKS]
    for place, vendor in enumerate(printed.vendors, start=1):
        formless = FORMLESS if vendor.name == "segment" else ()
        for name, row in messages.items():
            assert row[place] == (0 if name in formless else row[0])
        assert total[place] == ALL - UNSUPPORTED[vendor.name]
    assert total[0] == ALL


def test_client_and_receiver_agree(printed):
    """What the client says that it delivered is what the receiver stored, repeats apart, for each vendor."""
    sections = figures(printed.text)
    for vendor in printed.vendors:
        part, unsupported = sections[vendor.title], UNSUPPORTED[vendor.name]
        assert part["delivered"] == [ALL - unsupported]
        assert part["unsupported"] == [unsupported]
        repeats, stored = part["repeats"]
        assert stored - repeats == ALL - unsupported
        assert part["objections"] == [0]
        requests, failed, *kinds = part["requests"]
        assert requests - failed >= (ALL - unsupported) / vendor.limits.messages
        assert part["retries"] == [failed]
        assert 0 < part["fullest batch"][0] <= part["fullest batch"][1] == vendor.limits.messages
        assert 0 < part["largest body"][0] <= part["largest body"][1] == 500_000
        assert bool(failed) == bool(repeats) == bool(kinds) == printed.faults


def test_calls_are_counted(printed):
    """A call is accepted if one of the vendors has a form for it."""
    calls = figures(printed.text)["The calls"]
    assert calls["accepted"][0] == ALL - min(UNSUPPORTED[vendor.name] for vendor in printed.vendors)
    assert 0 < calls["call p50"][0] <= calls["call p99"][0]


def test_every_kind_of_failure_occurs(printed):
    """With faults, lost answers, resets, 429 and 500 all occur."""
    kinds = ("lost answers", "resets", "times 429", "times 500")
    assert (all(kind in printed.text for kind in kinds)) == (printed.faults and VITALLY in printed.vendors)


def test_a_quarter_of_the_first_requests_fails():
    """Of each twenty requests to a vendor five fail, and the same ones in each run."""
    failures = demo.failures()
    assert [sum(reply is not None for reply in failures[at : at + 20]) for at in range(0, 240, 20)] == [5] * 12
    assert failures == demo.failures()


@pytest.mark.parametrize("vendor", [CUSTOMERIO, SEGMENT], ids=["customerio", "segment"])
def test_batches_are_filled_by_bytes(vendor):
    """Where there is enough to send, the fullest request has over 380 kB, and one that has less is found."""
    world = demo_world.build(4_500)
    one = SimpleNamespace(world=world, outcome=demo.run(world, [vendor]))
    assert verdicts(one) == []
    assert 380_000 < one.outcome.sides[0].largest <= 500_000
    requests = [replace(request, size=min(request.size, 380_000)) for request in one.outcome.sides[0].requests]
    assert [claim[:18] for claim in verdicts(with_side(one, requests=tuple(requests)))] == ["batches are filled"]


def test_good_run_passes_every_check(good):
    """A run whose answer was lost passes, and did see a repeat: the tests below begin from it."""
    assert verdicts(good) == []
    side = good.outcome.sides[0]
    assert side.stored > side.unique


@pytest.mark.parametrize(
    ("changes", "claim"),
    [
        ({"tracked": 1}, "conservation"),
        ({"delivered": 1}, "conservation"),
        ({"tracked": 1, "pending": 1}, "nothing is pending"),
        ({"tracked": 1, "handed_over": 1}, "calls were counted"),
        ({"delivered": 1, "tracked": 1}, "the receiver stored as many"),
        ({"batches": 1}, "requests received ="),
        ({"requests": 1}, "requests received ="),
    ],
)
def test_wrong_client_figures_are_found(good, changes, claim):
    """A figure of the client's that is off by one fails the check that it belongs to."""
    failed = verdicts(with_stats(good, **changes))
    assert any(claim in line for line in failed)
    assert ("conservation" in " ".join(failed)) == (claim == "conservation")


@pytest.mark.parametrize("reason", [DropReason.INVALID, DropReason.UNSUPPORTED])
def test_drops_are_found(good, reason):
    """A client that dropped a message for which there is a form fails, though its books balance."""
    failed = verdicts(with_stats(good, tracked=1, dropped=Dropped({reason: 1})))
    assert any(line.startswith("nothing was dropped") for line in failed)
    assert "conservation" not in " ".join(failed)


@pytest.mark.parametrize("flushed", [FlushResult(pending=1), FlushResult(lost=1), FlushResult(timed_out=True)])
def test_failed_flush_is_found(good, flushed):
    """A flush that left or lost something, or ran out of time, fails."""
    assert verdicts(changed(good, flushed=flushed)) == ["flush() was true, and within its time"]


def test_refused_call_is_found(good):
    """A call that returned False fails."""
    failed = verdicts(changed(good, accepted=good.outcome.accepted - 1))
    assert [line.split(",")[0] for line in failed] == [
        f"all {good.outcome.accepted:,} calls were accepted".split(",")[0]
    ]


@pytest.mark.parametrize("kind", ["faults", "warnings"])
def test_receivers_objection_is_found(good, kind):
    """A fault that the receiver found fails, and so does a warning."""
    first, *others = good.outcome.sides[0].requests
    failed = verdicts(with_side(good, requests=(replace(first, **{kind: ("batch[0].data",)}), *others)))
    assert failed == ["the receiver found no fault, and nothing to warn of, in any request"]


def test_lost_requests_are_found(good):
    """Requests that never arrived fail the comparison with what was tracked."""
    assert ARRIVED in verdicts(with_side(good, requests=()))


def test_duplicate_requests_are_found(good):
    """A request made once more than its answers called for fails."""
    side = good.outcome.sides[0]
    more = side.stored + len(side.requests[-1].messages)
    failed = verdicts(with_side(good, requests=(*side.requests, side.requests[-1]), stored=more))
    assert any("came again" in line for line in failed)


def in_every_arrival(one, old, new):
    """The run with a change to each stored body, so that repeats stay alike."""
    requests = [replace(made, body=made.body.replace(old, new, 1)) for made in one.outcome.sides[0].requests]
    return with_side(one, requests=tuple(requests))


@pytest.mark.parametrize(("old", "new"), [(b'"plan":"', b'"plan":"x'), (b"user-0", b"user-9"), (b'"name":"', b'"n":"')])
def test_altered_content_is_found(good, old, new):
    """Another value, another user and another field in one message each fail the comparison, and nothing else."""
    assert verdicts(in_every_arrival(good, old, new)) == [ARRIVED]


def test_another_order_is_found(good):
    """Messages that arrive in another order than they were tracked fail the comparison, and nothing else."""

    def turned(request):
        batch = ",".join(reversed(list(demo_checks._texts(request.body))))
        return replace(request, body=f"[{batch}]".encode(), messages=request.messages[::-1])

    requests = tuple(map(turned, good.outcome.sides[0].requests))
    assert verdicts(with_side(good, requests=requests)) == [ARRIVED]


@pytest.mark.parametrize(
    ("old", "new"), [(rb'"timestamp":("?)\d', rb'"timestamp":\g<1>3'), (rb'"type":', rb'"type": ')]
)
def test_altered_repeat_is_found(good, old, new):
    """A repeat with another time fails, and so does one that only has another space."""
    side = good.outcome.sides[0]
    failed = verdicts(with_body(good, 1, lambda body: re.sub(old, new, body, count=1)))
    assert failed == [f"{side.stored - side.unique:,} messages came again, as the same bytes"]


@pytest.mark.parametrize("chosen", [*([vendor] for vendor in VENDORS), VENDORS], ids=[*NAMES, "all"])
def test_status_is_one_if_a_message_is_lost(chosen, capsys):
    """A receiver that says 200 and stores nothing is found out, at whichever vendor, and the status is 1."""
    loser = chosen[-1]
    assert demo.show(demo_world.build(100), chosen, {loser.name: [Reply(200, store=False)]}) == 1
    titles = "|".join(vendor.title for vendor in VENDORS)
    _, *parts = re.split(rf"^({titles})$", capsys.readouterr().out, flags=re.MULTILINE)
    failed = {title: "FAILED" in part for title, part in zip(parts[::2], parts[1::2], strict=True)}
    assert failed == {vendor.title: vendor is loser for vendor in chosen}


def test_report_shows_no_secret(good):
    """The secret, which every request carries, is not in the report, nor in what a debugger would print."""
    outcome = good.outcome
    tokens = {request.headers["authorization"].removeprefix("Basic ") for request in outcome.sides[0].requests}
    assert len(tokens) == 1
    tokens |= set(re.findall("[0-9a-f]{32}", base64.b64decode(*tokens).decode("latin-1")))
    text = "\n".join(demo.report(good.world, outcome)[0])
    assert not any(token in text + repr(outcome) for token in tokens)


def test_world_is_the_same_in_every_run():
    """The world does not change from one run to the next, nor its head with the number of tracks."""
    world = demo_world.build(TRACKS)
    assert world == demo_world.build(TRACKS)
    assert sum(map(len, world)) == ALL
    assert sum(map(len, demo_world.build(0))) == OTHERS


def test_world_is_in_a_believable_order():
    """Each thread tells of accounts before their users, of users before their tracks, and of nobody who has left."""
    owners = {}
    for thread, calls in enumerate(demo_world.build(TRACKS)):
        known = set()
        for call in calls:
            ids = {name: call.arguments[name] for name in ("user_id", "account_id") if name in call.arguments}
            assert all(owners.setdefault(own, thread) == thread for own in ids.values())
            if call.method == "account":
                known.add(ids["account_id"])
            elif call.method == "identify":
                assert ids["account_id"] in known
                known.add(ids["user_id"])
            else:
                assert known.issuperset(ids.values())
            if call.method == "unlink":
                known.remove(ids["user_id"])


def test_without_a_command_the_help_is_printed(capsys):
    """Without a command there is help on standard error, and status 2."""
    assert command_line([]) == 2
    assert "demo" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("--nonsense",),
        ("demo", "--nonsense"),
        ("demo", "--tracks", "-1"),
        ("demo", "--to", "x"),
        ("demo", "x"),
    ],
)
def test_unknown_arguments_are_refused(arguments, capsys):
    """An unknown command, option or value ends with the usage and status 2."""
    with pytest.raises(SystemExit) as end:
        command_line(arguments)
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("usage: python -m analytics_batcher")


def test_version_is_printed():
    """`--version` prints name and version."""
    result = command("--version")
    assert (result.returncode, result.stdout) == (0, f"analytics-batcher {__version__}\n")


def test_commands_are_loaded_when_they_are_run():
    """The dispatcher loads neither the demo nor what it needs."""
    code = (
        "import sys, analytics_batcher.cli as cli\n"
        "cli.main([])\n"
        "assert not {'analytics_batcher.cli.demo', 'analytics_batcher.client', 'requests'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False).returncode == 0
