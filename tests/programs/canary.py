"""The secrets and the personal data of the tests, and whether a text tells one: in clear, or in base64."""

from __future__ import annotations

import logging
import sys
from base64 import b64encode

TOKEN = "test-token"
PERSON = "canary@example.com"
SECRETS = (
    TOKEN,
    *("site-of-ours", "key-of-ours", "vitally-token", "customer-site", "customer-key", "segment-key", "sesame"),
    *("5ite-1d", "Api/Key+s3cret==", "Wr1te/Key:s3cret+", "live/Secret+Token==", "s3cret-token"),
    *("sk_live_51f0c3", "hunter2pw"),
)
FORMATTER = logging.Formatter()
LOGGERS = (
    "analytics_batcher",
    "requests",
    "urllib3",
    *(f"urllib3.{part}" for part in ("connection", "connectionpool")),
)


def _in_base64(text):
    """What all base64 of texts with this one in them has in common, after 0, 1 and 2 other bytes."""
    for before, first in ((0, 0), (1, 2), (2, 3)):
        encoded = b64encode(b"x" * before + text.encode())
        yield encoded[first : (before + len(text)) * 8 // 6].decode()


CANARIES = (*SECRETS, PERSON)
SPELLINGS = {spelling: one for one in CANARIES for spelling in (one, *_in_base64(one))}


def told(text):
    """The canaries that a text tells."""
    return sorted({one for spelling, one in SPELLINGS.items() if spelling in text})


class Watch(logging.Filter):
    """Sees the records of a program's loggers from DEBUG on, and lets through what would have passed without it."""

    def filter(self, record):
        """Look at a record, its traceback included."""
        found = told(FORMATTER.format(record))
        if found:
            sys.stderr.write(f"{record.name} told {found}\n")
        return record.levelno >= logging.getLogger().getEffectiveLevel()


def watch_logs():
    """In a program: let the log be watched, whatever the program makes of logging."""
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.DEBUG)
        logging.getLogger(name).addFilter(Watch())
