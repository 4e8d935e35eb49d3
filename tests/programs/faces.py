"""Shows all that a face can show, for a person or a machine."""

from __future__ import annotations

import sys
import threading

from analytics_batcher.cli.face import Face, Problem

ROWS = [("größe", "number", "1,200"), ("[red]id[/red]", "text, zeros kept", "7")]
FACTS = {"rows": 1_200_000, "delivered": {"b": 2, "a": 1_000_000}, "rate": 1234.56, "again": True, "nothing": None}


def work(face, way):
    """Show it."""
    face.table("Columns", ("column", "kind", "rows"), ROWS)
    with face.progress("Importing users.csv", 1_000_000, start=200_000) as progress:
        progress.update(done=450_000, refused=12, retries=3, waiting="20 s, HTTP 429: slow down")
        face.note("a note\x1b[2J that forges")
        threading.Event().wait(0.5)  # the bar is drawn eight times a second
        if way == "hang":
            face.note("ready")
            threading.Event().wait(30)
        progress.update(done=1_000_000)
    face.result(FACTS, "Summary")
    if way == "break":
        raise RuntimeError("it broke")
    if way == "fail":
        raise Problem(
            "the timestamp is no time",
            where="users.csv:17, column created",
            found="'2020-13-01'",
            expected="ISO 8601",
            hint="--timestamp names another column",
        )
    return 0


if __name__ == "__main__":
    own = Face(json="--json" in sys.argv, debug="--debug" in sys.argv, plain=True if "--plain" in sys.argv else None)
    sys.exit(own.run(lambda: work(own, sys.argv[1])))
