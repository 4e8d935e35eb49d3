"""The demo's world: what a small SaaS has to tell, the same in every run."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

THREADS: Final = 4
ACCOUNTS: Final = 50
USERS: Final = 500
TICKETS: Final = 60
UNLINKS: Final = 25
TRACKS: Final = 20_000

_TYPES: Final = {"identify": "user", "custom_object": "customobjectinstance"}
_HOLDINGS: Final = ("Aurora Group", "Borealis Holding", "Compañía del Sur", "Dnipro Partners")
_STEMS: Final = ("Acorn", "Blåbær", "Café Nord", "Delta", "Ember", "Fjord", "Göta", "Harbour", "Iglu", "Juniper")
_COMPANIES: Final = tuple(map(" ".join, product(_STEMS, ("Foods", "Health", "Labs", "Logistics", "Studio"))))
_FIRST_NAMES: Final = ("Ada", "Ben", "Chloe", "Dan", "Eva", "Femi", "Grace", "Hugo", "Ines", "Jun", "Kofi", "Lea")
_LAST_NAMES: Final = ("Abe", "Berg", "Costa", "Diaz", "Evans", "Fall", "Haas", "Ivanov", "Jones", "Khan", "Lund")
_SUBJECTS: Final = ("Cannot log in", "Export is empty", "Wrong VAT rate", "Please add a seat")
_EVENTS: Final[tuple[tuple[str, Mapping[str, Sequence[Any]]], ...]] = (
    ("Signed In", {"method": ("password", "google", "saml"), "mobile": (True, False)}),
    ("Dashboard Viewed", {"dashboard": ("sales", "churn", "usage"), "milliseconds": range(40, 2_500)}),
    ("Search Run", {"results": range(300), "filters": (["open"], ["open", "mine"], [])}),
    ("Report Exported", {"format": ("pdf", "csv", "xlsx"), "rows": range(10, 50_000)}),
    ("Invoice Sent", {"amount": (19.99, 249.5, 1_200.0), "currency": ("EUR", "GBP", "SEK")}),
    ("Teammate Invited", {"role": ("admin", "editor", "viewer")}),
)


@dataclass(frozen=True)
class Call:
    """One call of the client's public interface.

    Attributes:
        method: The method's name.
        arguments: Its arguments, by name.
    """

    method: str
    arguments: Mapping[str, Any]

    def message(self) -> dict[str, Any]:
        """What shall arrive, but for the id and the time."""
        content = {_camel_case(name): value for name, value in self.arguments.items()}
        return {"type": _TYPES.get(self.method, self.method), **content}


def _camel_case(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(map(str.title, others))


World = tuple[tuple[Call, ...], ...]
"""The calls of each thread, in their order. No two threads speak of the same account."""


def build(tracks: int = TRACKS) -> World:
    """Make up what a small SaaS has to tell.

    Args:
        tracks: How many events its users cause.

    Returns:
        Each thread's calls: an organization, its accounts, their users, and then what those users do.
    """
    return tuple(tuple(_share(thread, len(range(thread, tracks, THREADS)))) for thread in range(THREADS))


def _share(thread: int, tracks: int) -> Iterator[Call]:
    chance = random.Random(f"demo {thread}")  # noqa: S311 - the same world in every run, and no secret
    organization = f"org-{thread + 1}"
    yield Call("organization", {"organization_id": organization, "traits": {"name": _HOLDINGS[thread]}})
    for number in range(thread, ACCOUNTS, THREADS):
        traits = {"name": _COMPANIES[number], "plan": chance.choice(("free", "team", "business")), "trial": False}
        # Who opened it: Segment has no account without a user.
        ids = {"account_id": _account(number), "user_id": _user(number), "organization_id": organization}
        yield Call("account", {**ids, "traits": traits})
    members = []
    for number in range(USERS):
        if number % ACCOUNTS % THREADS == thread:
            member = {"user_id": _user(number), "account_id": _account(number % ACCOUNTS)}
            members.append(member)
            yield Call("identify", {**member, "traits": _person(chance, member["account_id"])})
    yield from _activity(chance, thread, members, tracks)


def _account(number: int) -> str:
    return f"account-{number + 1:02}"


def _user(number: int) -> str:
    return f"user-{number + 1:03}"


def _person(chance: random.Random, account: str) -> dict[str, Any]:
    first, last = chance.choice(_FIRST_NAMES), chance.choice(_LAST_NAMES)
    return {
        "name": f"{first} {last}",
        "email": f"{first}.{last}@{account}.example".lower(),
        "createdAt": f"2024-{chance.randint(1, 12):02}-{chance.randint(1, 28):02}T09:30:00Z",
        "role": chance.choice(("admin", "editor", "viewer")),
    }


def _activity(chance: random.Random, thread: int, members: list[dict[str, str]], tracks: int) -> Iterator[Call]:
    """What the members do, tickets and departures in between. Who has left does nothing more."""
    tickets, unlinks = (len(range(thread, count, THREADS)) for count in (TICKETS, UNLINKS))
    acts = ["track"] * tracks + ["custom_object"] * tickets + ["unlink"] * unlinks
    chance.shuffle(acts)
    for number, act in enumerate(acts, start=1):
        member = members.pop(chance.randrange(len(members))) if act == "unlink" else chance.choice(members)
        if act == "track":
            event, choices = chance.choice(_EVENTS)
            properties = {name: chance.choice(values) for name, values in choices.items()}
            yield Call(act, {**member, "event": event, "properties": properties})
        elif act == "unlink":
            yield Call(act, member)
        else:
            yield Call(act, _ticket(chance, f"ticket-{thread + 1}-{number}", member))


def _ticket(chance: random.Random, ticket: str, member: Mapping[str, str]) -> dict[str, Any]:
    return {
        "external_id": ticket,
        "custom_object_id": "support-ticket",
        "name": chance.choice(_SUBJECTS),
        "account_id": member["account_id"],
        "traits": {"priority": chance.randint(1, 4), "openedBy": member["user_id"]},
    }
