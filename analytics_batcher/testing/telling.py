"""What a failed assertion says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from .matching import ABSENT, Including

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from ..stats import Drop
    from .matching import Difference

_VALUE: Final = 200  # characters
_LINE: Final = 110
_SHORT: Final = 50
_BEFORE: Final = 20
_MESSAGES: Final = 12
_DROPS: Final = 10
_IDS: Final = {
    "userId": "user",
    "accountId": "account",
    "organizationId": "organization",
    "anonymousId": "anonymous",
    "previousId": "previous",
    "externalId": "object",
    "customObjectId": "of",
}
_SAID: Final = {"type", "event", "name", *_IDS, "messageId", "timestamp"}


def counted(count: int, noun: str) -> str:
    """A count and its noun: `2 messages`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def listed(numbers: Sequence[int]) -> str:
    """Numbers of messages: `message 2`, `messages 2, 3 and 5`."""
    texts = [str(number) for number in numbers]
    if len(texts) == 1:
        return f"message {texts[0]}"
    return f"messages {', '.join(texts[:-1])} and {texts[-1]}"


def shown(value: Any, most: int = _VALUE) -> str:
    """A value in one line, cut if it is long."""
    if isinstance(value, Including):
        return f"including({shown(value.fields, most)})"
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - a foreign type's own code
        text = f"<{type(value).__name__}>"
    return text if len(text) <= most else f"{text[: most - 1]}… ({len(text)} characters)"


def line_of(message: Mapping[str, Any]) -> str:
    """A message in one line: `track 'Signed up' user 'u1' {'plan': 'pro'}`."""
    kind = str(message.get("type", "native"))
    words = [] if f"{kind}Id" in message else [kind]  # of a user, an account, an organization the id says it
    words += [shown(message[field], _SHORT) for field in ("event", "name") if field in message]
    words += [f"{word} {shown(message[field], _SHORT)}" for field, word in _IDS.items() if field in message]
    rest = {field: value for field, value in message.items() if field not in _SAID}
    content = rest.pop("properties", None) or rest.pop("traits", None)
    words += [shown(part) for part in (content, rest) if part]
    text = " ".join(words)
    return text if len(text) <= _LINE else f"{text[: _LINE - 1]}…"


def lines_of(messages: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Messages with their numbers, a line for each; of many, the last ones."""
    first = max(len(messages) - _MESSAGES, 0)
    if first:
        yield f"  ({counted(first, 'earlier message')})"
    for number, message in enumerate(messages[first:], first + 1):
        yield f"  {number}. {line_of(message)}"


def lines_of_fields(fields: Mapping[str, Any]) -> Iterator[str]:
    """What was expected, a line for each field."""
    for field, value in fields.items():
        yield f"  {field}: {'nothing' if value is None else shown(value)}"


def lines_of_differences(found: Iterable[Difference], indent: str = "  ") -> Iterator[str]:
    """Differences, a line or three for each."""
    for path, expected, there in found:
        if there is ABSENT:
            yield f"{indent}{path}: expected {shown(expected)}, is missing"
        elif expected is ABSENT:
            yield f"{indent}{path}: {shown(there)} was not expected"
        else:
            wanted, was = _both(expected, there)
            if len(wanted) + len(was) <= _SHORT:
                yield f"{indent}{path}: expected {wanted}, was {was}"
            else:
                yield f"{indent}{path}:"
                yield f"{indent}  expected {wanted}"
                yield f"{indent}  was      {was}"


def _both(expected: Any, there: Any) -> tuple[str, str]:
    """Two values in a line each; two long texts from shortly before the place at which they differ."""
    if isinstance(expected, str) and isinstance(there, str) and max(len(expected), len(there)) > _VALUE:
        same = next((place for place, (a, b) in enumerate(zip(expected, there, strict=False)) if a != b), None)
        same = min(len(expected), len(there)) if same is None else same
        start = max(same - _BEFORE, 0)
        before = f"{start} characters, then " if start else ""
        return f"{before}{shown(expected[start:])}", f"{before}{shown(there[start:])}"
    return shown(expected), shown(there)


def lines_of_drops(drops: Sequence[Drop]) -> Iterator[str]:
    """What was dropped and why, a line for each reason, and one for each message that is known."""
    several = len({drop.destination for drop in drops}) > 1
    for drop in drops[:_DROPS]:
        where = f", for {drop.destination}" if several else ""
        detail = f": {drop.detail}" if drop.detail else ""
        yield f"  {drop.count} as {drop.reason}{where}{detail}"
        for message in drop.messages[:3]:
            yield f"    {line_of(message)}"
        if len(drop.messages) > 3:  # noqa: PLR2004 - as above
            yield f"    and {len(drop.messages) - 3} more"
    if len(drops) > _DROPS:
        yield f"  and {len(drops) - _DROPS} times more"
