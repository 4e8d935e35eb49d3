"""The command line as a whole: its commands, their help, secrets among the arguments, and life without the extra."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from conftest import TOKEN

import analytics_batcher
from analytics_batcher.cli import main

ROOT = Path(analytics_batcher.__file__).parents[1]
PREFIX = "ANALYTICS_BATCHER_"
ALL = ("import", "send", "doctor", "drain", "replay", "relay", "inspect", "demo")
MADE = [name for name in ALL if name != "import" or (ROOT / "analytics_batcher/cli/import_.py").exists()]
OF_THE_EXTRA = [name for name in MADE if name in {"import", "send", "doctor"}]
WITHOUT = "import sys; sys.modules['click'] = sys.modules['rich'] = None; "
RUN = "import sys; from analytics_batcher.cli import main; sys.exit(main(sys.argv[1:]))"


def command(*arguments, extra=True, variables=None):
    """Run a command in a Python of its own, with the extra or without."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    program = (RUN if extra else WITHOUT + RUN, *map(str, arguments))
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", *program],
        cwd=ROOT,
        env={**kept, **(variables or {})},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def test_the_entry_point():
    """The installed script is this command line, under its own name in the help."""
    (entry,) = [one for one in metadata.entry_points(group="console_scripts") if one.name == "analytics-batcher"]
    assert entry.load() is main
    script = f"import sys; sys.argv[:] = ['/usr/bin/analytics-batcher', '--help']; {RUN}"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.stdout.startswith("usage: analytics-batcher ")
    assert "  analytics-batcher doctor\n" in done.stdout


def test_the_version(capsys):
    """`--version` says the package's."""
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"analytics-batcher {analytics_batcher.__version__}\n"


def test_the_help_lists_every_command(capsys):
    """Each command has a line, and there are examples."""
    with pytest.raises(SystemExit):
        main(["--help"])
    said = capsys.readouterr().out
    for name in ALL:
        assert f"\n    {name} " in said
    assert "examples:" in said


@pytest.mark.parametrize("name", [name for name in MADE if name != "demo"])
def test_every_help_has_examples(name, capsys):
    """Each command's help shows what can be typed, and has --json and --debug."""
    try:
        status = main([name, "--help"])
    except SystemExit as end:
        status = end.code
    said = capsys.readouterr().out
    assert status == 0
    assert "--json" in said
    assert "--debug" in said
    examples = said.lower().partition("examples:")[2]
    assert f"analytics_batcher {name} " in examples or f"analytics-batcher {name} " in examples
    assert "{prog}" not in examples


@pytest.mark.parametrize("name", OF_THE_EXTRA)
def test_without_the_extra_a_command_says_how_to_install_it(name):
    """One line and the status 2, for `--help` too."""
    for arguments in ([name], [name, "--help"]):
        done = command(*arguments, extra=False)
        assert done.returncode == 2
        assert done.stdout == ""
        assert done.stderr == f"error: {name} needs the extra 'cli': pip install 'analytics-batcher[cli]'\n"


def test_another_module_that_is_missing_is_no_matter_of_the_extra():
    """Whose installation is broken otherwise is not told to install the extra."""
    program = f"import sys; sys.modules['certifi'] = None; {RUN}"
    done = subprocess.run(
        [sys.executable, "-c", program, "doctor"], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 1
    assert "certifi" in done.stderr
    assert "needs the extra" not in done.stderr


def test_without_the_extra_the_others_work(tmp_path, receiver):
    """`drain`, `replay`, `relay`, `inspect` and `demo` need none of it: they are there, and do their work."""
    for name in ("drain", "replay", "relay", "inspect", "demo"):
        done = command(name, "--help", extra=False)
        assert (done.returncode, done.stderr) == (0, "")
    own = {"DESTINATION": "vitally", "VITALLY_API_TOKEN": TOKEN, "BASE_URL": receiver.url}
    variables = {PREFIX + name: value for name, value in own.items()}
    done = command("replay", tmp_path / "letters.jsonl", extra=False, variables=variables)
    assert (done.returncode, done.stdout.splitlines()[0], done.stderr) == (0, "found: 0", "")


@pytest.mark.parametrize("name", ["drain", "replay", "relay", "inspect", "demo"])
def test_who_writes_to_a_pipe_loads_no_extra(name):
    """What needs no extra does not load it either where nothing is drawn."""
    program = (
        "import sys\nfrom analytics_batcher.cli import main\n"
        f"try: main([{name!r}, '--nothing-of-that-name'])\nexcept SystemExit as end: assert end.code == 2\n"
        "assert not {'click', 'rich'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "variable"),
    [
        (["send", "--api-token", TOKEN], "VITALLY_API_TOKEN"),
        (["send", f"--api-token={TOKEN}"], "VITALLY_API_TOKEN"),
        (["doctor", f"--api_key={TOKEN}"], "CUSTOMERIO_API_KEY"),
        (["drain", "spool.db", "--write-key", TOKEN], "SEGMENT_WRITE_KEY"),
        (["import", "x.csv", "--site-id", TOKEN], "CUSTOMERIO_SITE_ID"),
        ([f"--token={TOKEN}"], "VITALLY_API_TOKEN"),
    ],
)
def test_a_secret_on_the_command_line_is_refused(arguments, variable, capsys):
    """With the reason and the variable that takes it, the status 2, and without showing it again."""
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "everybody on the machine can see" in said.err
    assert PREFIX + variable in said.err
    assert TOKEN not in said.err


def test_a_url_with_a_password_is_refused(capsys):
    """`--base-url` with credentials is not taken, and not shown."""
    assert main(["send", "--as", "user", "--id", "u", "--base-url", f"https://u:{TOKEN}@vendor.example"]) == 2
    said = capsys.readouterr()
    assert "--base-url" in said.err
    assert TOKEN not in said.err


@pytest.mark.parametrize("name", ["send", "doctor"])
def test_a_wrong_option_is_a_sentence(name, capsys):
    """An unknown option is named, with where to find the known ones, and the status is 2; JSON if that is wanted."""
    assert main([name, "--nothing"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: No such option")
    assert f"{name} --help" in said
    assert main([name, "--json", "--nothing"]) == 2
    assert "--nothing" in json.loads(capsys.readouterr().err)["error"]["what"]


def test_options_leave_the_environment_as_it_was(receiver, monkeypatch, capsys):
    """A setting given as an option holds for the command, over the environment's, and not longer."""
    for name, value in {"DESTINATION": "segment", "VITALLY_API_TOKEN": TOKEN}.items():
        monkeypatch.setenv(PREFIX + name, value)
    monkeypatch.delenv(f"{PREFIX}BASE_URL", raising=False)
    given = ["--destination", "vitally", "--base-url", receiver.url]
    assert main(["send", "--as", "account", "--id", "acme", "--trait", "name=Acme", *given]) == 0
    assert "delivered: 1\n" in capsys.readouterr().out
    assert os.environ[f"{PREFIX}DESTINATION"] == "segment"
    assert f"{PREFIX}BASE_URL" not in os.environ
    assert [one["accountId"] for one in receiver.messages] == ["acme"]
