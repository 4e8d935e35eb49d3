"""The README's claims that a machine can check."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from analytics_batcher import Client, Retry

TEXT = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def test_the_testing_example_runs_as_it_stands():
    """The example for applications' tests works when it is copied."""
    (example,) = [block for block in BLOCKS if "Receiver(" in block]
    exec("from analytics_batcher import Client, Vitally\n" + example, {})  # noqa: S102 - the README's own code
    assert example.count("assert") == 3


def test_the_first_example_runs_against_a_receiver(receiver):
    """The first example delivers its four messages."""
    first = BLOCKS[0].replace('"acme", api_token="..."', f'api_token="test-token", base_url="{receiver.url}"')
    assert first != BLOCKS[0]
    exec(first, {})  # noqa: S102 - the README's own code
    assert [message["type"] for message in receiver.messages] == ["organization", "account", "user", "track"]
    assert not receiver.faults


def test_the_options_table_is_the_signature():
    """Every option of the client stands in the table, with its default where that is a plain value."""
    rows = re.findall(r"^\| (`.*?) \| (.*?) \| (.*?) \|$", TEXT, re.MULTILINE)
    named = {name: row for row in rows for name in re.findall(r"`(\w+)`", row[0])}
    parameters = inspect.signature(Client).parameters
    options = {name for name, parameter in parameters.items() if parameter.kind is parameter.KEYWORD_ONLY}
    assert options - {"block_timeout"} == named.keys()
    assert "block_timeout" in TEXT
    for name in options - {"block_timeout"}:
        default = parameters[name].default
        if isinstance(default, float | str | bool) and name not in {"proxy", "verify"}:
            shown = f'"{default}"' if isinstance(default, str) else str(default)
            assert shown in named[name][1], name


def test_the_retry_defaults_are_as_said():
    """The README shows `Retry`'s own signature."""
    assert re.search(r"`(Retry\(base.*?\))`", TEXT)[1] == f"{Retry()!r}".replace("'", '"')
