"""The two fixtures for pytest, in real runs of pytest, in processes of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import entry_points
from textwrap import dedent

import pytest

SLOW = 60  # seconds, of a run of pytest on a busy machine


@pytest.fixture
def run(tmp_path):
    """Runs pytest over a test module in a folder of its own; its exit status and what it printed."""

    def run(module, *arguments):
        (tmp_path / "test_app.py").write_text(dedent(module))
        environment = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT", "PYTHONPATH") if name in os.environ}
        command = [sys.executable, "-B", "-m", "pytest", "-W", "error", "-p", "no:cacheprovider", *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=SLOW
        )
        return done.returncode, done.stdout + done.stderr

    return run


def test_the_plugin_is_found_by_its_entry_point():
    """An installed package brings the plugin along."""
    (found,) = [one for one in entry_points(group="pytest11") if one.name == "analytics_batcher"]
    assert found.value == "analytics_batcher.pytest_plugin"


def test_the_fixtures_are_listed_with_what_they_are_for(run):
    """`pytest --fixtures` names both, each with a sentence."""
    status, said = run("", "--fixtures", "-q")
    assert status in {0, 5}
    assert re.search(r"^analytics -- .*\n    A client that records instead of sending", said, re.MULTILINE)
    assert re.search(r"^analytics_receiver -- .*\n    A local stand-in for all vendors", said, re.MULTILINE)


def test_code_that_has_no_instance_is_recorded(run):
    """Within a test the package's functions reach the recorder, and after it there is no default client again."""
    status, said = run("""
        import analytics_batcher
        import pytest
        from analytics_batcher import Client, default

        def sign_up(user):
            analytics_batcher.track(user, "Signed up", {"plan": "pro"})

        def test_first(analytics):
            assert isinstance(analytics, Client)
            sign_up("u1")
            analytics.assert_tracked("Signed up", user_id="u1", times=1)
            analytics.assert_nothing_lost()

        def test_each_test_has_its_own(analytics):
            analytics.assert_nothing()
            sign_up("u2")
            analytics.assert_tracked("Signed up", user_id="u2", times=1)

        def test_without_the_fixture_nothing_is_recorded():
            assert default._default._client is None
            with pytest.warns(RuntimeWarning, match="not configured"):
                assert analytics_batcher.track("u3", "Signed up") is False
    """)
    assert status == 0, said
    assert "3 passed" in said


def test_a_failure_is_the_applications_own_line_and_what_is_wrong(run):
    """A failed assertion shows the test's line and the comparison, and none of our frames."""
    status, said = run("""
        def test_sign_up(analytics):
            analytics.track("u1", "Signed up", {"plan": "free"})
            analytics.track("u1", None)
            analytics.assert_tracked("Signed up", user_id="u1", properties={"plan": "pro"})
    """)
    assert status == 1
    report = said[said.index("= FAILURES =") : said.index("- Captured log call -")]
    assert [line for line in report.splitlines() if line.startswith((">", "E"))] == [
        '>       analytics.assert_tracked("Signed up", user_id="u1", properties={"plan": "pro"})',
        "E       AssertionError: expected a message like this, found none",
        "E         type: 'track'",
        "E         event: 'Signed up'",
        "E         userId: 'u1'",
        "E         properties: {'plan': 'pro'}",
        "E       nearest is message 1:",
        "E         properties.plan: expected 'pro', was 'free'",
        "E       recorded: 1 message",
        "E         1. track 'Signed up' user 'u1' {'plan': 'free'}",
        "E       dropped: 1 message",
        "E         1 as invalid: event must be text that is not empty, not NoneType",
        "E           track None user 'u1'",
    ]
    assert "asserting.py" not in report
    assert "recorder.py" not in report


@pytest.mark.parametrize(
    "assertion",
    [
        "assert_identified('u')",
        "assert_account('a')",
        "assert_message({'type': 'alias'})",
        "assert_messages([])",
        "assert_nothing()",
        "assert_nothing_lost()",
    ],
)
def test_no_assertion_shows_frames_of_ours(run, assertion):
    """Whichever assertion fails, the traceback ends at the test's line."""
    status, said = run(f"""
        def test_it(analytics):
            analytics.track("u1", "Signed up")
            analytics.track("u1", None)
            analytics.{assertion}
    """)
    assert status == 1
    report = said[said.index("= FAILURES =") : said.index("- Captured log call -")]
    assert "test_app.py:5: AssertionError" in report
    assert "asserting.py" not in report


def test_the_receiver_stands_in_for_every_vendor(run):
    """A test's real client of any vendor delivers to the receiver's URL, and the environment is as it was."""
    status, said = run("""
        import os
        from analytics_batcher import Client, CustomerIO, Segment, Vitally

        ENVIRONMENT = dict(os.environ)
        TOKEN = "test-token"

        def test_delivery(analytics_receiver):
            url = analytics_receiver.url
            assert {name for name in os.environ if os.environ[name] != ENVIRONMENT.get(name)} <= {"PYTEST_CURRENT_TEST"}
            several = [
                Vitally(api_token=TOKEN, base_url=url),
                CustomerIO(TOKEN, TOKEN, base_url=url),
                Segment(TOKEN, base_url=url),
            ]
            with Client(several) as client:
                assert client.track("u1", "Signed up", account_id="a1")
                assert client.flush()
            assert [len(analytics_receiver.messages_of(one.name)) for one in several] == [1, 1, 1]
            assert analytics_receiver.faults == ()
    """)
    assert status == 0, said


def test_a_fixture_of_the_projects_own_takes_its_place(run):
    """A project that wants its vendor's rules defines `analytics` itself."""
    status, said = run("""
        import pytest
        from analytics_batcher import Vitally, page
        from analytics_batcher.testing import Recorder

        @pytest.fixture
        def analytics():
            with Recorder(Vitally("acme", api_token="any")) as recorder, recorder.installed():
                yield recorder

        def test_page(analytics):
            page("u1", "Home")
            assert [drop.reason for drop in analytics.dropped] == ["unsupported"]
    """)
    assert status == 0, said


def test_nothing_is_loaded_before_a_test_asks_for_it(run):
    """A run that uses neither fixture loads, of this package, its first module and the plugin, and changes nothing."""
    status, said = run("""
        import sys
        from analytics_batcher import version

        def test_modules():
            own = {name for name in sys.modules if name.partition(".")[0] == "analytics_batcher"}
            assert own == {"analytics_batcher", "analytics_batcher.version", "analytics_batcher.pytest_plugin"}
            assert not {"requests", "orjson", "backoff", "dateutil"} & {*sys.modules}
    """)
    assert status == 0, said
