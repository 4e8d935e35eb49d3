"""Files to import, made by a rule, so that each row's message and each bad row's reason are known without them."""

from __future__ import annotations

import os

ROWS = int(os.environ.get("IMPORT_ROWS", "4000"))
"""Rows of the tracks' file; that of the accounts has a tenth. `IMPORT_ROWS=1000000` is the real thing."""
HEADER = "user_id,account_id,event,at,plan,seats,price,trial,note\n"
BAD = [
    ("cells", lambda cells: cells[:-2]),
    ("cells", lambda cells: [*cells, "one", "more"]),
    ("invalid", lambda cells: ["", "", *cells[2:]]),
    ("type", lambda cells: [*cells[:5], "12x", *cells[6:]]),
    ("type", lambda cells: [*cells[:7], "perhaps", *cells[8:]]),
    ("type", lambda cells: [*cells[:3], "yesterday", *cells[4:]]),
    ("invalid", lambda cells: [*cells[:3], "1961-04-12T06:07:00Z", *cells[4:]]),
    ("unreadable", lambda cells: [*cells[:8], "\udcff\udcfe"]),
    ("unreadable", lambda cells: [*cells[:8], '"it has no end']),
    ("too_large", lambda cells: [*cells[:8], "x" * 40_000]),
    ("rejected", lambda cells: [*cells[:2], "Poison", *cells[3:]]),
]
"""Kinds of bad rows: why each is refused, and what makes one of a good one. The last one is the vendor's."""


def cells_of(number):
    """The cells of a good row of tracks."""
    at = f"20{10 + number % 10}-01-{1 + number % 28:02d}T10:{number % 60:02d}:00Z"
    seats, trial = str(number % 90), "true" if number % 2 else "false"
    return [f"0{number}", f"a-{number % 97}", "Report opened", at, "team", seats, f"{number % 90}.5", trial, "Zoë"]


def message_of(number):
    """What arrives of a good row of tracks, without its id."""
    user, account, event, at, plan, seats, price, trial, note = cells_of(number)
    return {
        "type": "track",
        "event": event,
        "userId": user,
        "accountId": account,
        "properties": {
            "plan": plan,
            "seats": int(seats),
            "price": float(price),
            "trial": trial == "true",
            "note": note,
        },
        "timestamp": at.replace("Z", ".000Z"),
    }


def write_tracks(path, rows=ROWS, every=None):
    """Write a file of tracks: one row in `every` is bad, of each kind in turn; the reasons by the lines."""
    every = every or max(min(rows // 25, 1_000), 2)
    bad = {}
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        file.write(HEADER)
        for number in range(rows):
            cells = cells_of(number)
            if number % every == every // 2:
                reason, spoil = BAD[len(bad) % len(BAD)]
                cells = spoil(cells)
                bad[number + 2] = reason
            file.write(",".join(cells) + "\n")
    return bad


def write_accounts(path, rows):
    """Write a file of accounts; the lines of those without an id."""
    bad = {}
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write("account_id,name,zip\n")
        for number in range(rows):
            nameless = number % 500 == 250
            file.write(f'{"" if nameless else f"a-{number}"},"Inc., ""{number}""",{number:05d}\n')
            if nameless:
                bad[number + 2] = "invalid"
    return bad


TRACKS = """as = "track"
id = "user_id"
account_id = "account_id"
event = "event"
timestamp = "at"
"""
ACCOUNTS = """as = "account"
id = "account_id"
"""
