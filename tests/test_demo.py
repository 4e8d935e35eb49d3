from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

from analytics_batcher import Client, FlushResult, Vitally, __version__
from analytics_batcher.cli import demo, demo_world
from analytics_batcher.cli import main as command_line
from analytics_batcher.receiver import Reply

TRACKS = 1_000
OTHERS = demo_world.THREADS + demo_world.ACCOUNTS + demo_world.USERS + demo_world.TICKETS + demo_world.UNLINKS
ALL = TRACKS + OTHERS


def command(*arguments):
    """Run the package as a command."""
    return subprocess.run(
        [sys.executable, "-m", "analytics_batcher", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def figures(text):
    """The numbers of each row, by its section's first word and its name."""
    sections, rows = {}, {}
    for line in text.splitlines():
        if heading := re.match(r"\w+( \w+)?", line):
            rows = sections.setdefault(heading[0], {})
        elif row := re.fullmatch(r"  (\D.*?)  +([\d,.]+)(.*)", line):
            numbers = re.findall(r"\d[\d,.]*", row[2] + row[3])
            rows[row[1]] = [float(number.replace(",", "").rstrip(".")) for number in numbers]
    return sections


def verdicts(checks):
    """What failed."""
    return [claim for holds, claim in checks if not holds]


@pytest.fixture(scope="module")
def plain():
    """A demo run as a command."""
    return command("demo", "--tracks", str(TRACKS))


@pytest.fixture(scope="module")
def faulty():
    """A demo run as a command while the receiver fails."""
    return command("demo", "--faults", "--tracks", str(TRACKS))


@pytest.fixture(scope="module")
def good():
    """A world, and what came of a run in this process in which an answer was lost."""
    world = demo_world.build(200)
    outcome = demo.run(world, [None, Reply(reset="after")])
    return SimpleNamespace(world=world, outcome=outcome)


@pytest.mark.parametrize("run", ["plain", "faulty"])
def test_demo_succeeds_and_prints_nothing_but_its_report(run, request):
    """With failures or without, every check holds, the status is 0, and standard error stays empty."""
    result = request.getfixturevalue(run)
    assert (result.returncode, result.stderr) == (0, "")
    assert "FAILED" not in result.stdout
    assert len(re.findall(r"^  ok ", result.stdout, re.MULTILINE)) == 10
    assert len(result.stdout.splitlines()) < 40
    assert max(map(len, result.stdout.splitlines())) <= 100


@pytest.mark.parametrize("run", ["plain", "faulty"])
def test_messages_by_kind_add_up(run, request):
    """The kinds are those of the world, arrive as often as they were tracked, and sum to the total."""
    messages = figures(request.getfixturevalue(run).stdout)["Messages"]
    total = messages.pop("all")
    assert all(tracked == arrived for tracked, arrived in messages.values())
    assert [tracked for tracked, _ in messages.values()] == [4, 50, 500, 60, 25, TRACKS]
    assert total == [ALL, ALL]


@pytest.mark.parametrize("run", ["plain", "faulty"])
def test_client_and_receiver_agree(run, request):
    """What the client says that it delivered is what the receiver stored, repeats apart."""
    sections = figures(request.getfixturevalue(run).stdout)
    client, receiver = sections["The client"], sections["The receiver"]
    assert client["delivered"][0] == ALL
    assert client["dropped"] == client["pending"] == [0]
    repeats, stored = receiver["repeats"]
    assert stored - repeats == ALL
    assert receiver["faults"] == [0]
    assert receiver["requests"][0] - receiver["failed"][0] >= ALL / 100
    assert receiver["fullest batch"] == [100, 100]
    assert 0 < receiver["largest body"][0] <= receiver["largest body"][1] == 500_000
    assert 0 < client["call p50"][0] <= client["call p99"][0]


def test_plain_demo_repeats_nothing(plain):
    """Where nothing fails, nothing is sent twice."""
    sections = figures(plain.stdout)
    assert sections["The client"]["retries"] == sections["The receiver"]["failed"] == [0]
    assert sections["The receiver"]["repeats"] == [0, ALL]
    assert sections["The client"]["requests"] == sections["The receiver"]["requests"]


def test_faults_are_retried(faulty):
    """With failures of each kind there are retries and repeats, and the requests of both sides add up."""
    sections = figures(faulty.stdout)
    client, receiver = sections["The client"], sections["The receiver"]
    requests, *at_once = receiver["requests"]
    assert client["retries"][0] > 0
    assert receiver["repeats"][0] > 0
    assert client["requests"][0] + sum(at_once) == requests
    assert receiver["failed"][0] >= 5
    for kind in ("lost answers", "resets", "times 429", "times 500"):
        assert re.search(rf"^  failed .*[1-9]\d* {kind}", faulty.stdout, re.MULTILINE)


def test_good_run_passes_every_check(good):
    """A run whose answer was lost passes, and did see a repeat: the tests below begin from it."""
    assert verdicts(demo.check(good.world, good.outcome)) == []
    assert good.outcome.report.repeats > 0


@pytest.mark.parametrize(
    ("changes", "claim"),
    [
        ({"tracked": 1}, "conservation"),
        ({"delivered": 1}, "conservation"),
        ({"tracked": 1, "pending": 1}, "nothing is pending"),
        ({"delivered": 1, "tracked": 1}, "the receiver stored as many"),
        ({"batches": 1}, "requests received ="),
    ],
)
def test_wrong_client_figures_are_found(good, changes, claim):
    """A figure of the client's that is off by one fails the check that it belongs to."""
    stats = replace(
        good.outcome.stats, **{name: getattr(good.outcome.stats, name) + more for name, more in changes.items()}
    )
    failed = verdicts(demo.check(good.world, replace(good.outcome, stats=stats)))
    assert any(claim in line for line in failed)
    assert ("conservation" in " ".join(failed)) == (claim == "conservation")


def test_drops_are_found(good):
    """A client that dropped a message fails, though its books balance."""
    with Client(Vitally("acme", api_token="t"), background=False) as client:
        client.identify("")
        lost = client.stats()
    stats = replace(good.outcome.stats, tracked=good.outcome.stats.tracked + 1, dropped=lost.dropped)
    failed = verdicts(demo.check(good.world, replace(good.outcome, stats=stats)))
    assert "nothing was dropped" in failed
    assert "conservation" not in " ".join(failed)


@pytest.mark.parametrize("flushed", [FlushResult(pending=1), FlushResult(lost=1), FlushResult(timed_out=True)])
def test_failed_flush_is_found(good, flushed):
    """A flush that left or lost something, or ran out of time, fails."""
    assert verdicts(demo.check(good.world, replace(good.outcome, flushed=flushed))) == [
        "flush() was true, and within its time"
    ]


def test_refused_call_is_found(good):
    """A call that returned False fails."""
    failed = verdicts(demo.check(good.world, replace(good.outcome, accepted=good.outcome.accepted - 1)))
    assert failed == [f"all {good.outcome.accepted:,} calls were accepted and counted"]


def test_receivers_fault_is_found(good):
    """A fault in the receiver's report fails."""
    report = replace(good.outcome.report, faults=("request 1: the batch holds 101 messages, not 1 to 100",))
    failed = verdicts(demo.check(good.world, replace(good.outcome, report=report)))
    assert failed == ["the receiver found no fault in any request"]


def without_first(requests):
    """Without the first request."""
    return requests[1:]


def reversed_(requests):
    """In the wrong order."""
    return requests[::-1]


def with_other_content(requests):
    """With another value in one message."""
    first = requests[0]
    body = first.body.replace(b'"plan":"', b'"plan":"x', 1)
    assert body != first.body
    return (replace(first, body=body), *requests[1:])


@pytest.mark.parametrize("change", [without_first, reversed_, with_other_content])
def test_wrong_arrivals_are_found(good, change):
    """A loss, another order and another content each fail the comparison with what was tracked."""
    outcome = replace(good.outcome, requests=change(good.outcome.requests))
    assert "what arrived is what was tracked, in each thread's order" in verdicts(demo.check(good.world, outcome))


@pytest.mark.parametrize(("old", "new"), [(b'"timestamp":"2', b'"timestamp":"3'), (b'"type":"', b'"type": "')])
def test_altered_repeat_is_found(good, old, new):
    """A repeat with another time fails, and so does one that only has another space."""
    _, stored, repeat, *others = requests = good.outcome.requests
    assert repeat.body == stored.body
    altered = replace(repeat, body=repeat.body.replace(old, new, 1))
    assert altered.body != repeat.body
    outcome = replace(good.outcome, requests=(*requests[:2], altered, *others))
    failed = verdicts(demo.check(good.world, outcome))
    assert failed == [f"{good.outcome.report.repeats} messages came again, as the same bytes"]


def test_status_is_one_if_a_message_is_lost(capsys):
    """A receiver that says 200 and stores nothing is found out, and the status is 1."""
    assert demo.show(demo_world.build(100), [Reply(200, store=False)]) == 1
    report = capsys.readouterr().out
    assert "  FAILED  the receiver stored as many as the client calls delivered" in report
    assert figures(report)["Messages"]["all"] == [100 + OTHERS, OTHERS]


def test_report_shows_no_secret(good):
    """The token, which every request carries, is not in the report, nor in what a debugger would print."""
    outcome = good.outcome
    tokens = {request.headers["authorization"].removeprefix("Basic ") for request in outcome.requests}
    assert [len(token) for token in tokens] == [32]
    text = "\n".join(demo._lines(good.world, outcome, demo.check(good.world, outcome)))
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
    "arguments", [("nonsense",), ("--nonsense",), ("demo", "--nonsense"), ("demo", "--tracks", "-1"), ("demo", "x")]
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
