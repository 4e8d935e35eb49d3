"""What the commands share that are built with `click`: options, examples in the help, and how they end."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import click

from ..environment import PREFIX
from . import PROG, drawing
from .face import WRONG_USAGE, Face, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

LOADED: Final = drawing
"""So that the extra is asked for as a whole, before a command begins."""
_INTERRUPTED: Final = 130
_SETTINGS: Final = {
    "destination": "DESTINATION",
    "subdomain": "VITALLY_SUBDOMAIN",
    "region": "CUSTOMERIO_REGION",
    "base_url": "BASE_URL",
}
_HELP: Final = {
    "destination": "vitally, customerio or segment, or several with commas.",
    "subdomain": "Vitally's subdomain.",
    "region": "Customer.io's region: us or eu.",
    "base_url": "Replaces scheme, host and port of the vendor's address.",
}


class Command(click.Command):
    """A command with examples at the end of its help.

    Args:
        examples: What follows the command's name, and what it does.
    """

    def __init__(self, *arguments: Any, examples: Sequence[tuple[str, str]] = (), **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._examples = examples

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples, each as it would be typed."""
        super().format_epilog(ctx, formatter)
        if self._examples:
            with formatter.section("Examples"):
                for line, what in self._examples:
                    formatter.write(f"  # {what}\n  {line.format(prog=f'{PROG} {self.name}')}\n")


def command(name: str, *, examples: Sequence[tuple[str, str]]) -> Callable[[Callable[..., int]], Command]:
    """Make a command of a function `(face, **options) -> exit status`.

    It gets `--json` and `--debug`, and options for settings that are no secrets; they are in the environment while it
    runs: `Client.from_env()` then reads them. Its docstring is the help; what it raises becomes an error for people.

    Args:
        name: The command's.
        examples: Lines as they would be typed, `{prog}` for what comes first, each with what it does.
    """

    def decorate(function: Callable[..., int]) -> Command:
        def call(**options: Any) -> int:
            face = Face(json=options.pop("json"), debug=options.pop("debug"))
            chosen = {variable: options.pop(option) for option, variable in _SETTINGS.items()}
            with _in_environment(chosen):
                return face.run(lambda: function(face, **options))

        own = getattr(function, "__click_params__", [])[::-1]
        settings: list[click.Parameter] = [
            click.Option(
                [f"--{option.replace('_', '-')}"], metavar="TEXT", help=f"{_HELP[option]} [{PREFIX}{variable}]"
            )
            for option, variable in _SETTINGS.items()
        ]
        common: list[click.Parameter] = [
            click.Option(["--json"], is_flag=True, help="Print one JSON object, for machines."),
            click.Option(["--debug"], is_flag=True, help="Show where in the code an error arose."),
        ]
        return Command(
            name,
            params=[*own, *settings, *common],
            callback=call,
            help=function.__doc__,
            examples=examples,
            context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
        )

    return decorate


def run(chosen: click.Command, arguments: Sequence[str]) -> int:
    """Run a command.

    Args:
        chosen: What is run.
        arguments: Those after its name.

    Returns:
        The exit status: 2 for a wrong option.
    """
    try:
        status: int = chosen.main(list(arguments), prog_name=f"{PROG} {chosen.name}", standalone_mode=False)
    except click.ClickException as error:
        face = Face(json="--json" in arguments, debug="--debug" in arguments)
        hint = f"{PROG} {chosen.name} --help"
        face.error(Problem(error.format_message(), hint=hint))
        return WRONG_USAGE
    except click.Abort:  # Ctrl-C before the command began
        return _INTERRUPTED
    return status


@contextmanager
def _in_environment(chosen: Mapping[str, str | None]) -> Iterator[None]:
    given = {PREFIX + name: value for name, value in chosen.items() if value is not None}
    before = {name: os.environ.get(name) for name in given}
    for name, value in given.items():
        if "@" in value and name == f"{PREFIX}BASE_URL":
            raise click.UsageError("--base-url: a URL with a password is not taken")
        os.environ[name] = value
    try:
        yield
    finally:
        for name, earlier in before.items():
            os.environ.pop(name)
            if earlier is not None:
                os.environ[name] = earlier
