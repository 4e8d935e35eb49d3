"""What is tracked: the same event with 8 properties, for every library."""

from __future__ import annotations

from typing import Any

USERS = 20
EVENT = "Report Opened"
"""The sink counts it in the bodies: it stands once in each event."""


def user(index: int) -> str:
    """The id of one of twenty users: a library that keeps books of users knows them all after a few events."""
    return f"user-{index % USERS:05d}"


def properties(index: int) -> dict[str, Any]:
    """Eight properties, fresh ones for each event. With type, event and user they make 297 bytes of JSON, or so."""
    return {
        "index": index,
        "plan": "enterprise",
        "source": "web",
        "path": f"/reports/weekly/2026-11/{index % 97}",
        "duration_ms": 12.5,
        "trial": False,
        "referrer": "https://www.example.com/newsletter/2026-11?utm_source=mail",
        "tags": ["alpha", "beta"],
    }
