"""`replay`: sends dead letters again, through a client made of the environment's settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ..claim import folder_of
from ..replays import Replay
from .face import DONE, SOME_REFUSED, Face, Problem
from .parsing import parser_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ..replays import ReplayResult
    from .progress import Progress

_DESCRIPTION: Final = """\
Sends the messages of a file of dead letters again, with the ids and times they had, by the settings that
Client.from_env() reads. Those that fail again stay in the file. It may be interrupted and repeated. The exit status is
0 if nothing is left in the file, 3 if something failed again or could not be sent, 1 if it could not go on."""
_EXAMPLES: Final = (
    ("letters.jsonl", "send what is in it"),
    ("letters.jsonl --timeout 300 --json", "with a patience of five minutes a batch, for a script"),
)


def main(arguments: Sequence[str]) -> int:
    """Replay a file.

    Args:
        arguments: What follows the command's name.

    Returns:
        The exit status.
    """
    parser = parser_of("replay", _DESCRIPTION, _EXAMPLES)
    parser.add_argument("path", metavar="PATH", help="the file that a client had as dead_letters")
    parser.add_argument(
        "--timeout", type=float, default=60.0, metavar="SECONDS", help="the most for a batch, repeats included (60)"
    )
    given = parser.parse_args(arguments)
    face = Face(json=given.json, debug=given.debug)
    return face.run(lambda: _run(face, Replay(given.path, timeout=given.timeout)))


def _run(face: Face, work: Replay) -> int:
    try:
        with face.progress(f"Replaying {work.path.name}", None, unit="letters") as progress:
            result = work.run(lambda: _tell(work.result, progress))
    except KeyboardInterrupt:
        _report(face, work.path, work.result)
        raise
    _report(face, work.path, result)
    if result.error is not None:
        raise Problem(result.error)
    return DONE if result else SOME_REFUSED


def _tell(result: ReplayResult, progress: Progress) -> None:
    refused = sum(result.failed.values()) + sum(result.unsent.values())
    progress.update(total=result.found, done=result.found - result.left, refused=refused)


def _report(face: Face, path: Path, result: ReplayResult) -> None:
    facts: dict[str, Any] = {"found": result.found, "delivered": dict(result.delivered)}
    if result.filtered or face.json:
        facts["dropped by before_send"] = result.filtered
    facts |= {"failed again": dict(result.failed), "not sent": dict(result.unsent), "left": result.left}
    face.result(facts)
    if result.failed or result.unsent:
        face.say(f"what failed again or was not sent is in {path}")
    if result.left:
        face.say(f"what is left is in {folder_of(path)}; the next replay goes on with it")
