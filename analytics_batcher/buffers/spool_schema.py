"""What makes an SQLite file one of ours: its mark, its tables, their versions."""

from __future__ import annotations

from typing import Any, Final

from .spool_disk import PAGE

APPLICATION_ID: Final = 0x416E4261
HEADER_BYTES: Final = 100
_HEADER: Final = b"SQLite format 3\0"

STEPS: Final = (
    f"""
    PRAGMA application_id = {APPLICATION_ID};
    CREATE TABLE stream (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        keeper TEXT NOT NULL,
        destination TEXT NOT NULL,
        boot TEXT NOT NULL,
        settled INTEGER NOT NULL,
        top INTEGER NOT NULL
    );
    CREATE TABLE message (row INTEGER PRIMARY KEY, sum INTEGER NOT NULL, record BLOB NOT NULL);
    """,
)
"""What makes each version of the schema out of the one before. The first one makes it out of nothing."""


def check_header(path: str, header: bytes) -> None:
    """See whether a file is ours, by its first bytes, before SQLite looks, which may take up another's journal.

    Args:
        path: The file.
        header: Its first `HEADER_BYTES`; none of a new one.

    Raises:
        ValueError: If it is not: no database, another application's, a newer version's.
    """
    if not header:
        return
    if len(header) < HEADER_BYTES or not header.startswith(_HEADER):
        raise ValueError(f"buffer: {path} is no SQLite database; it was left as it is")
    if int.from_bytes(header[68:72], "big") != APPLICATION_ID:
        raise ValueError(f"buffer: {path} is another application's database; it was left as it is")
    _check_version(path, int.from_bytes(header[60:64], "big"))


def _check_version(path: str, version: int) -> None:
    if version > len(STEPS):
        text = f"is of a newer version of this package (its schema is {version}, known is {len(STEPS)})"
        raise ValueError(f"buffer: {path} {text}; it was left as it is")


def upgrade(connection: Any, path: str) -> None:
    """Make the tables, or what has changed in them since the file was made.

    Raises:
        ValueError: If it was made by a newer version.
    """
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    _check_version(path, version)
    if version == len(STEPS):
        return
    connection.execute(f"PRAGMA page_size = {PAGE}")  # of a file that is there already it changes nothing
    connection.execute("BEGIN IMMEDIATE")  # another process may just be doing the same
    try:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        for step in STEPS[version:]:
            for statement in step.split(";"):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(STEPS)}")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def begin_log(connection: Any, path: str) -> None:
    """Let the file have a log, by which a put writes one page.

    Raises:
        ValueError: If it cannot have one.
    """
    if connection.execute("PRAGMA journal_mode = WAL").fetchone()[0] != b"wal":
        raise ValueError(f"buffer: {path} is on no local disk: SQLite's log needs shared memory there")
