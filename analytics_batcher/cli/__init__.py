"""The command line: finds the command's module, and loads no other."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from ..version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

_SCRIPT: Final = "analytics-batcher"
PROG: Final = _SCRIPT if Path(sys.argv[0]).stem == _SCRIPT else "python -m analytics_batcher"
"""As it was called, so that help shows what can be typed."""
_WRONG_USAGE: Final = 2
_INTERRUPTED: Final = 130
_EXTRA: Final = frozenset({"click", "rich"})


class _Command(NamedTuple):
    """A command; `module` is the one here whose `main(arguments)` returns the exit status."""

    module: str
    summary: str
    secrets: bool = False  # whether it takes secrets as options, because they are made up


_COMMANDS: Final = {
    "import": _Command("import_", "send what is in files: CSV, TSV or JSON Lines, resumable and exact"),
    "send": _Command("send", "send one message, or JSON Lines from standard input, and say what came of it"),
    "doctor": _Command("doctor", "look at the settings, the network, the clock and the credentials"),
    "drain": _Command("drain", "deliver what dead processes have left in a SqliteBuffer's file"),
    "replay": _Command("replay", "send dead letters again"),
    "relay": _Command("relay", "deliver what producers have put into a stream of Redis, together with other relays"),
    "inspect": _Command("inspect", "stand in for the vendors on this machine, and show what is sent", secrets=True),
    "demo": _Command("demo", "run the main job against a local receiver, and check what came of it"),
}
_EXAMPLES: Final = """\
examples:
  {prog} doctor
  {prog} import users.csv --as user --id user_id --account-id account_id --dry-run
  {prog} send --as track --id user-1 --account-id acme --event "Signed up"
  {prog} COMMAND --help

Destination and secrets come from the environment, as Client.from_env() reads them:
  ANALYTICS_BATCHER_DESTINATION=vitally ANALYTICS_BATCHER_VITALLY_SUBDOMAIN=acme ANALYTICS_BATCHER_VITALLY_API_TOKEN=...
"""
_SECRETS: Final = {
    "api-token": "VITALLY_API_TOKEN",
    "vitally-api-token": "VITALLY_API_TOKEN",
    "token": "VITALLY_API_TOKEN",
    "site-id": "CUSTOMERIO_SITE_ID",
    "customerio-site-id": "CUSTOMERIO_SITE_ID",
    "api-key": "CUSTOMERIO_API_KEY",
    "customerio-api-key": "CUSTOMERIO_API_KEY",
    "write-key": "SEGMENT_WRITE_KEY",
    "segment-write-key": "SEGMENT_WRITE_KEY",
    "password": "",
    "secret": "",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: The command's name and what follows it; `None`: those of this process.

    Returns:
        The exit status: the command's own; 2 without a command, with a secret, or without the extra it needs.

    Raises:
        SystemExit: For `--help`, `--version`, and with status 2 for an unknown command or option.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    parser = _parser()
    if not given:
        parser.print_help(sys.stderr)
        return _WRONG_USAGE
    # Before anything reads them: what complains of an unknown option would show it.
    refusal = _secret_in(given)
    if refusal is not None:
        return _refuse(refusal)
    # What follows the name is the command's own to read, so that no other command need be loaded.
    name: str = parser.parse_args(given[:1]).command
    try:
        command = import_module(f".{_COMMANDS[name].module}", __name__)
        status: int = command.main(given[1:])
    except KeyboardInterrupt:  # before the command could hear of it
        return _INTERRUPTED
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in _EXTRA:
            raise
        return _refuse(f"{name} needs the extra 'cli': pip install 'analytics-batcher[cli]'")
    return status


def _secret_in(given: Sequence[str]) -> str | None:
    """Why the arguments are refused, if a secret is among them."""
    command = _COMMANDS.get(given[0])
    if command is not None and command.secrets:
        return None
    for argument in given:
        option = argument.partition("=")[0]
        name = option.lstrip("-").lower().replace("_", "-")
        if option.startswith("-") and name in _SECRETS:
            variable = _SECRETS[name]
            instead = f"set ANALYTICS_BATCHER_{variable}" if variable else "set it in the environment"
            return (
                f"{option}: a secret is not taken from the command line, which everybody on the machine can see and "
                f"the shell remembers; {instead}"
            )
    return None


def _refuse(why: str) -> int:
    print(f"error: {why}", file=sys.stderr)  # noqa: T201 - a command speaks
    return _WRONG_USAGE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROG,
        description="Batches analytics calls and delivers them.",
        epilog=_EXAMPLES.format(prog=PROG),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"analytics-batcher {__version__}")
    commands = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)
    for name, command in _COMMANDS.items():
        commands.add_parser(name, help=command.summary, add_help=False)
    return parser
