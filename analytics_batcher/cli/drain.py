"""`drain`: delivers what dead processes have left in a spool, by the settings of the environment."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from ..spools import Drain, spool_status
from .face import DONE, FAILED, SOME_REFUSED, Face
from .parsing import parser_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..spools import DrainResult
    from .progress import Progress

_DESCRIPTION: Final = """\
Delivers what processes that are gone have left in the file of a SqliteBuffer, oldest first, with unchanged ids, by the
settings that Client.from_env() reads. It may be interrupted and repeated. The exit status is 0 if all was delivered, 3
if nothing is left but something was dropped, 1 if something is left or it could not go on."""
_EXAMPLES: Final = (
    ("spool.db --status", "what waits there, and whose it is"),
    ("spool.db --timeout 600", "deliver it, for ten minutes at most"),
)


def main(arguments: Sequence[str]) -> int:
    """Drain a file, or say what is in it.

    Args:
        arguments: What follows the command's name.

    Returns:
        The exit status.
    """
    parser = parser_of("drain", _DESCRIPTION, _EXAMPLES)
    parser.add_argument("path", metavar="PATH", help="the file that clients had as SqliteBuffer(path)")
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="the most to take (no limit)")
    parser.add_argument("--max-age", type=float, metavar="SECONDS", help="give up what is older (never)")
    parser.add_argument("--status", action="store_true", help="only say what waits, and take nothing")
    given = parser.parse_args(arguments)
    face = Face(json=given.json, debug=given.debug)
    if given.status:
        return face.run(lambda: _status(face, given.path))
    return face.run(lambda: _run(face, Drain(given.path, timeout=given.timeout, max_age=given.max_age)))


def _run(face: Face, work: Drain) -> int:
    try:
        with face.progress(f"Draining {work.path.name}", None, unit="messages") as progress:
            result = work.run(lambda: _tell(work, progress))
    except KeyboardInterrupt:
        _report(face, work.result)
        raise
    _report(face, result)
    if result.left:
        return FAILED
    return DONE if result else SOME_REFUSED


def _tell(work: Drain, progress: Progress) -> None:
    result, dropped = work.result, sum(work.result.dropped.values())
    done = result.delivered + dropped
    stuck = done == progress.done and result.left
    progress.update(
        total=result.found,
        done=done,
        refused=dropped,
        retries=work.retries,
        waiting=result.error or "an answer" if stuck else "",
    )


def _report(face: Face, result: DrainResult) -> None:
    facts: dict[str, Any] = {
        "found": result.found,
        "delivered": result.delivered,
        "dropped": dict(result.dropped),
        "left": result.left,
    }
    if result.left and result.error is not None:
        facts["last error"] = result.error
    face.result(facts)


def _status(face: Face, path: str) -> int:
    waiting = spool_status(path)
    total = sum(one.messages for one in waiting)
    if face.json:
        face.result({"destinations": [asdict(one) for one in waiting], "waiting": total})
        return DONE
    ages = ["unknown" if one.oldest_age is None else f"{one.oldest_age:.0f} s" for one in waiting]
    if face.draws and waiting:
        head = ("destination", "waiting", "of living processes", "oldest")
        cells = [
            (one.destination, f"{one.messages:,}", f"{one.owned:,}", age)
            for one, age in zip(waiting, ages, strict=True)
        ]
        face.table(f"What waits in {path}", head, cells)
    else:
        for one, age in zip(waiting, ages, strict=True):
            face.say(
                f"{one.destination}: {one.messages} waiting, {one.owned} of processes that live, the oldest for {age}"
            )
    face.result({"waiting": total})
    return DONE
